"""How many connections the open files of this process allow."""

from __future__ import annotations

import errno

MOST_FILES = 65536
"""Where the system sets no limit, or a larger one."""

MOST_RESERVED = 512


def open_files() -> int:
    """Return how many files this process may have open."""
    try:
        import resource
    except ImportError:  # not everywhere
        return MOST_FILES
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if soft == resource.RLIM_INFINITY else min(soft, MOST_FILES)


def most_connections(files: int) -> int:
    """Return how many clients may be connected, each with an upstream of its own.

    A reserve is left for listening, files, pipes and the connections between machines.
    """
    return max(1, (files - min(files // 4, MOST_RESERVED)) // 2)


def is_shortage(error: OSError) -> bool:
    """Whether that came of too many open files, here or in the whole system."""
    return error.errno in {errno.EMFILE, errno.ENFILE}
