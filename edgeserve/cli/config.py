"""`edgeserve config`: the commands that show every setting and an example file."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from edgeserve.config.limits import names_of
from edgeserve.config.paths import config_dir, moved_by
from edgeserve.config.settings import BalancerSettings, NodeSettings, SharedSettings
from edgeserve.config.sources import in_order
from edgeserve.help import Group, examples
from edgeserve.terminal import Row, print_table

EXAMPLES: dict[str, Any] = {
    "allowed_hosts": ["llm.example"],
    "announce_url": "http://192.168.1.20:8090",
    "api_key_file": "/etc/edgeserve/api-keys",
    "balancers": ["http://192.168.1.10:8080"],
    "cors_origins": ["https://chat.example"],
    "embedding_models": ["bge-small-en-v1.5-q8_0.gguf"],
    "host": "192.168.1.20",
    "llama_server": "/opt/llama.cpp/bin/llama-server",
    "media_hosts": ["images.example"],
    "models": ["smollm2-135m-instruct", "/srv/models/qwen2.5-1.5b-q4_k_m.gguf"],
    "models_dir": "~/.local/share/edgeserve/models",
    "name": "kitchen",
    "nodes": ["http://192.168.1.20:8090"],
    "record": "/var/log/edgeserve/trace.jsonl",
    "rerank_models": ["bge-reranker-v2-m3-q8_0.gguf"],
    "state_dir": "~/.local/state/edgeserve",
    "tls_cert": "/etc/edgeserve/cert.pem",
    "tls_key": "/etc/edgeserve/key.pem",
    "token_file": "/etc/edgeserve/token",
    "trusted_proxies": ["192.168.1.5"],
}
"""Examples for settings without a default, or whose default differs by machine."""

HEAD = """\
# Every setting of EdgeServe. What is commented out shows the default, or an example
# where it says so. This file is looked for where `edgeserve config show` says, or named
# by --config. The environment (EDGESERVE_NODE_SLOTS, EDGESERVE_LOG_LEVEL) and flags
# (--slots) win over it. Written by `edgeserve config example`.
"""

SHAPES: dict[str, type[SharedSettings]] = {
    "node": NodeSettings,
    "balancer": BalancerSettings,
}


def example_file() -> str:
    """Return the file's text."""
    shapes: list[type[SharedSettings]] = [SharedSettings, *SHAPES.values()]
    return "\n".join([HEAD, *(line for shape in shapes for line in _section(shape))])


def _section(shape: type[SharedSettings]) -> Iterator[str]:
    shared: tuple[str, ...] = ()
    if shape is not SharedSettings:
        shared = names_of(SharedSettings)
        yield f"[{shape.SECTION}]\n"
    for each in in_order(shape):
        if each.name not in shared:
            yield from _setting(each)


TABLE_EXAMPLES = {
    "routes": """\
#[[route]]
#name = "assistant"
#models = ["qwen3-32b", "qwen3-8b"]
#when = ["away", "full", "too-long"]
#full_seconds = 10

#[[route]]
#name = "cheap-first"
#cascade = ["smollm2-135m-instruct", "qwen3-8b"]
#min_mean_logprob = -0.6
#hold_tokens = 64
""",
    "server_tables": """\
#[[server]]
#url = "http://gpu:8000"
#name = "gpu"
#kind = "vllm"
#key_file = "~/vllm.key"
#width = 64
#models = ["Qwen/Qwen3-8B"]
#last_resort = false
""",
    "adopt_tables": """\
#[[adopt]]
#url = "http://127.0.0.1:5000"
#key_file = "~/vllm.key"
""",
}


def _setting(each: dataclasses.Field[Any]) -> Sequence[str]:
    if "table" in each.metadata:
        lines = _help_lines(f"{each.metadata['help']} For example:")
        return [*lines, TABLE_EXAMPLES[each.name]]
    value = EXAMPLES.get(each.name, each.default)
    note = " For example:" if each.name in EXAMPLES else ""
    # JSON writes strings, numbers, booleans and lists as TOML does.
    shown = json.dumps(value, ensure_ascii=False)
    lines = _help_lines(each.metadata["help"] + note)
    return [*lines, f"#{each.name} = {shown}\n"]


def _help_lines(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 86)]


SECRETS = {"token_file": "token", "api_key_file": "api-keys"}
"""Setting → the file in the configuration folder that is used without it."""


@click.group(cls=Group)
def config() -> None:
    """Show the settings and where they come from."""


@config.command(
    epilog=examples(
        ("edgeserve config show", "all of them"),
        ("edgeserve config show --section node --json", "for scripts"),
        ("EDGESERVE_NODE_SLOTS=4 edgeserve config show", "try a variable out"),
    )
)
@click.option(
    "--section", type=click.Choice(["node", "balancer"]), help="Show only this section."
)
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="TOML settings file."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(section: str | None, file: Path | None, *, as_json: bool) -> None:
    """Show the settings that would count here and now.

    The later wins: default, settings file, environment, command line.
    """
    from edgeserve.config.options import warn_of_unknown_variables
    from edgeserve.config.sources import default_file

    warn_of_unknown_variables()
    found = {name: resolved(name, file) for name in ([section] if section else SHAPES)}
    if as_json:
        click.echo(json.dumps(found, indent=2, default=str))
        return
    folder, path = config_dir(), file or default_file()
    click.echo(f"Folder of settings, token and keys: {folder} ({in_words(folder)})")
    click.echo(f"Settings file: {path}{'' if path.exists() else ' (not there)'}\n")
    for name, settings in found.items():
        _print(name, settings)


@config.command(
    epilog=examples(
        ("edgeserve config example >edgeserve.toml", "start a file of your own"),
    )
)
def example() -> None:
    """Print a settings file with every setting, commented out."""
    click.echo(example_file(), nl=False)


def resolved(section: str, file: Path | None) -> dict[str, dict[str, Any]]:
    """Return field → its value and its origin."""
    from edgeserve.config.sources import resolve

    found = resolve(SHAPES[section], file=file)
    names = [each.name for each in in_order(SHAPES[section])]
    shown = {
        name: {"value": _plain(found.settings, name), "origin": found.origins[name]}
        for name in names
    }
    return shown | _secrets(found.settings)


def _plain(settings: SharedSettings, name: str) -> Any:
    """Return a value; tables as JSON has them."""
    value = getattr(settings, name)
    if "table" not in settings.__dataclass_fields__[name].metadata:
        return value
    return [each.shown() for each in value]


def _secrets(settings: SharedSettings) -> dict[str, dict[str, Any]]:
    """Return the files of secrets in their usual places, where no setting names one."""
    usual = {name: config_dir() / file for name, file in SECRETS.items()}
    return {
        name: {"value": path, "origin": f"{in_words(path)}, as it is there"}
        for name, path in usual.items()
        if getattr(settings, name, path) is None and path.exists()
    }


def in_words(path: Path) -> str:
    """Return what determines the place of a folder."""
    variable = moved_by(path)
    return f"environment {variable}" if variable else "default"


def _print(section: str, settings: dict[str, dict[str, Any]]) -> None:
    rows = list[Row]()
    for name, found in settings.items():
        value = found["value"]
        shown = "" if value is None else json.dumps(value, default=str)
        rows.append((name, shown, str(found["origin"])))
    print_table((f"[{section}]", "value", "from"), rows)
    click.echo()
