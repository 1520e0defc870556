"""One model on two GPUs: llama.cpp's own split, and a group of two nodes by RPC.

    NATIVE_STATE_DIR=… python -m tests.bench.gpu.across MODEL [--turns 3] [--devices 2]

NATIVE_STATE_DIR is the state folder of `edgeserve engine build`. MODEL is a GGUF whose
half fits on each GPU. All run one after the other, in turns: `one` is llama-server on
one GPU, `split` on both, `rpc` with a bare ggml-rpc-server for the second, and `group`
two nodes with a fleet token: what `rpc` does, through their encrypted channel.
With `--devices 1` both halves are on one GPU, and with 0 on the processor, to rehearse.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp
import msgspec

from edgeserve.orders.groups import FORM, FormGroup, GroupWorker
from edgeserve.wire import VARIANT_HEADER, NodeReport, encode
from tests.bench.gpu.load import body, run, tokens
from tests.bench.proxy.process import free_ports
from tests.native import tool
from tests.node.groups.grouped import group as grouped
from tests.node.groups.real import RealNode, real_nodes, serving

VOCABULARY = 32000
READY_SECONDS = 300.0
LOOK_SECONDS = 0.3
LINES = 60
OK, ACCEPTED = 200, 202

Ask = Callable[[int], Awaitable[tuple[float, float]]]


@dataclass(frozen=True)
class Size:
    """What is asked: tokens of the prompt and of the answer."""

    prompt: int
    answer: int
    devices: int


def main() -> None:
    given = arguments()
    asyncio.run(_measured(given))


def arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("model", type=Path)
    flags.add_argument("--turns", type=int, default=3)
    flags.add_argument("--prompt", type=int, default=512)
    flags.add_argument("--answer", type=int, default=128)
    flags.add_argument("--devices", type=int, default=2)
    return flags.parse_args()


async def _measured(given: argparse.Namespace) -> None:
    size = Size(given.prompt, given.answer, given.devices)
    found = dict[str, list[tuple[float, float]]]()
    with tempfile.TemporaryDirectory() as name:
        for turn in range(given.turns):
            for what, served in WAYS.items():
                if what == "split" and size.devices == 1:
                    continue
                folder = Path(name) / f"{what}{turn}"
                folder.mkdir()
                try:
                    began = perf_counter()
                    async with served(folder, given.model, size) as ask:
                        _say(what=what, turn=turn, starts=perf_counter() - began)
                        await ask(0)
                        found.setdefault(what, []).extend(
                            [await ask(seed) for seed in range(1, 4)]
                        )
                except Exception as error:  # noqa: BLE001 - the next way may work
                    _say(what=what, turn=turn, error=str(error)[-1500:])
                    _tell_logs(folder)
                    continue
                _say(what=what, turn=turn, all=found[what][-3:])
    for what, figures in found.items():
        reads, writes = zip(*figures, strict=True)
        _say(
            what=what,
            reads=round(median(reads), 1),
            writes=round(median(writes), 1),
            of=len(figures),
        )


def _say(**row: Any) -> None:
    print(json.dumps(row), flush=True)


def _tell_logs(folder: Path) -> None:
    """Print the end of each log, of ours and of the programs."""
    for path in sorted(folder.rglob("*log")):
        if path.is_file():
            lines = path.read_text(errors="replace").splitlines()[-LINES:]
            print(f"--- {path}", *lines, sep="\n", flush=True)


async def _asked(url: str, model: str, size: Size, seed: int) -> tuple[float, float]:
    """Return tokens/s of reading and writing, by the engine's own clock."""
    asking = _asking(model, size, seed)
    timeout = aiohttp.ClientTimeout(total=READY_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        got = await run(session, url, asking)
    return (
        1000 * got.prompt / got.prompt_ms,
        1000 * got.predicted / got.predicted_ms,
    )


def _asking(model: str, size: Size, seed: int) -> dict[str, Any]:
    dice = random.Random(seed)  # noqa: S311 - a benchmark
    return body(model, tokens(dice, size.prompt, VOCABULARY), size.answer)


@asynccontextmanager
async def one(folder: Path, model: Path, size: Size) -> AsyncGenerator[Ask]:
    """Serve on one GPU."""
    async with _llama_server(folder, model, size, "0") as ask:
        yield ask


@asynccontextmanager
async def split(folder: Path, model: Path, size: Size) -> AsyncGenerator[Ask]:
    """Serve on both GPUs, by llama.cpp's own split into layers."""
    flags = ("--split-mode", "layer", "--tensor-split", "1,1")
    async with _llama_server(folder, model, size, "0,1", *flags) as ask:
        yield ask


@asynccontextmanager
async def rpc(folder: Path, model: Path, size: Size) -> AsyncGenerator[Ask]:
    """Serve on one GPU, and on the other by a bare worker on loopback."""
    [port] = free_ports(1)
    command = [str(tool("ggml-rpc-server")), "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, folder / "worker.log", _second(size)):
        await _listens(port)
        flags = ("--rpc", f"127.0.0.1:{port}", "--tensor-split", "1,1")
        async with _llama_server(folder, model, size, "0", *flags) as ask:
            yield ask


@asynccontextmanager
async def group(folder: Path, model: Path, size: Size) -> AsyncGenerator[Ask]:
    """Serve by two nodes, each with one GPU."""
    environs = [_visible(each) for each in ("0", _second(size))]
    async with real_nodes(folder, model, "head", "worker", environs=environs) as nodes:
        head, other = nodes
        report = await head.until(lambda report: report.engines or report.available)
        variant = (report.engines or report.available)[0].variant
        order = FormGroup(
            variant=variant, share=0.5, workers=(await _half(other, model),),
            context=2048,
        )  # fmt: skip
        status, answer = await head.post(FORM, order)
        if status != ACCEPTED:
            raise RuntimeError(answer.decode(errors="replace"))
        formed = grouped(await head.until(_decided))
        if formed is None or formed.state == "failed":
            raise RuntimeError(formed.reason if formed else "it has left")
        _say(what="group", placement=msgspec.to_builtins(formed.placement))
        id_ = formed.id

        async def ask(seed: int) -> tuple[float, float]:
            timings = await _timed(head, id_, _asking(variant, size, seed))
            return timings["prompt_per_second"], timings["predicted_per_second"]

        yield ask


def _decided(report: NodeReport) -> bool:
    formed = grouped(report)
    return serving(report) or (formed is not None and formed.state == "failed")


async def _timed(node: RealNode, engine: str, asking: dict[str, Any]) -> Any:
    fields = {"content-type": "application/json", VARIANT_HEADER: engine}
    raw = encode(asking | {"stream": False})
    async with node.ask.ask(
        node.origin, "POST", "/v1/completions", fields, raw
    ) as answer:
        found = json.loads(await answer.read())
    if answer.status != OK:
        raise RuntimeError(str(found))
    return found["timings"]


WAYS = {"one": one, "split": split, "rpc": rpc, "group": group}


async def _half(node: RealNode, model: Path) -> GroupWorker:
    report = await node.report()
    return GroupWorker(
        node=report.id,
        name=node.name,
        urls=(node.origin.url,),
        share=0.5,
        memory=int(model.stat().st_size * 0.7) + 2**30,
    )


@asynccontextmanager
async def _llama_server(
    folder: Path, model: Path, size: Size, gpus: str, *flags: str
) -> AsyncGenerator[Ask]:
    [port] = free_ports(1)
    command = [
        str(tool("llama-server")), "--model", str(model), "--alias", "m",
        "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "2048",
        "--parallel", "1", "--gpu-layers", "all", "--fit", "off", "--no-ui",
        "--cache-ram", "0", "--flash-attn", "on" if size.devices else "auto", *flags,
    ]  # fmt: skip
    log = folder / "engine.log"
    with _running(command, log, gpus) as process:
        await _healthy(port, process, log)

        async def ask(seed: int) -> tuple[float, float]:
            return await _asked(f"http://127.0.0.1:{port}", "m", size, seed)

        yield ask


@contextmanager
def _running(
    command: list[str], log: Path, gpus: str
) -> Generator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **_visible(gpus)}
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _visible(gpus: str) -> dict[str, str]:
    passed = ("PYTHONPATH", "LD_LIBRARY_PATH")
    environ = {name: os.environ[name] for name in passed if name in os.environ}
    return {**environ, "CUDA_VISIBLE_DEVICES": gpus}


def _second(size: Size) -> str:
    """The number of the second GPU."""
    return "1" if size.devices > 1 else "0"


async def _listens(port: int) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                writer.close()
                return


async def _healthy(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    url = f"http://127.0.0.1:{port}/health"
    async with asyncio.timeout(READY_SECONDS), aiohttp.ClientSession() as session:
        while process.poll() is None:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(LOOK_SECONDS)
    raise RuntimeError(log.read_text(errors="replace")[-1500:])


if __name__ == "__main__":
    main()
