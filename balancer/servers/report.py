"""Server report: what a server's answers say, as the report of a node. Pure.

So the fleet, its queue, breakers, tables and metrics need to know nothing of servers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import structs

from balancer.prediction.servers.knowledge import NOTHING, Known
from edgeserve.config.servers import ServerSetting, place_of
from edgeserve.models.naming import named
from edgeserve.reports.hardware import Cpu, Hardware, Memory, Platform, Power, Thermal
from edgeserve.served import Continued, Served, WidthSource
from edgeserve.servers.profiles.base import (
    MODELS,
    MOST_MODELS,
    MOST_WIDTH,
    Profile,
    Replies,
    ServedModel,
    whole,
)
from edgeserve.wire import EngineReport, Expected, Launch, NodeReport

GUESS = Expected(read=1000.0, write=40.0)
"""Tokens/s of one stream until the first answers have shown them."""

LAUNCH = Launch(slots=0, context=0, batch=512, threads=1, gpu_layers=-1)
"""How it was started is unknown; learned speeds are kept while width and context
change."""

UNKNOWN = Hardware(
    platform=Platform(system="", release="", machine="", python=""),
    cpu=Cpu(model="", physical_cores=1, logical_cores=1, load=0.0),
    memory=Memory(total=0, available=0),
    power=Power(on_mains=True),
    thermal=Thermal(),
)
"""The machine of a server: nothing is known of it."""


def id_of(setting: ServerSetting) -> str:
    """Return an id that a server keeps as long as its URL is the same."""
    return blake2b(place_of(setting.url).encode(), digest_size=16).hexdigest()


def name_of(setting: ServerSetting) -> str:
    """Return its name, by default its host and port."""
    return setting.name or urlsplit(setting.url).netloc.rpartition("@")[2]


Ours = Mapping[str, int]
"""Requests of this balancer by the id of their engine."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a server: its answers, and what the balancer knows beside them.

    `ours` are our requests now, `most_ours` the most of each engine during the look:
    what a server counts beyond these belongs to others. `known` is what was learned,
    by the id of the engine.
    """

    setting: ServerSetting
    profile: Profile
    replies: Replies
    epoch: int = 1
    ours: Ours = field(default_factory=dict[str, int])
    most_ours: Ours = field(default_factory=dict[str, int])
    known: Mapping[str, Known] = field(default_factory=dict[str, Known])

    def width(self, model: ServedModel) -> tuple[int, WidthSource]:
        """Return how many requests an engine gets at once, and what says so."""
        if self.setting.width:
            return self.setting.width, "set"
        if told := model.width or self.profile.read_width(self.replies):
            return min(told, MOST_WIDTH), "told"
        learned = self.known.get(model.id, NOTHING).width
        if learned is not None and learned.shown:
            return learned.width, "learned"
        return min(self.profile.width, self.profile.most_width(self.replies)), "assumed"

    def busy(self, model: ServedModel) -> int:
        """Return how many requests an engine has, as far as ours and others' go.

        Models that a server does not count apart share what it does at once. A server
        that queues by itself, in order, always has room for one of ours, unless its
        width is set: others that keep it full would have us wait here for ever.
        """
        own = self.ours.get(model.id, 0)
        if model.running is not None:
            return own + max(0, model.running - self.most_ours.get(model.id, 0))
        running = self.profile.running(self.replies)
        if not running:
            return own
        others = max(0, running - sum(self.most_ours.values()))
        width, source = self.width(model)
        if source != "set" and not self.profile.llama_cpp:
            others = min(others, width - 1)
        return sum(self.ours.values()) + others

    def context(self, model: ServedModel) -> int:
        """Return the context of an engine, 0 where it is unknown."""
        known = self.known.get(model.id, NOTHING)
        return self.setting.context or model.context or whole(known.context)


def report_of(look: Look) -> NodeReport:
    """Return what the server would report as a node."""
    setting, profile = look.setting, look.profile
    models = _wanted(setting, profile.models(look.replies))
    short = Counter(_short(each.id) for each in models)
    return NodeReport(
        id=id_of(setting),
        instance=profile.kind,
        name=name_of(setting),
        version=profile.kind,
        state="up",
        port=0,
        hardware=UNKNOWN,
        engines=tuple(_engine(look, each, short) for each in models),
        problems=_notes(look, models),
    )


def _wanted(setting: ServerSetting, models: Sequence[ServedModel]) -> list[ServedModel]:
    found = {each.id: each for each in models}
    return [
        each for each in found.values() if not setting.models or _is_in(setting, each)
    ]


def _is_in(setting: ServerSetting, model: ServedModel) -> bool:
    return model.id in setting.models or _short(model.id) in setting.models


def _engine(look: Look, model: ServedModel, short: Counter[str]) -> EngineReport:
    (width, source), busy = look.width(model), look.busy(model)
    name, variant = _short(model.id), variant_of(model.id)
    context = look.context(model)
    return EngineReport(
        id=model.id,
        model=name if short[name] == 1 else model.id,
        variant=variant,
        file="" if variant == model.id else model.id,
        state="busy" if busy >= width else "ready",
        slots=width,
        busy=busy,
        context=context,
        abilities=look.setting.abilities or model.abilities,
        kind="server",
        build=look.profile.kind,
        epoch=look.epoch,
        launch=LAUNCH,
        expected=GUESS,
        pinned=True,  # what is loaded there is not ours to change
        last_resort=look.setting.last_resort,
        served=Served(
            width=source,
            most=look.profile.most_width(look.replies),
            cache=look.profile.cached(look.replies),
            block=look.profile.block(look.replies),
            behind=model.behind,
            too_long=0 if context else look.known.get(model.id, NOTHING).too_long,
        ),
    )


def variant_of(name: str) -> str:
    """Return the name that nodes have for the same GGUF file, else its own."""
    last = name.replace("\\", "/").rpartition("/")[2]
    if not last.lower().endswith(".gguf"):
        return name
    model, label = named(Path(last), "")
    return f"{model}:{label}" if label else name


def _short(name: str) -> str:
    """Return a model's name without its owner or folder, a file's type, or a tag.

    Ollama's tags may name a size, a tuning or a type: `qwen3:8b` is a variant of
    `qwen3` where it is the only one there.
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2] or name
    if last.lower().endswith(".gguf"):
        return named(Path(last), "")[0]
    return last.partition(":")[0] or last


def _notes(look: Look, models: Sequence[ServedModel]) -> tuple[str, ...]:
    """Say what had to be assumed or learned, and which key of its table says it."""
    notes, widths = list[str](), [look.width(each) for each in models]
    listed = look.replies[MODELS].json.get("data")
    if isinstance(listed, list) and len(listed) > MOST_MODELS:
        notes.append(
            f"it lists {len(listed)} models, of which the first {MOST_MODELS} are used"
        )
    if assumed := {width for width, source in widths if source == "assumed"}:
        notes.append(
            "how many requests it answers at once is unknown;"
            f" {max(assumed)} assumed until its answers show it (`width`)"
        )
    if learned := sorted({width for width, source in widths if source == "learned"}):
        shown = " or ".join(map(str, learned))
        notes.append(f"it answers {shown} at once, as its answers show (`width`)")
    if not all(look.context(each) for each in models):
        notes.append("its context is unknown; it decides what is too long (`context`)")
    return tuple(notes)


def with_shown(
    report: NodeReport, shown: Mapping[tuple[str, Continued], bool]
) -> NodeReport:
    """Add which of its models go on with a broken answer, in which ways."""
    if not shown:
        return report
    engines = tuple(
        structs.replace(
            each,
            served=structs.replace(
                each.served or Served(),
                resumes=_ways(shown, each.id, goes_on=True),
                restarts=_ways(shown, each.id, goes_on=False),
            ),
        )
        for each in report.engines
    )
    return structs.replace(report, engines=engines)


def _ways(
    shown: Mapping[tuple[str, Continued], bool], model: str, *, goes_on: bool
) -> tuple[Continued, ...]:
    found = (key for key, each in shown.items() if each is goes_on)
    return tuple(way for id_, way in found if id_ == model)
