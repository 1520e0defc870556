"""What would wait for the garbage collector: nothing that a request had in hand."""

from __future__ import annotations

import gc
import types
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parents[3]
PACKAGES = ("edgeserve", "balancer", "node")
FOLDERS = tuple(f"{HERE / each}/" for each in PACKAGES)
LARGE = 50_000
"""Bytes of what counts as a body."""


@contextmanager
def collected() -> Generator[list[str]]:
    """Name what of ours is left in cycles, and each body, once the block has ended.

    Only what was made in the block counts: another test may have left a timer or a
    thread that lets go of its balancer while this block runs.
    """
    found: list[str] = []
    gc.collect()
    gc.freeze()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.garbage.clear()
    try:
        yield found
        gc.collect()
        found += [each for each in map(_ours, gc.garbage) if each]
        found += ["a body"] * len({id(each) for each in _bodies()})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


def _ours(thing: object) -> str:
    code = _code(thing)
    if code is not None:
        return code.co_qualname if code.co_filename.startswith(FOLDERS) else ""
    kind = type(thing)
    return kind.__qualname__ if kind.__module__.split(".")[0] in PACKAGES else ""


def _code(thing: object) -> types.CodeType | None:
    match thing:
        case types.FrameType():
            return thing.f_code
        case types.CoroutineType():
            return thing.cr_code
        case types.FunctionType():
            return thing.__code__
        case _:
            return None


def _bodies() -> Generator[object]:
    for thing in gc.garbage:
        for each in gc.get_referents(thing):
            if isinstance(each, bytes | bytearray | str) and len(each) > LARGE:
                yield each
