"""Models and memory: whether the files are whole, and whether they fit."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeserve.cli.doctor.finding import Finding, ok, problem, quoted
from edgeserve.cli.doctor.here import Here
from edgeserve.config.settings import NodeSettings
from edgeserve.errors import in_words
from edgeserve.models.memory import MIB, size
from edgeserve.reports.hardware import Memory
from node.hardware.sample import Sampler, memory
from node.models.library import Model, UnusableFile, look, scan
from node.planning.plan import plan


@dataclass(frozen=True, kw_only=True)
class Files:
    """The models of a node: how many can be read, and what is wrong with others."""

    folder: Path
    usable: int
    unusable: tuple[UnusableFile, ...] = ()
    why: str = ""


def models(here: Here) -> Iterator[Finding]:
    """Check that model files are there, readable and whole."""
    yield from model_findings(files(here.node.settings))


def files(settings: NodeSettings) -> Files:
    """Read the headers of the models folder, and of the files that are named."""
    folder = settings.models_dir
    names = (*settings.models, *settings.embedding_models, *settings.rerank_models)
    paths = (Path(name).expanduser() for name in names if name.endswith(".gguf"))
    named = [look(each) for each in paths if each.is_file()]
    apart = tuple(each for each in named if isinstance(each, UnusableFile))
    try:
        found = scan(folder)
    except OSError as error:
        return Files(folder=folder, usable=0, unusable=apart, why=in_words(error))
    usable = (*found.models, *(each for each in named if isinstance(each, Model)))
    return Files(
        folder=folder,
        usable=len({each.path.absolute() for each in usable}),
        unusable=(*found.unusable, *apart),
    )


def model_findings(found: Files) -> Iterator[Finding]:
    """Judge the files. Pure."""
    folder = quoted(found.folder)
    if found.why:
        said = f"cannot read the models folder {found.folder}: {found.why}"
        yield problem("models", "unreadable", said, f"ls -ld {folder}")
    for each in found.unusable:
        yield _unusable(each)
    if found.usable:
        yield ok("models", f"{found.usable} in {found.folder} can be read")
    elif not found.why and not found.unusable:
        said = f"no model in {found.folder}"
        yield problem("models", "none", said, "edgeserve pull")


def _unusable(file: UnusableFile) -> Finding:
    """Judge one file; only one that is not whole is to be removed. Pure."""
    path, why = quoted(file.path), file.reason
    if "cut short" in why or "ends inside" in why:
        return problem("models", "cut", why, f"rm {path} && edgeserve pull")
    if os.strerror(errno.EACCES) in why:
        return problem("models", "unreadable", why, f"sudo chmod a+r {path}")
    return problem("models", "unusable", why, f"edgeserve quantize inspect {path}")


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """Memory now, and the sentences about models that do not fit into it."""

    memory: Memory
    limit_mib: int = 0
    refused: tuple[str, ...] = ()
    served: int = 0


def room(here: Here) -> Iterator[Finding]:
    """Check that the models fit into the memory."""
    yield from memory_findings(fitting(here))


def fitting(here: Here) -> Fitting:
    """Plan as a node does at its start; a running one has its models in memory."""
    settings = here.node.settings
    if "node" in here.running:
        return Fitting(memory=memory())
    hardware = Sampler()()
    made = plan(settings, hardware)
    needs = tuple(each for each in made.problems if " needs " in each)
    return Fitting(
        memory=hardware.memory,
        limit_mib=settings.memory_mib,
        refused=needs,
        served=len(made.engines) + len(made.absent),
    )


def memory_findings(found: Fitting) -> Iterator[Finding]:
    """Judge the memory. Pure."""
    free, total = size(found.memory.available), size(found.memory.total)
    for each in found.refused:
        remedy = "edgeserve pull smollm2-135m-instruct"
        if found.limit_mib and found.limit_mib * MIB < found.memory.available // 2:
            more = found.memory.available * 9 // 10 // MIB
            remedy = f"edgeserve node start --memory-mib {more}"
        yield problem("memory", "too-little", each, remedy)
    if not found.refused:
        yield ok("memory", f"{free} of {total} free")
