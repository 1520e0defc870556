"""Server profile: what is particular to one kind of server. Pure.

A profile reads the answers to GET requests. It looks at fields, never at the status
alone: some servers answer 200 to every path. Any answer may lie or be damaged.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import msgspec

from edgeserve.config.servers import ServerKind
from edgeserve.served import BEHIND, CacheKind
from edgeserve.servers.profiles.translation import Translations
from edgeserve.wire import MALFORMED, Ability

Json = dict[str, Any]

MODELS = "/v1/models"
"""The list of models; some servers have it without `/v1`."""

OPEN_MESSAGE: Mapping[str, object] = {
    "continue_final_message": True,
    "add_generation_prompt": False,
}
"""Leaves a last message of the assistant open, in vLLM and SGLang."""

MOST_MODELS = 1000
LONGEST_ID = 256

TEXT: tuple[Ability, ...] = ("chat", "completion", "tools")

MOST_WIDTH = 1024
"""Requests at once; more than this is no limit."""

_EMBEDS = re.compile(r"embed|(?<![a-z])(bge|gte|e5)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    """The answer to one GET. `keyed`: the server was shown a key."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    keyed: bool = False

    @cached_property
    def json(self) -> Json:
        """Its object, {} where there is none."""
        if self.status != 200:
            return {}
        try:
            return msgspec.json.decode(self.body, type=Json)
        except MALFORMED:
            return {}

    @cached_property
    def text(self) -> str:
        """Its body as text, "" unless it was a success."""
        if self.status != 200:
            return ""
        return self.body.decode(errors="replace")


NOTHING = Reply(0, {}, b"")

Replies = Mapping[str, Reply]
"""Answers by path."""


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as its server calls it.

    `context` and `width` are 0 where they are not told. `running`: requests of its own,
    those that wait included, where a server counts them by model. `behind`: see
    `Served`.
    """

    id: str
    context: int = 0
    width: int = 0
    running: int | None = None
    abilities: tuple[Ability, ...] = TEXT
    behind: tuple[str, ...] = ()


class Profile(ABC):
    """One kind of server.

    `asks`: what is asked to recognise it; `looks`: what is asked again and again,
    beside the list of models. `width`: requests at once, where neither settings nor
    the server tell it. `renames`: request fields that it calls otherwise. `cache`: how
    it keeps prompts. `continues`: fields that have it go on with a last message of the
    assistant, where it would close that otherwise. `llama_cpp`: it takes all routes and
    fields of llama.cpp, and streams as that does. `translates`: the routes of llama.cpp
    that it has in another form.
    """

    kind: ClassVar[ServerKind]
    asks: ClassVar[tuple[str, ...]] = (MODELS,)
    looks: ClassVar[tuple[str, ...]] = ()
    width: ClassVar[int] = 8
    renames: ClassVar[Mapping[str, str]] = {}
    cache: ClassVar[CacheKind] = "unknown"
    continues: ClassVar[Mapping[str, object]] = {}
    llama_cpp: ClassVar[bool] = False
    translates: ClassVar[Translations] = {}

    def takes(self, path: str) -> bool:
        """Whether it answers a route that not every server has."""
        return self.llama_cpp or path in self.translates

    @abstractmethod
    def recognises(self, replies: Replies) -> bool:
        """Whether the answers to `asks` are those of such a server."""

    def models(self, replies: Replies) -> tuple[ServedModel, ...]:
        """Return the models that it lists."""
        return tuple(
            ServedModel(
                id=card["id"],
                context=whole(card.get("max_model_len")),
                abilities=abilities_of(card["id"]),
                behind=_ids(card.get(BEHIND)),
            )
            for card in cards(replies)
        )

    def problem(self, replies: Replies) -> str:
        """Say why it cannot serve though it answers; "" where nothing shows that."""
        del replies
        return ""

    def read_width(self, replies: Replies) -> int:
        """Return how many requests it answers at once, 0 where it does not tell."""
        del replies
        return 0

    def running(self, replies: Replies) -> int:
        """Return how many requests it has, those that wait included; 0 if unknown."""
        del replies
        return 0

    def waiting(self, replies: Replies) -> int:
        """Return how many of them wait; 0 if unknown."""
        del replies
        return 0

    def more_looks(self, replies: Replies) -> tuple[str, ...]:
        """Return what else is asked, given the answers to `looks`."""
        del replies
        return ()

    def most_width(self, replies: Replies) -> int:
        """Return how many requests it takes at most, where that is no width."""
        del replies
        return MOST_WIDTH

    def cached(self, replies: Replies) -> CacheKind:
        """Return how it keeps prompts."""
        del replies
        return self.cache

    def block(self, replies: Replies) -> int:
        """Return how many tokens a block of its prefix cache has."""
        del replies
        return 1


def entries(replies: Replies, path: str, key: str) -> list[Json]:
    """Return the objects in a list of an answer, at most as many as are read."""
    found = replies.get(path, NOTHING).json.get(key)
    listed = found if isinstance(found, list) else []
    return [each for each in listed[:MOST_MODELS] if isinstance(each, dict)]


def cards(replies: Replies) -> list[Json]:
    """Return the entries of the list of models that have a usable id."""
    return [each for each in entries(replies, MODELS, "data") if is_id(each.get("id"))]


def is_id(value: object) -> bool:
    """Whether it can be the name of a model."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID:
        return False
    return value.isprintable() and bool(value.strip())


def _ids(value: object) -> tuple[str, ...]:
    """Return a list of ids, empty for anything else."""
    if not isinstance(value, list) or not all(map(is_id, value)):
        return ()
    return tuple(value)


def owners(replies: Replies) -> set[str]:
    """Return who owns the models, as the list says."""
    return {str(each.get("owned_by", "")) for each in cards(replies)}


def abilities_of(name: str) -> tuple[Ability, ...]:
    """Return what a model does, as its name tells."""
    return ("embeddings",) if _EMBEDS.search(name) else TEXT


def whole(value: object) -> int:
    """Return a JSON number of something, 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value < 2**40 else 0


def gauge(reply: Reply, *names: str) -> int:
    """Return the sum of Prometheus gauges over all their labels."""
    return whole(sum(value for name in names for value in _values(reply, name)))


def label(reply: Reply, metric: str, name: str) -> int:
    """Return the number in a label of a Prometheus metric, 0 where there is none."""
    found = re.search(
        rf'^{re.escape(metric)}{{[^}}\n]*\b{name}="(\d+)"', reply.text, re.M
    )
    return whole(int(found[1])) if found else 0


def _values(reply: Reply, name: str) -> Iterator[float]:
    for line in reply.text.splitlines():
        if line.startswith(name) and line[len(name) : len(name) + 1] in {"{", " "}:
            try:
                yield float(line.rpartition(" ")[2])
            except ValueError:
                continue


def unwell(reply: Reply, path: str) -> str:
    """Say that a health check has failed, "" where it did not."""
    if reply.status < 500:
        return ""
    return f"{path} answered {reply.status}: its engine loads, hangs or has died"
