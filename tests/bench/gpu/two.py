"""One vLLM across two GPUs, and one on each of them behind a balancer.

    python -m tests.bench.gpu.two SITE TOKENIZER [--streams 32,64] [--turns 3]

SITE and TOKENIZER: see `tests.bench.gpu.vllm`. The 13B of `tests.bench.gpu.share`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from tests.bench.gpu.load import load
from tests.bench.gpu.share import LLAMA_13B, behind
from tests.bench.gpu.vllm import folder, until_healthy, vllm
from tests.bench.proxy.process import free_ports

FLAGS = ("--max-num-seqs", "64", "--no-enable-prefix-caching")


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        model = folder(scratch / "m13", given.tokenizer, LLAMA_13B)
        for what, served in (("each", each_of_two), ("across", across_both)):
            with served(given.site, model, scratch) as url:
                for streams in map(int, given.streams.split(",")):
                    _measure(given, what, url, streams)


def arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("site", type=Path)
    flags.add_argument("tokenizer", type=Path)
    flags.add_argument("--streams", default="32,64")
    flags.add_argument("--turns", type=int, default=3)
    return flags.parse_args()


@contextmanager
def each_of_two(site: Path, model: Path, scratch: Path) -> Generator[str]:
    """Run one on each GPU; yields the balancer's URL."""
    with ExitStack() as stack:
        servers = list[str]()
        started = list[tuple[subprocess.Popen[bytes], int, Path]]()
        for gpu, port in enumerate(free_ports(2)):
            log = scratch / f"vllm-{gpu}.log"
            env = {"CUDA_VISIBLE_DEVICES": str(gpu)}
            child = vllm(model, site, port, log, *FLAGS, env=env, wait=False)
            started.append((stack.enter_context(child), port, log))
            servers += ["--server", f"http://127.0.0.1:{port}"]
        for each in started:
            until_healthy(*each)
        yield stack.enter_context(behind(scratch, *servers))


@contextmanager
def across_both(site: Path, model: Path, scratch: Path) -> Generator[str]:
    """Run one across both GPUs; yields its own URL."""
    [port] = free_ports(1)
    flags = (*FLAGS, "--tensor-parallel-size", "2")
    env = {"NCCL_NVLS_ENABLE": "0"}
    with vllm(model, site, port, scratch / "vllm.log", *flags, env=env):
        yield f"http://127.0.0.1:{port}"


def _measure(given: argparse.Namespace, what: str, url: str, streams: int) -> None:
    totals = [
        load(
            url,
            "lab",
            streams=streams,
            prompt=512,
            answer=128,
            vocabulary=30_000,
            seed=turn,
        ).total
        for turn in range(given.turns + 1)
    ][1:]  # the first warms up
    row = {"what": what, "streams": streams, "total": round(median(totals))}
    print(json.dumps({**row, "turns": [round(each) for each in totals]}), flush=True)


if __name__ == "__main__":
    main()
