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


def names_of(*shapes: type[DataclassInstance]) -> tuple[str, ...]:
    """Return the names of all settings of some classes."""
    return tuple(each.name for shape in shapes for each in fields(shape))


@dataclass(frozen=True, kw_only=True)
class GrammarSettings:
    """Limits of grammars and schemas, which an engine compiles for each request."""

    grammar_limit_kib: int = setting(
        256, "Largest grammar, or JSON schemas of one request, in KiB; past it 400."
    )
    grammar_depth: int = setting(
        100, "Deepest nesting in a grammar or a JSON schema; past it 400."
    )
    grammar_repeats: int = setting(
        10_000,
        "Highest count of repetitions in a grammar, JSON schema or pattern, such as"
        " minItems or {1,1000}; past it 400.",
    )
    grammar_choices: int = setting(
        1000,
        "Most alternatives and optional parts in a grammar or schema; past it 400.",
    )
    list_entries: int = setting(
        10_000, "Longest enum, logit_bias or list of stops in a request; past it 400."
    )


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """Limits that node and balancer share."""

    SECTION: ClassVar[str] = ""

    body_limit_mib: int = setting(64, "Largest request body, in MiB; past it 413.")
    held_limit_mib: int = setting(
        1024, "Bodies of all requests that are not answered yet, in MiB; past it 503."
    )
    head_limit_kib: int = setting(64, "Longest request head, in KiB; past it 431.")
    head_seconds: float = setting(
        10.0, "How long a request head may take to come; past it 408."
    )
    body_seconds: float = setting(
        30.0, "How long each 16 KiB of a body may take to come; past it 408."
    )
    idle_seconds: float = setting(
        75.0, "How long a connection is kept without a request."
    )
    stall_seconds: float = setting(
        60.0, "How long a client may take nothing of its answer before it is dropped."
    )
    connections_per_address: int = setting(
        1024, "Connections of one client address; past it 429."
    )
    requests_at_once: int = setting(
        0, "Requests being answered at once; past it 503. 0: as many as find room."
    )

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        for name in ("body_limit_mib", "held_limit_mib", "head_limit_kib"):
            at_least(self, name, 1)
        for name in ("head_seconds", "body_seconds", "idle_seconds", "stall_seconds"):
            at_least(self, name, 0.1)
        at_least(self, "connections_per_address", 1)
        at_least(self, "requests_at_once", 0)
