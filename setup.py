"""Compile the hot path where EDGESERVE_COMPILE=1 asks for it, as `make compile` does.

Without it nothing needs a compiler. CONTRIBUTING.md says what code in these modules has
to mind.
"""

import os
import sys

from setuptools import Extension, setup

COMPILED = {
    "balancer": """
        account delivery dispatch eligible followed headed holdings hostcache job lane
        lanes ledger lull metrics order predict prefix progress question record request
        routing slots speed stream task told traffic vigil waiting workload
    """,
    "edgeserve/relay": """
        answer answer_head connection framing head incoming link reply sweep
    """,
}
"""What every request passes, less what msgspec fills and what others inherit."""


def compiled() -> list[Extension]:
    """Translate these modules to C."""
    try:
        from mypyc.build import mypycify
    except ImportError:
        sys.exit("EDGESERVE_COMPILE=1 needs mypy in this environment: `make compile`")
    files = [
        f"{at}/{name}.py" for at, names in COMPILED.items() for name in names.split()
    ]
    return mypycify(files, opt_level="2", debug_level="0")


setup(ext_modules=compiled() if os.environ.get("EDGESERVE_COMPILE") == "1" else [])
