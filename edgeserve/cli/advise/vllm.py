"""vLLM: whether the original weights fit the GPUs, and how fast many would be served.

Pure. Where no one machine has the GPUs, several join by Ray.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeserve.cli.advise.machine import AdvisedMachine
from edgeserve.cli.advise.typical import TypicalModel
from edgeserve.models.facts import ModelFacts
from edgeserve.models.memory import kv_bytes
from edgeserve.reports.hardware import Gpu
from node.engines.devices import Device
from node.planning.expected_speed import GB, TERA, active_bytes, gpu_rates
from node.planning.fit import SHARE

MEMORY, COMPUTING = 1.9, 3.0
"""Rates with weights of 16 bits, against those of llama.cpp with quantized ones.

One H100 read 2,470 GB/s of a 13B model in F16 and 1,270 of Q4_K_M; one H200 with vLLM
served 32 streams at 8,748 tokens/s in and out, to which `COMPUTING` was fitted. Other
cards are assumed to have the same factors.
"""

SEVERAL = 0.8
"""Share of their sum that several cards reach. Assumed."""

PROMPT, ANSWER = 512, 128
"""Tokens of the requests that the figures are for."""

HELD = 2048
"""Tokens of KV cache for each stream; vLLM shares its pages among them."""

TOO_OLD = re.compile(r"GTX (9|10)\d\d|Tesla [KMP]\d|Quadro [KMP]\d|TITAN X")
"""GPUs before compute capability 7, which vLLM does not support."""

COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class VllmPlan:
    """The original weights of a model on `cards` GPUs of each of `machines`.

    `weights`, `kv` and `room` are bytes. `together` is tokens/s of all streams, in and
    out; `write` tokens/s of a stream that is alone; `first` the mean seconds to the
    first token when all ask at once.
    """

    original: str
    cards: int
    machines: tuple[str, ...]
    streams: int
    weights: int
    kv: int
    room: int
    write: float
    together: float
    first: float

    @property
    def ray(self) -> bool:
        """Whether several machines have to join."""
        return len(self.machines) > 1

    @property
    def command(self) -> str:
        """What starts it, and a balancer in front."""
        split = f" --tensor-parallel-size {self.cards}" if self.cards > 1 else ""
        start = f"vllm serve {self.original} --max-num-seqs {self.streams}{split}"
        if self.ray:
            count = len(self.machines)
            start += f" --pipeline-parallel-size {count}"
            start += " --distributed-executor-backend ray"
        # The port is vLLM's own default.
        return f"{start} & edgeserve balancer start --server http://127.0.0.1:8000"


def vllm_plan(
    typical: TypicalModel, machines: Sequence[AdvisedMachine], streams: int
) -> VllmPlan | None:
    """Plan it on the first machine that has room, else on several by Ray."""
    if not typical.original:
        return None
    facts = typical.facts()
    alone = (_on(typical, facts, [each], streams) for each in machines)
    found = next((each for each in alone if each), None)
    return found or _on(typical, facts, machines, streams)


def _on(
    typical: TypicalModel,
    facts: ModelFacts,
    machines: Iterable[AdvisedMachine],
    streams: int,
) -> VllmPlan | None:
    usable = [(m, _usable(m)) for m in machines]
    there = [(machine, gpus) for machine, gpus in usable if gpus]
    if not there:
        return None
    least = min(len(gpus) for _, gpus in there)
    kv = kv_bytes(facts, streams * HELD)
    for cards in (c for c in COUNTS if c <= least and not facts.heads % c):
        # Every card gets the same share, so the smallest of them counts.
        smallest = min(g.memory_free for _, gpus in there for g in gpus[:cards])
        room = int(smallest * SHARE) * cards * len(there)
        if facts.weight_bytes + kv <= room:
            names = tuple(machine.name for machine, _ in there)
            gpus = [g for _, gpus in there for g in gpus[:cards]]
            plan = _speeds(facts, gpus, cards, streams)
            return VllmPlan(
                original=typical.original,
                cards=cards,
                machines=names,
                streams=streams,
                weights=facts.weight_bytes,
                kv=kv,
                room=room,
                write=plan[0],
                together=plan[1],
                first=plan[2],
            )
    return None


def _usable(machine: AdvisedMachine) -> list[Gpu]:
    """Return its GPUs that vLLM supports, those with most free memory first."""
    found = (each for each in machine.nvidia if not TOO_OLD.search(each.name))
    return sorted(found, key=lambda each: -each.memory_free)


def _speeds(
    facts: ModelFacts, gpus: Sequence[Gpu], cards: int, streams: int
) -> tuple[float, float, float]:
    """Return tokens/s alone, tokens/s together and seconds to the first token.

    Machines that Ray joins work on the layers in turn, so one stream is as fast as on
    the cards of one machine.
    """
    rates = gpu_rates(Device("", each.name, 0, 0) for each in gpus)
    side = cards * (SEVERAL if cards > 1 else 1.0)
    memory, computing = rates.memory * GB * MEMORY, rates.computing * TERA * COMPUTING
    bytes_ = active_bytes(facts)
    operations = bytes_  # two for each weight of two bytes
    step = bytes_ / (memory * side)
    reading = streams * PROMPT * operations / (computing * side)
    whole = reading + ANSWER * step
    return 1 / step, streams * (PROMPT + ANSWER) / whole, reading / 2 + step
