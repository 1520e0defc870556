"""Folders and secrets: the state folder, room on the disks, and the fleet token."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeserve.cli.doctor.finding import Finding, ok, problem, quoted, unknown
from edgeserve.cli.doctor.here import Here
from edgeserve.cli.service.places import ROLES, Role
from edgeserve.errors import SettingsError, in_words
from edgeserve.models.memory import MIB, size

LEAST_STATE = 16 * MIB
"""Room for what is kept between runs."""

LEAST_MODELS = 512 * MIB
"""Room for one small model."""

CREDENTIALS = Path("/run/credentials")
"""systemd's own; only the service reads them, whatever their mode says."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder as one process sees it; `free` is of its disk, in bytes."""

    path: Path
    kind: str
    there: bool
    why: str = ""
    """Why nothing can be written there; "" where it can."""
    owner: str = ""
    """The user that has to be able to write there."""
    free: int = 0
    needed: int = 0


def settings(here: Here) -> Iterator[Finding]:
    """Check that the settings of what runs can be seen; wrong ones stop the command."""
    hidden = [each for each in here.running.values() if each.environ is None]
    for each in hidden:
        said = f"the {each.role} runs as {_name(each.uid)}; only root sees its settings"
        yield unknown("settings", said, "sudo edgeserve doctor")
    if not hidden:
        running = ", ".join(
            f"{role} (process {each.pid})" for role, each in here.running.items()
        )
        yield ok("settings", f"of {running}" if running else "nothing runs here")
    for role in sorted(here.several):
        pid, folder = here.running[role].pid, here.settings(role).state_dir
        said = f"several {role}s run here; process {pid}, with its state in {folder},"
        said += " is the one that is examined (EDGESERVE_STATE_DIR chooses another)"
        yield ok("settings", said)


def state(here: Here) -> Iterator[Finding]:
    """Check that what is kept between runs can be kept."""
    for role in sorted(here.roles):
        folder = here.settings(role).state_dir
        yield _writable(look(folder, f"{role}'s state", here, role, LEAST_STATE))


def disk(here: Here) -> Iterator[Finding]:
    """Check the room on the disks."""
    for role in sorted(here.roles):
        folder = here.settings(role).state_dir
        yield _roomy(look(folder, f"{role}'s state", here, role, LEAST_STATE))
    if "node" in here.roles:
        models = here.node.settings.models_dir
        yield _roomy(look(models, "models", here, "node", LEAST_MODELS))


def look(path: Path, kind: str, here: Here, role: Role, needed: int) -> Folder:
    """Look at a folder, or at the nearest one above it that is there."""
    nearest, why = path, ""
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    process = here.running.get(role)
    uid = process.uid if process else os.geteuid()
    if not nearest.is_dir():
        why = "is no folder"
    elif not _may_write(nearest, uid):
        why = "cannot be written to"
    try:
        free = shutil.disk_usage(nearest).free
    except OSError:
        free = needed
    return Folder(
        path=path, kind=kind, there=nearest == path, why=why, owner=_name(uid),
        free=free, needed=needed,
    )  # fmt: skip


def _may_write(folder: Path, uid: int) -> bool:
    """Whether a user may make files there; nothing is written to find out."""
    if uid == os.geteuid():
        return os.access(folder, os.W_OK | os.X_OK)
    about = folder.stat()
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return False
    # Groups are not looked up: another user's service owns its folder.
    return uid in {0, about.st_uid} or bool(about.st_mode & stat.S_IWOTH)


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _writable(found: Folder) -> Finding:
    place = quoted(found.path)
    if not found.why:
        new = "" if found.there else ", which the first start makes"
        return ok("state", f"{found.path}{new}")
    said = f"the {found.kind} folder {found.path} {found.why}"
    if found.why == "is no folder":
        return problem("state", "no-folder", said, f"mv {place} {place}.old")
    remedy = f"sudo mkdir -p {place} && sudo chown -R {found.owner} {place}"
    said += f" by {found.owner}, so that nothing is remembered between runs"
    return problem("state", "not-writable", said, remedy)


def _roomy(found: Folder) -> Finding:
    place = quoted(found.path)
    said = f"{size(found.free)} free for {found.kind} in {found.path}"
    if found.free >= found.needed:
        return ok("disk", said)
    said = f"only {said}; at least {size(found.needed)} are needed"
    cleaning = "edgeserve models" if found.kind == "models" else f"df -h {place}"
    return problem("disk", "full", said, cleaning)


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """The file of the fleet token: whether it can be used, and who may read it."""

    path: Path
    there: bool
    why: str = ""
    mode: int = 0o600
    alone: bool = False
    """Whether node and balancer both run here, which needs no token."""


def token(here: Here) -> Iterator[Finding]:
    """Check the fleet token's file; whether it is the balancer's is checked there."""
    yield token_finding(token_file(here))


def token_file(here: Here) -> TokenFile:
    """Look at the file; no part of the token leaves this function."""
    path, why, mode = here.token_file, "", 0o600
    try:
        here.tokens()
    except SettingsError as error:
        why = str(error)
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        if os.path.lexists(path) and not why:
            why = in_words(error)
    if path.is_relative_to(CREDENTIALS) or _is_mounted(path):
        mode = 0o600
    return TokenFile(
        path=path,
        there=os.path.lexists(path),
        why=why,
        mode=mode,
        alone=here.url is None and len(here.running) == len(ROLES),
    )


def _is_mounted(path: Path) -> bool:
    """Whether it is on a read-only mount: a secret of a container, for it alone."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except (OSError, AttributeError):  # not there; not on Windows
        return False


def token_finding(found: TokenFile) -> Finding:
    """Judge the file. Pure."""
    place = quoted(found.path)
    if found.why:
        return problem("token", "unusable", found.why, f"ls -l {place}")
    if not found.there:
        said = f"no {found.path}: node and balancer serve this machine only"
        if found.alone:
            return ok("token", said)
        return unknown("token", said, "edgeserve token new")
    if found.mode & 0o077:
        said = f"{found.path} can be read by others (mode {found.mode:04o})"
        return problem("token", "readable", said, f"chmod 600 {place}")
    return ok("token", f"{found.path}, mode {found.mode:04o}")
