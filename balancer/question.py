"""What is found out about a request once, before any engine is looked at. Pure."""

from __future__ import annotations

import msgspec

from balancer.holdings import Holdings, Level
from balancer.prefix import Prompt, reach
from balancer.workload import Workload

MORE = 1.2
"""Some texts have more tokens a byte than the one at hand; bounds allow for that."""


class Question(msgspec.Struct, kw_only=True):
    """A request as the engines' prices need it.

    `tokens` is the length of its prompt, `answer` that of its answer, as expected;
    `levels` are the slots that hold a part of it, `counted` how many tokens that is
    where somebody counted, `most` how many it may be, `touched` all of these slots.
    `hint` is the slot that its session last used.
    """

    prompt: Prompt
    tokens: float
    answer: float
    slots: int
    levels: list[Level]
    counted: dict[int, float]
    most: list[float]
    touched: int
    hint: int
    now: float
    workload: Workload
    holdings: Holdings

    def depth(self, bit: int) -> int:
        """Blocks of the prompt that a slot holds."""
        for depth, mask in self.levels:
            if mask & bit:
                return depth
        return 0


def asked(
    prompt: Prompt,
    workload: Workload,
    holdings: Holdings,
    now: float,
    *,
    slots: int = 1,
    budget: int | None = None,
    tokens: float | None = None,
    answer: float | None = None,
    hint: int = -1,
) -> Question:
    """Find it out. `tokens` and `answer`: lengths where they are known."""
    levels = holdings.levels(prompt)
    touched = 1 << hint if hint >= 0 else 0
    for _, mask in levels:
        touched |= mask
    ratio = _tokens_per_byte(levels, workload, holdings)
    return Question(
        prompt=prompt,
        tokens=tokens or max(2.0, workload.lengths.of(prompt, ratio)),
        answer=answer or workload.answer_tokens(prompt.head, budget),
        slots=slots,
        levels=levels,
        counted=_counted(prompt, levels, workload),
        most=[MORE * ratio * reach(prompt, depth) for depth, _ in levels],
        touched=touched,
        hint=hint,
        now=now,
        workload=workload,
        holdings=holdings,
    )


def _tokens_per_byte(
    levels: list[Level], workload: Workload, holdings: Holdings
) -> float:
    """That of the conversation where it is known, else the model's."""
    if levels:
        mask = levels[0][1]
        held = holdings.held[(mask & -mask).bit_length() - 1]
        if held is not None:
            return held.tokens_per_byte
    return workload.tokens_per_byte


def _counted(
    prompt: Prompt, levels: list[Level], workload: Workload
) -> dict[int, float]:
    found = dict[int, float]()
    for depth, _ in levels:
        tokens = workload.lengths.at(prompt.blocks[depth - 1])
        if tokens is not None:
            found[depth] = tokens
    return found
