"""Server report: what a server's answers say, as the report of a node. Pure.

So the fleet, its queue, breakers, tables and metrics need to know nothing of servers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import structs

from edgeserve.config.servers import ServerSetting
from edgeserve.models.naming import named
from edgeserve.quantization import ALIASES, TYPES
from edgeserve.servers.profiles.base import CONTEXT, Profile, Replies, ServedModel
from edgeserve.wire import (
    Continued,
    Cpu,
    EngineReport,
    Expected,
    Hardware,
    Launch,
    Memory,
    NodeReport,
    Platform,
    Power,
    Thermal,
)

GUESS = Expected(read=1000.0, write=40.0)
"""Tokens/s of one stream until the first answers have shown them."""

BATCH = 512
"""Tokens of a decode call, as far as a guess goes."""

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
    return blake2b(setting.url.rstrip("/").encode(), digest_size=16).hexdigest()


def name_of(setting: ServerSetting) -> str:
    """Return its name, by default its host and port."""
    return setting.name or urlsplit(setting.url).netloc.rpartition("@")[2]


def width_of(setting: ServerSetting, profile: Profile, replies: Replies) -> int:
    """Return how many requests it gets at once: as set, as read, or assumed."""
    return setting.width or profile.read_width(replies) or profile.width


def report_of(
    setting: ServerSetting, profile: Profile, replies: Replies, epoch: int
) -> NodeReport:
    """Return what it would report as a node; `epoch` grows when it was away."""
    width = width_of(setting, profile, replies)
    busy = min(profile.running(replies), width)
    models = _wanted(setting, profile.models(replies))
    short = Counter(_short(each.id) for each in models)
    return NodeReport(
        id=id_of(setting),
        instance=profile.kind,
        name=name_of(setting),
        version=profile.kind,
        state="up",
        port=0,
        hardware=UNKNOWN,
        engines=tuple(
            _engine(setting, profile, each, short, width=width, busy=busy, epoch=epoch)
            for each in models
        ),
        problems=_notes(setting, profile, replies, models),
    )


def _wanted(setting: ServerSetting, models: Sequence[ServedModel]) -> list[ServedModel]:
    found = {each.id: each for each in models}
    return [
        each for each in found.values() if not setting.models or _is_in(setting, each)
    ]


def _is_in(setting: ServerSetting, model: ServedModel) -> bool:
    return model.id in setting.models or _short(model.id) in setting.models


def _engine(
    setting: ServerSetting,
    profile: Profile,
    model: ServedModel,
    short: Counter[str],
    *,
    width: int,
    busy: int,
    epoch: int,
) -> EngineReport:
    context = setting.context or model.context or CONTEXT
    name, variant = _short(model.id), variant_of(model.id)
    return EngineReport(
        id=model.id,
        model=name if short[name] == 1 else model.id,
        variant=variant,
        file="" if variant == model.id else model.id,
        state="busy" if busy >= width else "ready",
        slots=width,
        busy=busy,
        context=context,
        abilities=setting.abilities or model.abilities,
        kind="server",
        build=profile.kind,
        epoch=epoch,
        launch=Launch(
            slots=width, context=context, batch=BATCH, threads=1, gpu_layers=-1
        ),
        expected=GUESS,
        pinned=True,  # what is loaded there is not ours to change
        last_resort=setting.last_resort,
    )


def variant_of(name: str) -> str:
    """Return the name that nodes have for the same GGUF file, else its own."""
    last = name.replace("\\", "/").rpartition("/")[2]
    if not last.lower().endswith(".gguf"):
        return name
    model, label = named(Path(last), "")
    return f"{model}:{label}" if label else name


def _short(name: str) -> str:
    """Return a model's name without its owner or folder, and without a file's type."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2] or name
    if last.lower().endswith(".gguf"):
        return named(Path(last), "")[0]
    model, _, label = last.partition(":")
    is_type = label.upper() in {*TYPES, *ALIASES, "LATEST"}
    return model if model and is_type else last


def _notes(
    setting: ServerSetting,
    profile: Profile,
    replies: Replies,
    models: Sequence[ServedModel],
) -> tuple[str, ...]:
    """Say what had to be assumed, and which key of its table says it."""
    notes = list[str]()
    if not (setting.width or profile.read_width(replies)):
        notes.append(
            f"how many requests it answers at once is unknown; {profile.width} assumed"
            " (`width`)"
        )
    if not setting.context and any(each.context == 0 for each in models):
        notes.append(f"its context is unknown; {CONTEXT} tokens assumed (`context`)")
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
            resumes=_ways(shown, each.id, goes_on=True),
            restarts=_ways(shown, each.id, goes_on=False),
        )
        for each in report.engines
    )
    return structs.replace(report, engines=engines)


def _ways(
    shown: Mapping[tuple[str, Continued], bool], model: str, *, goes_on: bool
) -> tuple[Continued, ...]:
    found = (key for key, each in shown.items() if each is goes_on)
    return tuple(way for id_, way in found if id_ == model)
