"""A home with every file that is kept, ways to damage one, and its readers."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from balancer.clients.keys import ClientKey, key_id
from balancer.clients.store import add_key, store_in
from edgeserve.config.paths import OWN_CERTIFICATE
from edgeserve.config.settings import NodeSettings
from edgeserve.security.certificates import keep, new_certificate
from node.discovery.identity import identified, this_machine
from node.engines import crashes
from node.engines.native import native
from node.groups.cache import WeightCache
from node.hardware.sample import Sampler
from node.planning.plan import plan
from node.planning.tunings import save
from quantize.manifest import Manifest
from tests.balancer.telemetry.test_recorder import LINE
from tests.fakes.gguf import a_model
from tests.fleet.llama_server import script
from tests.node.caches.test_store import a_saved_state
from tests.node.engines.test_builds import a_build
from tests.node.planning.test_tunings import a_result

ROOT = Path(__file__).parents[2]
PACKAGES = ("edgeserve", "node", "balancer", "quantize")
HELPERS = frozenset(
    ("read_bytes", "read_text", "read_json", "replace_file", "replace_json",
     "replacing", "open_lock", "store")
)  # fmt: skip
PORT = 18_080
"""Never listened on: commands that listen are given 0."""


SECRET = "secret-of-many-letters"


@dataclass(frozen=True)
class Home:
    """Folders of settings, state and models, all in use."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        return self.root / name

    def words(self, *command: str) -> tuple[str, ...]:
        """Return a command with the folders that it understands."""
        state, models = ("--state-dir", str(self.state)), ("--models-dir", "models")
        places: dict[str, tuple[str, ...]] = {
            "node": (*state, models[0], str(self.models)),
            "balancer": state,
            "engine": state,
            "key": state,
            "pull": (models[0], str(self.models)),
        }
        here = tuple(each.replace("HOME", str(self.root)) for each in command)
        return (*here, *places.get(command[0], ()))


def a_home(root: Path) -> Home:
    """Fill a home, each file by the code that writes it."""
    home = Home(root)
    for folder in ("config", "state", "models", "bin"):
        (root / folder).mkdir(parents=True)
    script(home.bin / "llama-server", "--decode", "500")
    a_model(home.models / "a.F16.gguf")
    (home.models / "a.compare.json").write_text("{}")
    manifest = msgspec.json.encode(Manifest(base="a.F16.gguf"))
    (home.models / "a.variants.json").write_bytes(manifest)
    for name in ("token", "api-keys"):
        (home.config / name).write_text(f"{SECRET}\n")
    keep(new_certificate("a"), home.config / "cert.pem")
    (home.config / "edgeserve.toml").write_text('log_level = "info"\n')
    (home.root / "day.jsonl").write_bytes(LINE * 2)
    (home.root / "fleet.toml").write_text(
        '[[machine]]\nname = "pi"\nprefill = 20\ndecode = 5\ncount = 2\n'
    )
    _state(home)
    made = ClientKey(id=key_id(SECRET), name="laptop", created=1.0)
    add_key(store_in(home.state), made)
    (home.state / f"admin-{PORT}.key").write_text(f"{SECRET}\n")
    return home


def _state(home: Home) -> None:
    with identified(home.state, this_machine()):
        pass
    a_build(home.state, "made-here")
    script(home.state / "engines" / "made-here" / "llama-server")
    (home.state / "engines" / "current").symlink_to("made-here")
    (home.state / "engines" / ".building.lock").touch()
    a_saved_state(home.state / "caches", home.models / "a.F16.gguf")
    weights = home.state / "engines" / "weights"
    (weights / "rpc").mkdir(parents=True)
    WeightCache(weights).keep()
    running = home.state / "engines" / "running"
    running.mkdir()
    record = {"engine": 1, "engine_created": 0, "agent": os.getpid()}
    (running / "1.json").write_text(json.dumps({**record, "agent_created": 0}))
    save(home.state, a_result())
    keep(new_certificate("a"), home.state / OWN_CERTIFICATE)
    (home.state / "learned.json").write_text('{"speeds": {}, "models": {}}')
    (home.state / "limits.json").write_text('{"limits": {"a": {"min": 1}}}')
    (home.state / "asleep.json").write_text('{"asleep": [], "boots": {}}')
    (home.state / f"balancer-{PORT}.sock").touch()
    (home.state / "checksums.json").write_text('{"files": {}}')
    (home.state / "nodes.json").write_text('{"revoked": {}}')
    (home.state / "models.json").write_text('{"models": []}')
    (home.state / "loads.json").write_text('{"seconds": {}}')
    (home.state / "routes.json").write_text('{"routes": []}')
    (home.state / "servers.json").write_text('{"servers": []}')
    settings = NodeSettings(models_dir=home.models, state_dir=home.state)
    (planned,) = plan(settings, Sampler()()).engines
    engine = native(home.state / "engines" / "current" / "llama-server")
    what = crashes.about(engine, planned.spec)
    assert what is not None
    crashes.record(home.state, what, "killed", on_gpu=False)


NODE = (("node", "start", "--port", "0", "--no-advertise"), ("node", "plan", "a"))
BALANCER = (("balancer", "start", "--port", "0", "--no-discover"),)
SELF_MADE = (*BALANCER[0], "--tls")
GIVEN = (*BALANCER[0], "--tls-cert", "HOME/config/cert.pem")
ENGINE = (("engine", "list"), ("engine", "use", "made-here"))
UP = ("up", "--model", "HOME/models/a.F16.gguf")
SHOW = ("config", "show")
TRACE = (
    (*BALANCER[0], "--record", "HOME/day.jsonl"),
    ("simulate", "--fleet", "HOME/fleet.toml", "--trace", "HOME/day.jsonl"),
)
MODEL = (
    NODE[1],
    UP,
    ("pull",),
    ("quantize", "inspect", "HOME/models/a.F16.gguf"),
)

KEYS = (
    ("key", "list"),
    ("key", "limit", "laptop", "--at-once", "2"),
    ("key", "new"),
)

PEM = f"state/{OWN_CERTIFICATE}"

READ: dict[str, tuple[tuple[str, ...], ...]] = {
    "config/edgeserve.toml": (*NODE, *BALANCER, UP, SHOW, ENGINE[0]),
    "config/token": (
        *(NODE[0], *BALANCER, ("token", "new"), ("token", "new", "--force")),
        *(("token", "show"), ("token", "rotate")),
    ),
    "config/api-keys": (
        *BALANCER,
        UP,
        ("key", "new", "--name", "me", "--file", "HOME/config/api-keys"),
    ),
    "config/cert.pem": (GIVEN,),
    PEM: (SELF_MADE,),
    "state/clients.db": (*BALANCER, *KEYS),
    f"state/admin-{PORT}.key": (
        ("models", "--url", f"http://127.0.0.1:{PORT}"),
        *BALANCER,
    ),
    "state/node.json": NODE,
    "state/node.pem": NODE,
    "state/node.lock": NODE,
    "state/models.json": (NODE[0],),
    "state/loads.json": (NODE[0],),
    "state/nodes.json": BALANCER,
    "state/routes.json": BALANCER,
    "state/servers.json": BALANCER,
    "state/checksums.json": (NODE[0],),
    "state/learned.json": BALANCER,
    "state/limits.json": BALANCER,
    "state/asleep.json": BALANCER,
    f"state/balancer-{PORT}.sock": (
        *BALANCER,
        ("balancer", "start", "--port", str(PORT), "--takeover"),
    ),
    "state/tuned/*.json": NODE,
    "state/crashes/*.json": NODE,
    "state/engines/running/1.json": NODE,
    "state/caches/*.json": (NODE[0],),
    "state/caches/*.state": (NODE[0],),
    "state/engines/weights/whole.json": (NODE[0],),
    "state/engines/made-here/build.json": (*NODE, *ENGINE),
    "state/engines/current": (*NODE, *ENGINE),
    "state/engines/.building.lock": (NODE[0],),
    "models/a.F16.gguf": MODEL,
    "models/a.compare.json": (NODE[1],),
    "models/a.variants.json": (NODE[1],),
    "day.jsonl": TRACE,
    "fleet.toml": TRACE[1:],
}
"""File in the home → the commands that read or write it."""

FOLDERS = (
    *("config", "state", "models", "state/engines", "state/engines/running"),
    *("state/tuned", "state/crashes", "state/caches"),
)
EVERY = tuple(dict.fromkeys(each for commands in READ.values() for each in commands))

KEPT_BY = {
    "balancer.clients.admission:key_left_in": f"state/admin-{PORT}.key",
    "balancer.clients.admission:local_admin": f"state/admin-{PORT}.key",
    "edgeserve.cli.client:_left_here": f"state/admin-{PORT}.key",
    "balancer.persistence.learned:_load": "state/learned.json",
    "balancer.persistence.learned:_save": "state/learned.json",
    "balancer.lifecycle.replicas.limits:_read": "state/limits.json",
    "balancer.lifecycle.replicas.limits:put": "state/limits.json",
    "balancer.energy.kept:_read": "state/asleep.json",
    "balancer.energy.kept:keep": "state/asleep.json",
    "balancer.simulate.fleets:from_file": "fleet.toml",
    "balancer.telemetry.trace:load": "day.jsonl",
    "edgeserve.security.tokens:read_secrets": "config/token config/api-keys",
    "edgeserve.security.certificates:stored_certificate": f"{PEM} state/node.pem",
    "edgeserve.security.certificates:keep": f"{PEM} state/node.pem",
    "edgeserve.security.renewal:_loaded": "config/cert.pem",
    "balancer.composition.table:_become": "state/routes.json",
    "balancer.composition.table:_kept": "state/routes.json",
    "balancer.discovery.revocations:_become": "state/nodes.json",
    "balancer.discovery.revocations:_read": "state/nodes.json",
    "edgeserve.cli.join:_store": "config/token",
    "edgeserve.servers.asking:text_in": "",
    "balancer.servers.table:_kept": "state/servers.json",
    "balancer.servers.table:keep": "state/servers.json",
    "edgeserve.cli.servers.commands:_content": "",
    "edgeserve.runtime.files:read_text": "",
    "edgeserve.runtime.files:read_json": "",
    "edgeserve.runtime.files:replace_file": "",
    "edgeserve.runtime.files:replace_json": "",
    "edgeserve.cli.secrets:_already": "config/api-keys",
    "edgeserve.cli.secrets:_write": "config/token config/api-keys",
    "edgeserve.config.sources:_table": "config/edgeserve.toml",
    "edgeserve.runtime.files:workshop": "state/engines/.building.lock",
    "node.models.choice:divergence": "models/a.compare.json",
    "node.engines.crashes:find": "state/crashes/*.json",
    "node.engines.crashes:record": "state/crashes/*.json",
    "node.engines.builds:build_in": "state/engines/made-here/build.json",
    "node.engines.builds:use": "state/engines/current",
    "node.engines.process:_end_leftover": "state/engines/running/1.json",
    "node.engines.process:recorded": "state/engines/running/1.json",
    "node.discovery.identity:_locked": "state/node.lock",
    "node.discovery.identity:_adopt": "state/node.json",
    "node.discovery.identity:_read": "state/node.json",
    "node.lifecycle.desired:_load": "state/models.json",
    "node.lifecycle.desired:save": "state/models.json",
    "node.lifecycle.load_times:_load": "state/loads.json",
    "node.lifecycle.load_times:save": "state/loads.json",
    "node.groups.cache:_read": "state/engines/weights/whole.json",
    "node.groups.cache:keep": "state/engines/weights/whole.json",
    "edgeserve.cli.up.second:is_service": "",
    "node.caches.store:_find": "state/caches/*.json",
    "node.caches.store:add": "state/caches/*.json state/caches/*.state",
    "node.pulls.checksums:_read": "state/checksums.json",
    "node.pulls.checksums:_write": "state/checksums.json",
    "node.planning.tunings:load": "state/tuned/*.json",
    "node.planning.tunings:save": "state/tuned/*.json",
    "edgeserve.runtime.files:part_of": "models/a.F16.gguf",
    "edgeserve.cli.bench.commands:_write": "",
    "edgeserve.cli.doctor.nodes:_own_id": "state/node.json",
    "edgeserve.cli.service.actions:do": "config/token config/api-keys",
    "edgeserve.cli.service.install:_text": "config/token config/api-keys",
    "edgeserve.cli.convert.checkpoint:_read": "",
    "edgeserve.cli.convert.conversion:_failure": "",
    "edgeserve.cli.convert.converter:_keep": "",
    "edgeserve.models.download:_fetch": "",
    "edgeserve.models.adopt.links:_make": "",
    "edgeserve.models.adopt.ollama:_model": "",
    "edgeserve.models.adopt.trees:_snapshots": "",
    "edgeserve.models.pull.arrival:_alone": "",
    "edgeserve.models.pull.arrival:_bring": "",
    "edgeserve.models.pull.arrival:remove_abandoned": "",
    "edgeserve.models.pull.plan:_fetch": "",
    "quantize.make_commands:compare": "models/a.compare.json",
    "quantize.manifest:read_manifest": "models/a.variants.json",
    "quantize.make:make": "models/a.variants.json",
}
"""Function that keeps a file → the files above that stand for what it keeps."""

OTHERWISE = {
    "edgeserve.security.account": "/proc",
    "balancer.dashboard.files": "files of the package",
    "balancer.clients.database": "clients.db, through SQLite",
    "balancer.telemetry.trace": "traces: day.jsonl above",
    "balancer.telemetry.recorder": "traces: day.jsonl above",
    "edgeserve.cli.convert.checkpoint": "a model's own weights, damaged in its tests",
    "edgeserve.cli.doctor.engine": "its own folder, for the trial of an engine",
    "edgeserve.cli.main": "/dev/null",
    "edgeserve.cli.service.software": "what pip has noted of this package",
    "edgeserve.models.download": "a model, verified as it is written",
    "edgeserve.models.pull.arrival": "a model, verified before it is in place",
    "edgeserve.models.pull.sums": "a model, to verify it",
    "edgeserve.models.pull.transfer": "a model, verified before it is in place",
    "edgeserve.runtime.files": "here it is done",
    "edgeserve.network": "/proc",
    "edgeserve.mdns": "/proc",
    "node.engine_build.build": "the build's own folder",
    "node.engines.process": "/proc",
    "node.engine_build.smoke": "the build's own folder",
    "node.engine_build.source": "the build's own folder",
    "node.hardware.readings": "/proc and /sys",
    "node.pulls.copying": "a model, verified before it is in place",
    "node.pulls.shared": "a model, verified by who gets it",
    "node.tune.trial": "a text of the package",
    "quantize.dequantize": "a model beside its place",
    "edgeserve.models.header": "models",
    "edgeserve.models.vocabulary": "models",
    "node.groups.cache": "weights, which count once their size is noted",
    "quantize.make_commands": "a file that a person names",
    "quantize.worker.scoring": "a file that a person names, and its own folder",
    "quantize.worker.main": "standard output",
}
"""Modules that open files by themselves, and which."""

OPENING = frozenset(
    ("open", "fdopen", "read_text", "read_bytes", "write_text", "write_bytes",
     "mkstemp", "NamedTemporaryFile", "touch")
)  # fmt: skip


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module's name and tree."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield dotted, ast.parse(path.read_text())


def calls(tree: ast.AST, where: str = "") -> Iterator[tuple[str, str, bool]]:
    """Every call in a module: the function it stands in, its name, whether a method."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield from calls(node, name)
                continue
            case ast.Call(ast.Name(name)):
                yield where, name, False
            case ast.Call(ast.Attribute(_, name)):
                yield where, name, True
            case _:
                pass
        yield from calls(node, where)


def _symlink(to: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(to)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**33)


WAYS: dict[str, Callable[[Path], object]] = {
    "missing": lambda _: None,
    "empty": lambda path: path.touch(),
    "random": lambda path: path.write_bytes(bytes(range(7, 256, 3)) * 9),
    "wrong type": lambda path: path.write_text("[1, 2]\n"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "zeros": lambda path: path.write_bytes(b"\0" * 4096),
    "no UTF-8": lambda path: path.write_bytes(b'{"id": "\xff\xfe"}\n'),
    "huge": _sparse,
    "a directory": lambda path: (path / "within").mkdir(parents=True),
    "a loop": lambda path: path.symlink_to(path.name),
    "dangling": _symlink("/nowhere/at/all"),
    "a full device": _symlink("/dev/full"),
    "a pipe": os.mkfifo,
}
"""How a file may be found, beside `cut`."""


def damage(path: Path, way: str) -> None:
    """Put something else in a file's place."""
    if path.is_symlink() or not path.is_dir():
        cut = path.read_bytes() if way == "cut" and path.is_file() else b"xx"
        path.unlink()
    else:
        cut = b"xx"
        shutil.rmtree(path)
    if way == "cut":
        path.write_bytes(cut[: len(cut) // 2])
    else:
        WAYS[way](path)


EVERY_WAY = (*WAYS, "cut")
