"""Server translation: llama.cpp's own routes, as other programs call them. Pure.

Only what asks and answers the same is here: token ids. Templates and llama.cpp's own
completions have fields that others lack; those routes are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeserve.errors import BadRequest

Json = dict[str, Any]


@dataclass(frozen=True)
class Translation:
    """One route: its path there, the request as it is there, and the answer as here.

    `asked` raises BadRequest, `answered` LookupError, TypeError or ValueError.
    """

    path: str
    asked: Callable[[Json], Json]
    answered: Callable[[Any], Json]


def _text(request: Json) -> str:
    content = request.get("content")
    if not isinstance(content, str):
        raise BadRequest("servers of other programs take `content` as one text only")
    if request.get("with_pieces"):
        raise BadRequest("servers of other programs give no pieces (`with_pieces`)")
    return content


def _prompt(request: Json) -> Json:
    special = bool(request.get("add_special", False))
    return {**_named(request), "prompt": _text(request), "add_special_tokens": special}


def _tokens(request: Json) -> Json:
    return {**_named(request), "tokens": request.get("tokens", [])}


def _named(request: Json) -> Json:
    return {"model": request["model"]} if "model" in request else {}


def _inputs(request: Json) -> Json:
    special = bool(request.get("add_special", False))
    return {"inputs": _text(request), "add_special_tokens": special}


def _ids(answer: Any) -> Json:
    return {"tokens": [int(each) for each in answer["tokens"]]}


def _ids_listed(answer: Any) -> Json:
    return {"tokens": [int(each["id"]) for each in answer]}


def _content(name: str) -> Callable[[Any], Json]:
    return lambda answer: {"content": str(answer[name])}


Translations = Mapping[str, Translation]

OF_VLLM: Translations = {
    "/tokenize": Translation("/tokenize", _prompt, _ids),
    "/detokenize": Translation("/detokenize", _tokens, _content("prompt")),
}
OF_SGLANG: Translations = {
    "/tokenize": Translation("/tokenize", _prompt, _ids),
    "/detokenize": Translation("/detokenize", _tokens, _content("text")),
}
OF_TGI: Translations = {"/tokenize": Translation("/tokenize", _inputs, _ids_listed)}
