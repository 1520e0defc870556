"""Whether a model's chat template lets an assistant message be continued. Pure.

Of the 70 templates that come with llama.cpp (0c1e570) none refused and none trimmed the
text. 23 put it right behind the generation prompt; most others, of models that reason,
behind an empty block of reasoning as well, which their models know. One is mangled:
Phi-3.5 writes its end-of-text token where no generation prompt is asked for, and it
begins like the prompt, so that llama.cpp cuts the prompt in two.
"""

from __future__ import annotations

import json
from itertools import takewhile

TEXT = "Some text"
_ASKED = [{"role": "user", "content": "Hi"}]
_CONTINUED = [*_ASKED, {"role": "assistant", "content": TEXT}]


def probes() -> tuple[bytes, bytes]:
    """Return two bodies for `/apply-template`: a question, and it with an answer begun.

    Nothing is generated; once per variant is enough.
    """
    asked, continued = ({"messages": each} for each in (_ASKED, _CONTINUED))
    return json.dumps(asked).encode(), json.dumps(continued).encode()


def continues(asked: str, continued: str) -> bool:
    """Judge the `prompt` of both answers: whether the second leads on from the first.

    It may add to the generation prompt, or put something else for its end, but not
    break it and put something between its halves.
    """
    if not continued.endswith(TEXT):
        return False
    lead = continued.removesuffix(TEXT)
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(asked, lead, strict=False))
    at = sum(1 for _ in shared)
    rest, instead = asked[at:], lead[at:]
    if not rest.strip() or not instead.endswith(rest):
        return True
    # `<think>` may become `</think>`.
    return instead.removesuffix(rest) == "/"
