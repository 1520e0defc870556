"""Hub: lists and downloads files of repositories, through huggingface_hub.

Its settings apply: HF_TOKEN and the stored token, HF_ENDPOINT, HF_HUB_CACHE,
HF_HUB_OFFLINE. What is in its cache is copied from there.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import httpx2
from huggingface_hub import HfApi, constants, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import (
    CacheNotFound,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from edgeserve.models.download import NotFetched, Show
from edgeserve.models.pull.arrival import Incoming, copy
from edgeserve.models.pull.choice import Choice, RemoteFile, choose, choose_file
from edgeserve.models.pull.sources import HubFile, HubRepo, stays_inside
from edgeserve.models.pull.transfer import Address, download, patiently, wait_asked

SHA256_LETTERS = 64
HOW_TO_ENTER = (
    "set HF_TOKEN to a token of https://huggingface.co/settings/tokens, or store one"
    " with `hf auth login`"
)


def look_up(source: HubRepo | HubFile, show: Show) -> tuple[Choice, str]:
    """Choose the files of a source; also return the commit that they are of.

    Raises NotFetched, NoSuchVariant.
    """
    repo = source.repo
    with in_sentences(repo):
        if constants.is_offline_mode():
            files, commit = _in_cache(repo, source.revision)
        else:
            files, commit = patiently(lambda: _listed(source), repo, show)
    if isinstance(source, HubFile):
        return choose_file(repo, files, source.file), commit
    return choose(repo, files, source.quant), commit


def incoming(repo: str, choice: Choice, commit: str, folder: Path) -> list[Incoming]:
    """Plan where the files go: models_dir/ORG/REPOSITORY, as in the repository.

    A projector goes beside its model, where nodes look for it.
    """
    beside = folder / repo / choice.parts[0].path.parent
    return [_planned(repo, each, commit, beside) for each in choice.files]


def _planned(repo: str, file: RemoteFile, commit: str, folder: Path) -> Incoming:
    if file.cached is None and not constants.is_offline_mode():
        found = try_to_load_from_cache(
            repo, file.name, cache_dir=constants.HF_HUB_CACHE, revision=commit
        )
        file = replace(file, cached=Path(found) if isinstance(found, str) else None)
    plain = f"{repo}/{commit}/{file.name}".replace("/", "--")
    return Incoming(
        target=folder / file.path.name,
        size=file.size,
        sha256=file.sha256,
        key=file.sha256 or plain,
        fill=partial(_fill, repo, file, commit),
    )


def _fill(repo: str, file: RemoteFile, commit: str, part: Path, show: Show) -> None:
    name = file.path.name
    if file.cached:
        copy(file.cached, part, f"{name}: copying from the hub's cache", show)
        return
    where = f"{repo}/resolve/{quote(commit, safe='')}/{quote(file.name)}"
    headers = {key: str(value) for key, value in build_hf_headers().items()}
    address = Address(
        url=f"{constants.ENDPOINT}/{where}", name=name, size=file.size, headers=headers
    )
    with in_sentences(repo):
        download(address, part, show)


def _listed(source: HubRepo | HubFile) -> tuple[list[RemoteFile], str]:
    api = HfApi(endpoint=constants.ENDPOINT)
    found = api.model_info(
        source.repo, revision=source.revision, files_metadata=True, timeout=30
    )
    files = [
        RemoteFile(
            name=each.rfilename,
            size=each.size or 0,
            sha256=(each.lfs.sha256 or "") if each.lfs else "",
        )
        for each in found.siblings or ()
        if stays_inside(each.rfilename)
    ]
    return files, found.sha or source.revision


def _in_cache(repo: str, revision: str) -> tuple[list[RemoteFile], str]:
    """List what the cache has of a repository. Raises NotFetched."""
    with _no_cache_is_empty():
        for each in scan_cache_dir(constants.HF_HUB_CACHE).repos:
            if each.repo_id != repo or each.repo_type != "model":
                continue
            for state in each.revisions:
                if revision in {state.commit_hash, *state.refs}:
                    files = [
                        RemoteFile(
                            name=file.file_path.relative_to(
                                state.snapshot_path
                            ).as_posix(),
                            size=file.size_on_disk,
                            sha256=_content(file.blob_path),
                            cached=file.blob_path,
                        )
                        for file in state.files
                    ]
                    return files, state.commit_hash
    raise NotFetched(
        f"HF_HUB_OFFLINE is set, and the cache of huggingface_hub has nothing of {repo}"
    )


@contextmanager
def _no_cache_is_empty() -> Generator[None]:
    try:
        yield
    except CacheNotFound:
        return


def _content(blob: Path) -> str:
    return blob.name if len(blob.name) == SHA256_LETTERS else ""


@contextmanager
def in_sentences(what: str) -> Generator[None]:
    """Turn errors of huggingface_hub into NotFetched."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise NotFetched(f"HF_HUB_OFFLINE is set; {what} cannot be fetched") from error
    except (HfHubHTTPError, EntryNotFoundError) as error:
        raise NotFetched(_sentence(what, error)) from error
    except httpx2.TransportError as error:
        where = f" at {constants.ENDPOINT}" if "://" not in what else ""
        raise NotFetched(
            f"cannot reach {what}{where} ({error}); is this machine online?"
            " HF_ENDPOINT names a mirror of the hub"
        ) from error


def _sentence(what: str, error: Exception) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 404
    page = what if "://" in what else f"https://huggingface.co/{what}"
    match error:
        case GatedRepoError():
            return f"{what} is gated: accept its terms at {page}, then {HOW_TO_ENTER}"
        case RevisionNotFoundError():
            return f"{what} has no such revision"
        case RepositoryNotFoundError():
            return f"there is no repository {what}, or it is private: {HOW_TO_ENTER}"
        case HfHubHTTPError() if status == HTTPStatus.TOO_MANY_REQUESTS:
            wait = wait_asked(error.response.headers)
            return (
                f"{what}: the server limits the rate and asks to wait {wait} s; a token"
                f" has a higher limit: {HOW_TO_ENTER}"
            )
        case _ if status in (401, 403):
            return f"{what}: access is refused ({status}); {HOW_TO_ENTER}"
        case _ if status == HTTPStatus.NOT_FOUND:
            return f"{what} is not there (404)"
        case _:
            return f"{what}: the server answered {status}; try again later"
