"""Tables of `inspect` and `plan`: as text, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from edgeserve.models.blocks import UNQUANTIZED, fits
from edgeserve.models.facts import ModelFacts
from edgeserve.models.memory import Need, need, size
from edgeserve.terminal import Entry, Row
from quantize.plan.machines import Machine
from quantize.plan.variants import Verdict, best_fit

CONTEXTS = (2048, 4096, 8192, 32768, 131072)
SLOTS = (1, 2, 4, 8)


def needs(facts: ModelFacts, kv_type: str, ubatch: int) -> list[Need]:
    """Compute the memory to serve a model, for usual slots and contexts it allows."""
    contexts = [each for each in CONTEXTS if each <= (facts.context or each)]
    return [
        need(facts, slots=slots, context=each, kv_type=kv_type, ubatch=ubatch)
        for each in contexts or [facts.context]
        for slots in SLOTS
    ]


def misfit(facts: ModelFacts) -> str:
    """Return a sentence on tensors that K-quants cannot store; empty if none."""
    matrices = [each for each in facts.tensors if len(each.shape) > 1]
    odd = [each for each in matrices if not fits("Q4_K", each.row)]
    if not odd:
        return ""
    return (
        f"{len(odd)} of {len(matrices)} matrices have rows of a length that 256 does"
        " not divide; larger types replace K- and IQ-types there (see `plan`)"
    )


def facts_json(facts: ModelFacts, table: Sequence[Need]) -> dict[str, Any]:
    """Return the JSON of `inspect`; sizes in bytes."""
    return {
        "file": str(facts.path),
        "file_bytes": facts.file_bytes,
        "architecture": facts.architecture,
        "name": facts.name,
        "file_type": facts.file_type,
        "dequantized_from": facts.dequantized_from,
        "parameters": facts.parameters,
        "bits_per_weight": round(facts.bits, 4),
        "context": facts.context,
        "layers": facts.layers,
        "embedding": facts.embedding,
        "feed_forward": facts.feed_forward,
        "heads": facts.heads,
        "kv_heads": list(facts.kv_heads),
        "vocabulary": facts.vocabulary,
        "experts": facts.experts,
        "tensors": {
            kind: {"count": count, "bytes": total}
            for kind, (count, total) in facts.kinds.items()
        },
        "memory": [need_json(each) for each in table],
    }


NEED = (
    "slots", "context", "kv_type", "weights", "kv", "compute", "process", "total",
)  # fmt: skip


def need_json(each: Need) -> dict[str, Any]:
    """Return the JSON of a memory need, in bytes."""
    return {name: getattr(each, name) for name in NEED}


def facts_table(facts: ModelFacts) -> Table:
    """Return the model's shape as a two-column table."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    origin = facts.dequantized_from
    quantized = f", dequantized from {origin}" if origin else ""
    rows = {
        "name": facts.name,
        "architecture": facts.architecture,
        "type": f"{facts.file_type}, {facts.bits:.2f} bits per weight{quantized}",
        "parameters": f"{facts.parameters / 1e6:,.1f} M",
        "size": f"{size(facts.file_bytes)} in {len(facts.files)} file(s)",
        "context": f"{facts.context:,} tokens",
        "layers": f"{facts.layers}, {facts.embedding} wide, feed-forward"
        f" {facts.feed_forward}",
        "heads": f"{facts.heads}, keys and values {max(facts.kv_heads, default=0)}",
        "experts": str(facts.experts) if facts.experts else "none",
        "vocabulary": f"{facts.vocabulary:,}",
        "tensors": ", ".join(
            f"{count} {kind} ({size(total)})"
            for kind, (count, total) in facts.kinds.items()
        ),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def needs_table(table_of: Sequence[Need]) -> Table:
    """Return memory by context and slots."""
    kv_type = table_of[0].kv_type
    table = Table(title=f"memory to serve it ({kv_type} keys and values)")
    table.add_column("context per slot", justify="right")
    for slots in SLOTS:
        table.add_column(f"{slots} slot{'s' if slots > 1 else ''}", justify="right")
    contexts = sorted({each.context for each in table_of})
    for context in contexts:
        row = [size(each.total) for each in table_of if each.context == context]
        table.add_row(f"{context:,}", *row)
    return table


PLAN_HEADS = ("type", "file", "memory")


def plan_rows(
    verdicts: Sequence[Verdict], machines: Sequence[Machine]
) -> tuple[Row, list[Entry]]:
    """Return headings and rows: each variant, and which machines it fits."""
    best = {m.name: best_fit(verdicts, m.name) for m in machines}
    heads = (*PLAN_HEADS, *(machine.name for machine in machines))
    rows = list[Entry]()
    for verdict in verdicts:
        each = verdict.variant
        cells = (
            each.type.name,
            size(each.file_bytes),
            size(verdict.need.total),
            *(
                _mark(verdict.fits[m.name], chosen=best[m.name] is each)
                for m in machines
            ),
        )
        rows.append(Entry(cells, [f"{_quality(verdict)}; {_became(verdict)}"]))
    return heads, rows


def _mark(fitting: bool, *, chosen: bool) -> str:
    if chosen:
        return "best"
    return "yes" if fitting else "no"


def _quality(verdict: Verdict) -> str:
    each = verdict.variant
    loss = each.type.divergence
    known = "not known" if loss is None else f"{loss:.3g}"
    return f"{each.bits:.2f} bits per weight, KL divergence {known}"


def _became(verdict: Verdict) -> str:
    shares = verdict.variant.shares
    kinds = [f"{n} {kind}" for kind, n in shares.items() if kind not in UNQUANTIZED]
    return ", ".join(kinds) or ", ".join(shares)


def plan_json(verdicts: Sequence[Verdict], machines: Sequence[Machine]) -> Any:
    """Return the JSON of `plan`; sizes in bytes."""
    best = {m.name: best_fit(verdicts, m.name) for m in machines}
    return {
        "machines": {
            m.name: {
                "usable": m.usable,
                "best": b.type.name if (b := best[m.name]) else None,
            }
            for m in machines
        },
        "variants": [
            {
                "type": verdict.variant.type.name,
                "file_bytes": verdict.variant.file_bytes,
                "bits_per_weight": round(verdict.variant.bits, 4),
                "tensors": verdict.variant.shares,
                "remark": verdict.variant.remark,
                "memory": need_json(verdict.need),
                "fits": verdict.fits,
            }
            for verdict in verdicts
        ],
    }
