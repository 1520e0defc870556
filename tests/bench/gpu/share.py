"""How much of vLLM's own throughput is left behind a balancer, in turns with it alone.

    python -m tests.bench.gpu.share SITE TOKENIZER [--streams 32,64] [--turns 5]

SITE and TOKENIZER: see `tests.bench.gpu.vllm`. `--url` measures a server that runs
already instead. Every stream has random tokens, so that no prefix is found cached.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from edgeserve.models.synthetic import Shape
from tests.bench.gpu.load import Figures, load
from tests.bench.gpu.serving import running, until_listed
from tests.bench.gpu.vllm import folder, vllm
from tests.bench.proxy.process import free_ports

LLAMA_13B = Shape(
    layers=40, embedding=5120, feed_forward=13824, heads=40, kv_heads=40,
    vocabulary=49152, context=4096, tied=False,
)  # fmt: skip


def main() -> None:
    given = arguments()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        direct = given.url or stack.enter_context(_started(given, scratch))
        through = stack.enter_context(behind(scratch, "--server", direct))
        for streams in map(int, given.streams.split(",")):
            _compare(given, direct, through, streams)


def arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("site", type=Path, nargs="?")
    flags.add_argument("tokenizer", type=Path, nargs="?")
    flags.add_argument("--url", default="")
    flags.add_argument("--model", default="lab")
    flags.add_argument("--streams", default="32,64")
    flags.add_argument("--turns", type=int, default=5)
    flags.add_argument("--prompt", type=int, default=512)
    flags.add_argument("--answer", type=int, default=128)
    return flags.parse_args()


@contextmanager
def _started(given: argparse.Namespace, scratch: Path) -> Generator[str]:
    [port] = free_ports(1)
    model = folder(scratch / "m13", given.tokenizer, LLAMA_13B)
    flags = ("--max-num-seqs", "64", "--no-enable-prefix-caching")
    with vllm(model, given.site, port, scratch / "vllm.log", *flags):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def behind(scratch: Path, *flags: str) -> Generator[str]:
    """Start a balancer as a user does; yields its URL once it lists a model."""
    front = ("balancer", "start", "--port", "0", "--no-discover", "--queue", "4096")
    state = ("--state-dir", str(scratch / "balancer"))
    with running(scratch / "balancer.log", *front, *state, *flags) as url:
        until_listed(url)
        yield url


def _compare(
    given: argparse.Namespace, direct: str, through: str, streams: int
) -> None:
    found: dict[str, list[Figures]] = {"direct": [], "through": []}
    for turn in range(given.turns + 1):
        for name, url in (("direct", direct), ("through", through)):
            got = load(
                url,
                given.model,
                streams=streams,
                prompt=given.prompt,
                answer=given.answer,
                vocabulary=30_000,
                seed=turn,
            )
            if turn:  # the first warms up
                found[name].append(got)
                _say(part="turn", what=name, streams=streams, total=round(got.total),
                     first_p50=round(got.first_p50, 3))  # fmt: skip
    totals = {name: median(e.total for e in each) for name, each in found.items()}
    firsts = {name: median(e.first_p50 for e in each) for name, each in found.items()}
    _say(
        part="share",
        streams=streams,
        direct=round(totals["direct"]),
        through=round(totals["through"]),
        share=round(totals["through"] / totals["direct"], 4),
        first_direct=round(firsts["direct"], 3),
        first_through=round(firsts["through"], 3),
    )


def _say(**row: object) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
