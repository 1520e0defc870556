"""`edgeserve token`: the command that makes the fleet's secret; files of secrets."""

from __future__ import annotations

from pathlib import Path

import click

from edgeserve.config.paths import config_dir
from edgeserve.errors import CommandError, in_words
from edgeserve.help import Group, examples

OWNER_ONLY = 0o600

KEY_NAME = "household"
"""Name of the key that is made where there is none."""

file_option = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write. Default: one in the configuration folder.",
)


@click.group(cls=Group)
def token() -> None:
    """Make, show and replace the secret that a fleet shares."""


@token.command(
    "new",
    epilog=examples(
        ("edgeserve token new", "make one for a new fleet"),
        ("scp ~/.config/edgeserve/token pi:.config/edgeserve/", "take it along"),
    ),
)
@file_option
@click.option("--force", is_flag=True, help="Replace an existing token.")
def new_token(file: Path | None, *, force: bool) -> None:
    """Make a fleet token, to be copied to every machine.

    Past loopback, nodes and balancers need the same one.
    """
    path = file or config_dir() / "token"
    if path.exists() and not force:
        raise CommandError(
            f"{path} exists; --force replaces it, and then every machine of the fleet"
            " needs the new one"
        )
    make_token(path)
    click.echo(
        f"{path} holds the fleet token. Copy it to the same place on each machine, then"
        " start `edgeserve node start` and `edgeserve balancer start` there."
    )


@token.command(
    "show",
    epilog=examples(
        (
            "edgeserve token show | ssh pi 'umask 077; cat >.config/edgeserve/token'",
            "take it to another machine",
        ),
    ),
)
@file_option
def show_token(file: Path | None) -> None:
    """Print the fleet token; a machine that has it belongs to the fleet."""
    click.echo(_stored_token(file or config_dir() / "token"))


@token.command(
    "rotate",
    epilog=examples(
        ("edgeserve token rotate", "the old token stays valid for a day"),
        ("edgeserve token rotate --keep-hours 0", "it is not valid any longer"),
    ),
)
@file_option
@click.option(
    "--keep-hours",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    help="How long the old token stays valid on this machine.",
)
def rotate_token(file: Path | None, keep_hours: float) -> None:
    """Make a new fleet token; the old one stays valid for a while.

    Copy the file to the other machines in this time. Running nodes and balancers read
    it at their next connection; none has to be restarted.
    """
    from datetime import UTC, datetime, timedelta

    from edgeserve.security.tokens import UNTIL, new_secret

    path = file or config_dir() / "token"
    old = _stored_token(path)
    ends = datetime.now(UTC) + timedelta(hours=keep_hours)
    until = f"# {UNTIL}{ends.isoformat(timespec='seconds')}"
    kept = f"{until}\n{old}\n" if keep_hours else ""
    _write(path, f"{new_secret('fleet')}\n{kept}")
    old_one = f"is valid until {ends:%Y-%m-%d %H:%M} UTC" if kept else "is not valid"
    click.echo(
        f"{path} holds a new fleet token; the old one {old_one}."
        " Copy the file to the same place on each machine of the fleet."
    )


def _stored_token(path: Path) -> str:
    """Return the newest token in a file. Raises CommandError."""
    from edgeserve.security.tokens import read_secrets

    if not path.exists():
        raise CommandError(f"there is no {path}; `edgeserve token new` makes one")
    return read_secrets(path, path, "edgeserve token new")[0].value


def on_this_machine(host: str) -> bool:
    """Whether an address is one of this machine; of names, only localhost is."""
    from edgeserve.security.tokens import is_loopback

    if is_loopback(host):
        return True
    # It takes longer to import, and most commands ask on loopback.
    from edgeserve.network import interfaces

    return host in {str(each.ip) for each in interfaces()}


def make_token(path: Path) -> None:
    """Write a new fleet token to a file. Raises CommandError."""
    from edgeserve.security.tokens import new_secret

    _write(path, f"{new_secret('fleet')}\n")


def add_key(path: Path, name: str) -> str:
    """Add an API key to a plain file, and return it. Raises CommandError."""
    from edgeserve.security.tokens import new_secret

    already = _already(path)
    comment = f"# {' '.join(name.split())}\n" if name else ""
    if comment and comment in already:
        raise CommandError(
            f"{path} has a key for {name!r}; remove its two lines to make another"
        )
    secret = new_secret("key")
    _write(path, f"{already}{comment}{secret}\n")
    return secret


def _already(path: Path) -> str:
    from edgeserve.runtime.files import read_text

    try:
        return read_text(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise CommandError(
            f"cannot add a key to {path}: {in_words(error)}; move it away to start"
            " a new file"
        ) from error


def _write(path: Path, content: str) -> None:
    """Replace the file atomically; only its owner can read it."""
    from edgeserve.runtime.files import replace_file

    try:
        replace_file(path, content.encode(), mode=OWNER_ONLY)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error
