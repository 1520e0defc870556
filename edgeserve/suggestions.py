"""Suggestions: finds the known word or path nearest to a mistyped one. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, the end of a sentence; empty if none is near.

    Upper and lower case count as equal.
    """
    plain = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), plain, n=1)
    return f"; did you mean {plain[near[0]]!r}?" if near else ""


LONGEST_PATH = 200
"""Characters compared and shown; the cost of comparing grows with their square."""

LIKE = 0.75
"""Least similarity of two paths, 0 to 1: `/v1/chat/completion` but not `/v1/files`."""

OTHERS = (
    (
        r"/api/(?!v\d)",
        "a balancer serves a part of Ollama's API; docs/api.md says which",
    ),
    (r"/v1(alpha|beta)|.*:(stream)?generatecontent", "Gemini's API is not served"),
    (r"(/v1)?/(audio|images|videos|realtime)\b", "only text is generated here"),
    (
        r"/v1/(files|uploads|batches|fine_tuning|assistants|threads|moderations)\b",
        "that part of OpenAI's API is not served",
    ),
)
"""Routes of other servers that are not served here."""


def hint(path: str, known: Iterable[str]) -> str:
    """Return a clause that says what to try; `known` are the paths served."""
    plain = re.sub("/+", "/", path.lower()).rstrip("/")
    known = sorted(known, key=len, reverse=True)
    if plain in known:
        return f"did you mean {plain}?"
    for pattern, clause in OTHERS:
        if re.match(pattern, plain):
            return clause
    # The longest first: /openai/v1/embeddings ends in two of them.
    ending = [each for each in known if plain.endswith(each)]
    versioned = [each for each in ending if each.startswith("/v1/")]
    alike = difflib.get_close_matches(plain, known, n=1, cutoff=LIKE)
    found = versioned or alike or ending
    return f"did you mean {found[0]}?" if found else "docs/api.md lists the routes"
