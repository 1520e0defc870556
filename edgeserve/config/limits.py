"""Limit settings: the time and memory that one client may use.

They have a module of their own because few people change them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from edgeserve.config.values import at_least

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def setting(default: Any, help: str, flag: str | None = None) -> Any:  # noqa: A002 - click's word
    """A settings field: default, help, and flag where it differs from the name."""
    return field(default=default, metadata={"help": help, "flag": flag})


def tables(name: str, help: str) -> Any:  # noqa: A002
    """A settings field that only the file can set, by tables `[[name]]`."""
    return field(default=(), metadata={"help": help, "flag": None, "table": name})


def names_of(*shapes: type[DataclassInstance]) -> tuple[str, ...]:
    """Return the names of all settings of some classes, but for tables."""
    return tuple(
        each.name
        for shape in shapes
        for each in fields(shape)
        if "table" not in each.metadata
    )


@dataclass(frozen=True, kw_only=True)
class GrammarSettings:
    """Limits of grammars and schemas, which an engine compiles for each request."""

    grammar_limit_kib: int = setting(
        256,
        "Largest grammar, and largest sum of JSON schemas, in one request, in KiB;"
        " above it 400.",
    )
    grammar_depth: int = setting(
        100, "Deepest nesting in a grammar or JSON schema; above it 400."
    )
    grammar_repeats: int = setting(
        10_000,
        "Highest number of repetitions in a grammar, JSON schema or pattern, such as"
        " minItems or {1,1000}; above it 400.",
    )
    grammar_choices: int = setting(
        1000,
        "Largest number of alternatives and optional parts in a grammar or JSON"
        " schema; above it 400.",
    )
    list_entries: int = setting(
        10_000,
        "Largest number of entries in an enum, a logit_bias or a list of stop"
        " strings; above it 400.",
    )


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """Limits that node and balancer share."""

    SECTION: ClassVar[str] = ""

    body_limit_mib: int = setting(64, "Largest request body, in MiB; above it 413.")
    held_limit_mib: int = setting(
        1024,
        "Largest sum of the bodies of all unanswered requests, in MiB; above it 503.",
    )
    head_limit_kib: int = setting(64, "Largest request head, in KiB; above it 431.")
    head_seconds: float = setting(
        10.0, "Longest time for a request head to arrive, in seconds; above it 408."
    )
    body_seconds: float = setting(
        30.0,
        "Longest time for each 16 KiB of a body to arrive, in seconds; above it 408.",
    )
    idle_seconds: float = setting(
        75.0, "Longest time that a connection stays open without a request, in seconds."
    )
    stall_seconds: float = setting(
        60.0,
        "Longest time that a client may read nothing of its answer, in seconds; above"
        " it the connection is closed.",
    )
    connections_per_address: int = setting(
        1024, "Largest number of connections from one client address; above it 429."
    )
    requests_at_once: int = setting(
        0,
        "Largest number of requests in progress; above it 503. 0: limited only by"
        " connections and memory.",
    )

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        for name in ("body_limit_mib", "held_limit_mib", "head_limit_kib"):
            at_least(self, name, 1)
        for name in ("head_seconds", "body_seconds", "idle_seconds", "stall_seconds"):
            at_least(self, name, 0.1)
        at_least(self, "connections_per_address", 1)
        at_least(self, "requests_at_once", 0)
