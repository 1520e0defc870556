"""Elsewhere: plans of files from a URL or from a path of this machine."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgeserve.models.download import NotFetched, Show
from edgeserve.models.facts import parts
from edgeserve.models.header import read_header
from edgeserve.models.naming import SPLIT, projector_of
from edgeserve.models.pull.arrival import Incoming, copy
from edgeserve.runtime.files import fingerprint


def from_path(path: Path, folder: Path) -> list[Incoming]:
    """Plan to copy a model of this machine, with its other parts and its projector.

    Raises BrokenModel, NotFetched.
    """
    files = list(parts(path))
    read_header(files[0])
    if projector := projector_of(path, path.parent.glob("*.[gG][gG][uU][fF]")):
        files.append(projector)
    planned = list[Incoming]()
    for each in files:
        target, content = folder / each.name, fingerprint(each)
        if target.exists() and fingerprint(target) != content:
            raise NotFetched(
                f"{target} is another file of that name; rename one of them"
            )
        planned.append(
            Incoming(
                target=target,
                size=each.stat().st_size,
                key=f"copy-{content}",
                fill=partial(_copy, each),
            )
        )
    return planned


def _copy(source: Path, part: Path, show: Show) -> None:
    copy(source, part, f"{source.name}: copying", show)


def from_web(url: str, folder: Path, show: Show) -> list[Incoming]:
    """Plan to download a file, or all parts of a split one. Raises NotFetched.

    It goes to models_dir/HOST/PATH, so that no other address overwrites it.
    """
    return [_from_web(each, folder, show) for each in _parts(url)]


def _parts(url: str) -> list[str]:
    match = re.search(r"\.gguf(?=$|[?#])", url, re.IGNORECASE)
    split = SPLIT.search(url[: match.start()]) if match else None
    if not match or not split:
        return [url]
    begin, end, count = url[: split.start()], url[match.start() :], int(split[2])
    return [f"{begin}-{n:05}-of-{count:05}{end}" for n in range(1, count + 1)]


def _from_web(url: str, folder: Path, show: Show) -> Incoming:
    # Imported here: copying a file needs no HTTP.
    from edgeserve.models.pull.web import found

    address = urlsplit(url)
    host = re.sub(r"[^\w.-]", "-", address.netloc.rpartition("@")[2])
    return found(url, folder / host / unquote(address.path).lstrip("/"), show)
