"""Calls for tests of the simulator."""

from balancer.dialects.prompt import chain
from balancer.telemetry.trace import Call


def a_call(
    id_: int = 0,
    at: float = 0.0,
    *,
    words: bytes = b"",
    answer: int = 51,
    model: str = "model",
) -> Call:
    """400 tokens in, 51 out, unless said otherwise."""
    prompt = chain([words or b"%d" % id_ * 700])
    return Call(
        id=id_,
        at=at,
        prompt=prompt,
        prompt_tokens=400,
        answer_tokens=answer,
        session="s",
        model=model,
    )
