"""`edgeserve join`: makes a new machine one of the fleet, without copying a secret."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import click

from edgeserve.config.paths import config_dir
from edgeserve.config.settings import NodeSettings
from edgeserve.config.sources import resolve
from edgeserve.errors import CommandError, in_words
from edgeserve.help import Command, examples

OWNER_ONLY = 0o600

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


@click.command(
    cls=Command,
    epilog=examples(
        (
            "edgeserve join http://192.168.1.20:8080",
            "as the balancer says at its start",
        ),
        ("edgeserve join https://nuc:8080 --port 8091", "where 8090 is in use"),
    ),
)
@click.argument("url")
@click.option("--name", help=f"Name of this machine.  [default: {NodeSettings.name}]")
@click.option("--port", metavar="NUMBER", help="TCP port of the node.  [default: 8090]")
@click.option("--state-dir", metavar="PATH", help="Folder of the node's identity.")
@click.option("--token-file", metavar="PATH", help="File to write the fleet token to.")
@click.option("--yes", is_flag=True, help="Do not ask whether the codes are equal.")
def join(
    url: str,
    name: str | None,
    port: str | None,
    state_dir: str | None,
    token_file: str | None,
    *,
    yes: bool,
) -> None:
    """Ask a balancer for the fleet token, on a new machine.

    URL is the balancer's; it has to run with --approve. Both machines show a code.
    Where the codes are equal, `edgeserve nodes approve` on the balancer's machine lets
    this one in: it gets the token, and `edgeserve node start` serves.
    """
    flags = {
        "name": name,
        "port": port,
        "state_dir": state_dir,
        "token_file": token_file,
    }
    settings = resolve(NodeSettings, flags=flags).settings
    path = settings.token_file or config_dir() / "token"
    if path.exists() or path.is_symlink():
        raise CommandError(
            f"{path} exists: this machine belongs to a fleet already; move the file"
            " away to join another one"
        )
    if not (yes or sys.stdin.isatty()):
        raise CommandError(
            "join asks at the end whether both codes are equal, and standard input is"
            " no terminal; --yes does without"
        )
    token, code = _asked(url, settings)
    if not yes and not click.confirm(f"Let in. Did the balancer show {code}, too?"):
        raise CommandError("nothing is stored: it may have been another balancer")
    _store(path, token)
    start = ["edgeserve", "node", "start"]
    for flag, value in flags.items():
        start += [f"--{flag.replace('_', '-')}", value] if value else []
    click.echo(f"{path} holds the fleet token. Now: {shlex.join(start)}")


def _asked(url: str, settings: NodeSettings) -> tuple[str, str]:
    """Ask, show the code, and return token and code. Raises CommandError."""
    # The agent imports much that `--help` does not need.
    from edgeserve.runtime.lifecycle import run
    from node.discovery.identity import identified, this_machine
    from node.discovery.joining import balancer_at, joined

    balancer = balancer_at(url)
    codes: list[str] = []
    tokens: list[str] = []

    async def asking(stop: asyncio.Event) -> None:
        with identified(settings.state_dir, this_machine()) as identity:

            def met(code: str) -> None:
                codes.append(code)
                click.echo(f"{settings.name} asks to join with code {code}.")
                click.echo(
                    "If `edgeserve nodes` on the balancer's machine shows the same"
                    f" code, run there: edgeserve nodes approve {identity.id[:8]}"
                )

            token = await joined(
                balancer,
                port=settings.port,
                name=settings.name,
                identity=identity,
                met=met,
                stop=stop,
            )
            tokens.extend([token] if token else [])

    status = run(asking, log_level=settings.log_level)
    if not tokens:
        click.echo("not joined", err=True)
        sys.exit(status or INTERRUPTED)
    return tokens[0], codes[0]


def _store(path: Path, token: str) -> None:
    from edgeserve.runtime.files import replace_file

    try:
        replace_file(path, f"{token}\n".encode(), mode=OWNER_ONLY)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {in_words(error)}") from error
