"""What speculation gains: engines side by side, asked in turns.

`python -m tests.bench.models.drafting LARGE.gguf SMALL.gguf` prints for each way to
guess ahead: tokens/s in pairs with none, how many guesses were accepted, and the
processor time of a token, which says more on a busy machine.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click
import msgspec
import psutil

from edgeserve.wire import Launch
from tests.balancer.engine import RealEngine, real_engine

QUESTIONS = (
    "Write a short story about a lighthouse keeper.",
    "Explain how bread is made, step by step.",
    "Write a Python function that reverses a list.",
    "Repeat this list three times: apples, pears, plums, cherries, grapes, figs.",
)
PLAIN = Launch(slots=1, context=1024, batch=256, threads=1)
SMALL = "small"


def _drafted(tokens: int) -> Launch:
    return msgspec.structs.replace(
        PLAIN, speculative="draft-simple", draft=SMALL, draft_tokens=tokens
    )


def _from_text(kind: str) -> Launch:
    return msgspec.structs.replace(PLAIN, speculative=kind)


WAYS = {
    "nothing": PLAIN,
    "3 by the draft": _drafted(3),
    "6 by the draft": _drafted(6),
    "ngram-mod": _from_text("ngram-mod"),
    "ngram-map-k": _from_text("ngram-map-k"),
    "ngram-simple": _from_text("ngram-simple"),
}


@dataclass
class Found:
    """What one way did. `ratios` are tokens/s over those of the first way."""

    tokens: int = 0
    cpu: float = 0.0
    drafted: int = 0
    accepted: int = 0
    ratios: list[float] = field(default_factory=list[float])
    texts: list[str] = field(default_factory=list[str])

    def row(self, way: str, first: Found) -> str:
        """Return the figures in one line."""
        same = sum(a == b for a, b in zip(self.texts, first.texts, strict=True))
        return (
            f"{way}: x {median(self.ratios):.2f} ({min(self.ratios):.2f} to"
            f" {max(self.ratios):.2f}), accepted {self.accepted} of {self.drafted},"
            f" {1000 * self.cpu / self.tokens:.1f} ms of CPU a token,"
            f" same text {same} of {len(self.texts)}"
        )


def _cpu(engine: RealEngine) -> float:
    times = psutil.Process(engine.process.pid).cpu_times()
    return float(times.user + times.system)


def _ask(engine: RealEngine, question: str, temperature: float, found: Found) -> float:
    """Ask once; returns tokens/s."""
    before = _cpu(engine)
    status, answer = engine.ask(
        "/v1/chat/completions",
        messages=[{"role": "user", "content": question}],
        max_tokens=40,
        temperature=temperature,
        seed=1,
        cache_prompt=False,
    )
    assert status == 200, answer
    timings = answer["timings"]
    found.cpu += _cpu(engine) - before
    found.tokens += timings["predicted_n"]
    found.drafted += timings.get("draft_n", 0)
    found.accepted += timings.get("draft_n_accepted", 0)
    found.texts.append(answer["choices"][0]["message"]["content"])
    return float(timings["predicted_per_second"])


@click.command()
@click.argument("large", type=click.Path(path_type=Path))
@click.argument("small", type=click.Path(path_type=Path))
@click.option("--temperature", default=0.0, show_default=True)
def main(large: Path, small: Path, temperature: float) -> None:
    """Measure every way, one engine each, in turns."""
    found = {way: Found() for way in WAYS}
    with ExitStack() as stack:
        engines = {
            way: stack.enter_context(
                real_engine(large, launch=launch, drafts={SMALL: small})
            )
            for way, launch in WAYS.items()
        }
        for question in QUESTIONS:
            rates = {
                way: _ask(engine, question, temperature, found[way])
                for way, engine in engines.items()
            }
            for way, rate in rates.items():
                found[way].ratios.append(rate / rates["nothing"])
    for way, each in found.items():
        click.echo(each.row(way, found["nothing"]))


if __name__ == "__main__":
    main()
