"""`edgeserve key`: the commands that make, list, limit and revoke clients' keys."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeserve.cli.secrets import add_key as add_to_file
from edgeserve.errors import CommandError, SettingsError, in_words
from edgeserve.help import Group, examples, under
from edgeserve.terminal import print_table

if TYPE_CHECKING:
    from collections.abc import Generator

    from balancer.clients.keys import ClientKey
    from edgeserve.config.settings import BalancerSettings

MOST = 2**31 - 1

UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

LIMITS: dict[str, tuple[str, str]] = {
    "requests_per_minute": ("N", "Requests it may send a minute; 0 for no limit."),
    "tokens_per_minute": ("N", "Tokens it may use a minute, of prompts and answers."),
    "at_once": ("N", "Requests it may have running or waiting at once."),
    "priority": ("N", "Of waiting requests the highest is served first; usually 0."),
}

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=Group)
def key() -> None:
    """Make, list, limit and revoke the API keys of clients.

    They are in the state folder of the balancer on this machine, which notices each
    change at once.
    """


def place_options(command: F) -> F:
    """Add the options that name the balancer's state folder."""
    place = under("Where it is kept")
    command = place(
        "--config",
        "config",
        type=click.Path(path_type=Path),
        help="TOML settings file.",
    )(command)
    return place(
        "--state-dir",
        type=click.Path(path_type=Path),
        help="The balancer's state folder, if not the one in its settings.",
    )(command)


def limit_options(command: F) -> F:
    """Add the options that say what a key may do. What is not given is None."""
    limit = under("Limits")
    for name, (metavar, text) in reversed(LIMITS.items()):
        least = -MOST if name == "priority" else 0
        command = limit(
            f"--{name.replace('_', '-')}",
            metavar=metavar,
            type=click.IntRange(least, MOST),
            help=text,
        )(command)
    command = limit(
        "--model", "models", multiple=True, help="Model it may name; repeat; * for all."
    )(command)
    command = limit(
        "--expires",
        metavar="WHEN",
        help="After such a time, 12h, 30d, 8w; on a day, 2027-01-31; or never.",
    )(command)
    return click.option(
        "--admin/--no-admin",
        default=None,
        help="Whether it sees the fleet, and the requests and usage of all keys.",
    )(command)


@key.command(
    "new",
    epilog=examples(
        ("edgeserve key new --name laptop", "make one; it is shown this once"),
        ("edgeserve key new --name guest --tokens-per-minute 2000", "with a limit"),
        ("edgeserve key new | ssh laptop 'cat >edgeserve.key'", "hand it over"),
    ),
)
@click.option("--name", default="", help="Name of the client that gets it.")
@limit_options
@under("Where it is kept")(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Plain file to add it to instead, for --api-key-file; without limits.",
)
@place_options
def new_key(
    name: str,
    file: Path | None,
    state_dir: Path | None,
    config: Path | None,
    **given: Any,
) -> None:
    """Make an API key for a client, and print it.

    Only its hash is kept: it cannot be shown again.
    """
    if file is not None:
        if changes_of(given):
            raise SettingsError("keys in a plain file have no limits; omit --file")
        click.echo(add_to_file(file, name))
        click.echo(f"Added to {file}, as an admin key. {SEND}", err=True)
        return
    from balancer.clients.keys import ClientKey, checked_name, key_id
    from balancer.clients.store import NameTaken, add_key, all_keys
    from edgeserve.cli.up.lan import keys_file
    from edgeserve.security.tokens import new_secret

    secret = new_secret("key")
    id_ = key_id(secret)
    name = checked_name(name or f"key-{id_[:6]}")
    made = ClientKey(id=id_, name=name, created=time.time(), **changes_of(given))
    path = _store(state_dir, config)
    with _said(path):
        is_first = not (all_keys(path) or keys_file(_settings(config)).exists())
        try:
            add_key(path, made)
        except NameTaken as error:
            raise CommandError(
                f"there is a key named {name!r}; `edgeserve key revoke` ends it"
            ) from error
    click.echo(secret)
    click.echo(f"{name!r} is in {path}, without the key itself. {SEND}", err=True)
    if is_first:
        click.echo(FIRST, err=True)


SEND = (
    "Clients send it as `Authorization: Bearer KEY`, `edgeserve chat` takes it by"
    " --api-key-file."
)
FIRST = (
    "It is the first key: from now on the balancer asks every client for one. Past"
    " this machine it listens after its next start, if the fleet has a token."
)


@key.command(
    "list",
    epilog=examples(
        ("edgeserve key list", "names and limits; keys themselves are not kept"),
        ("edgeserve key list --json", "for scripts, with revoked ones"),
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with revoked keys.")
@place_options
def list_keys(state_dir: Path | None, config: Path | None, *, as_json: bool) -> None:
    """List the keys and what each may do."""
    from balancer.clients.store import all_keys

    path = _store(state_dir, config)
    with _said(path):
        found = all_keys(path)
    if as_json:
        click.echo(json.dumps([as_shown(each) for each in found], indent=2))
        return
    rows = [row_of(each, time.time()) for each in found if each.revoked is None]
    if rows:
        print_table(HEADS, rows)
    else:
        click.echo("no keys yet; `edgeserve key new` makes one", err=True)


HEADS = ("name", "models", "req/min", "tok/min", "at once", "priority", "expires")


def row_of(each: ClientKey, now: float) -> Sequence[str]:
    """Render a key as a row."""
    expires = "never" if each.expires is None else _day(each.expires)
    gone = each.expires is not None and each.expires <= now
    return (
        f"{each.name} (admin)" if each.admin else each.name,
        ", ".join(each.models) or "all",
        str(each.requests_per_minute or "-"),
        str(each.tokens_per_minute or "-"),
        str(each.at_once or "-"),
        str(each.priority),
        f"{expires}, over" if gone else expires,
    )


def as_shown(each: ClientKey) -> dict[str, Any]:
    """Render a key as JSON. The hash is left out: no command takes it."""
    names = (*LIMITS, "name", "admin", "created", "expires", "revoked")
    return {"models": list(each.models)} | {name: getattr(each, name) for name in names}


@key.command(
    "limit",
    epilog=examples(
        ("edgeserve key limit guest --requests-per-minute 10", "at once"),
        ("edgeserve key limit guest --model '*' --expires never", "take limits back"),
    ),
)
@click.argument("name")
@limit_options
@place_options
def limit_key(
    name: str, state_dir: Path | None, config: Path | None, **given: Any
) -> None:
    """Change what a key may do; what is not named stays."""
    from balancer.clients.store import change_key

    changes = changes_of(given)
    if not changes:
        raise SettingsError("nothing to change is named; --help lists the limits")
    path = _store(state_dir, config)
    with _said(path, name):
        change_key(path, name, changes)
    click.echo(f"{name!r} is changed; that counts from now on.")


@key.command("revoke", epilog=examples(("edgeserve key revoke guest", "for good")))
@click.argument("name")
@place_options
def revoke_key(name: str, state_dir: Path | None, config: Path | None) -> None:
    """End a key for good; answers that run are finished.

    Keys stay needed, even after the last one is revoked.
    """
    from balancer.clients import store

    path = _store(state_dir, config)
    with _said(path, name):
        store.revoke_key(path, name, time.time())
    click.echo(f"{name!r} is revoked; no request of it is let in from now on.")


def changes_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a key that options name. Raises SettingsError."""
    from balancer.clients.keys import checked_models

    changes = {
        name: value
        for name, value in given.items()
        if value is not None and name not in {"models", "expires"}
    }
    if given.get("models"):
        changes["models"] = checked_models(given["models"])
    if given.get("expires") is not None:
        changes["expires"] = expiry(given["expires"], time.time())
    return changes


def expiry(text: str, now: float) -> float | None:
    """Return when a key expires, in seconds since 1970; None for never.

    A date means the beginning of that day, in local time. Raises SettingsError.
    """
    if text == "never":
        return None
    if found := re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text):
        return now + int(found[1]) * UNITS[found[2]]
    try:
        at = datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError) as error:
        raise SettingsError(
            f"--expires is {text!r}: must be like 12h, 30d, 8w, 2027-01-31 or never"
        ) from error
    if at <= now:
        raise SettingsError(f"--expires is {text!r}, which is over")
    return at


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M}"


def _store(state_dir: Path | None, config: Path | None) -> Path:
    """Return the path of the keys of the balancer on this machine."""
    from balancer.clients.store import store_in

    return store_in(state_dir or _settings(config).state_dir)


def _settings(config: Path | None) -> BalancerSettings:
    from edgeserve.config.settings import BalancerSettings
    from edgeserve.config.sources import resolve

    return resolve(BalancerSettings, file=config).settings


@contextmanager
def _said(path: Path, name: str = "") -> Generator[None]:
    """Turn the faults of the store into a sentence."""
    from balancer.clients.store import NoSuchKey

    try:
        yield
    except NoSuchKey as error:
        raise CommandError(
            f"no key named {name!r} counts; `edgeserve key list` lists them"
        ) from error
    except OSError as error:
        raise CommandError(f"cannot use {path}: {in_words(error)}") from error
