"""Which known word somebody may have meant. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, to stand behind a sentence; empty if none is near.

    Spelling in small and large letters does not count.
    """
    plain = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), plain, n=1)
    return f"; did you mean {plain[near[0]]!r}?" if near else ""
