"""Server report: what a server's answers say, as the report of a node. Pure.

So the fleet, its queue, breakers, tables and metrics need to know nothing of servers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from urllib.parse import urlsplit

from edgeserve.config.servers import ServerSetting
from edgeserve.models.naming import named
from edgeserve.quantization import ALIASES, TYPES
from edgeserve.servers.profiles.base import (
    CONTEXT,
    MODELS,
    MOST_MODELS,
    NOTHING,
    Profile,
    Replies,
    ServedModel,
)
from edgeserve.wire import (
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
    name = _short(model.id)
    return EngineReport(
        id=model.id,
        model=name if short[name] == 1 else model.id,
        variant=model.id,
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
    listed = replies.get(MODELS, NOTHING).json.get("data")
    if isinstance(listed, list) and len(listed) > MOST_MODELS:
        notes.append(
            f"it lists {len(listed)} models, of which the first {MOST_MODELS} are used"
        )
    if not (setting.width or profile.read_width(replies)):
        notes.append(
            f"how many requests it answers at once is unknown; {profile.width} assumed"
            " (`width`)"
        )
    if not setting.context and any(each.context == 0 for each in models):
        notes.append(f"its context is unknown; {CONTEXT} tokens assumed (`context`)")
    return tuple(notes)
