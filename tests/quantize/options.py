"""Options and an observer for tests that really quantize."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeserve.models.facts import read
from edgeserve.quantization import parse
from quantize.make import MakeOptions
from quantize.manifest import MadeVariant
from quantize.plan.variants import Variant


def some_options(base: Path, types: str, **changes: Any) -> MakeOptions:
    """Return options for variants of `base`, in its folder."""
    options: dict[str, Any] = {
        "base": read(base),
        "types": parse(types),
        "folder": base.parent,
    }
    return MakeOptions(**{**options, **changes})


class RecordingObserver:
    """An observer that records its calls as words."""

    def __init__(self) -> None:
        self.words = list[str]()
        self.tensors = list[str]()

    def calibrating(self, text: Path) -> None:
        self.words.append(f"calibrating {text.name}")

    def planned(self, variants: Iterable[Variant]) -> None:
        self.words.append("planned " + " ".join(each.type.name for each in variants))

    def kept(self, made: MadeVariant) -> None:
        self.words.append(f"kept {made.recipe.type}")

    def begun(self, variant: Variant) -> None:
        self.words.append(f"begun {variant.type.name}")

    def tensor(self, index: int, of: int, name: str) -> None:
        self.tensors.append(f"{index}/{of} {name}")

    def checking(self, variant: Variant) -> None:
        self.words.append(f"checking {variant.type.name}")

    def made(self, made: MadeVariant) -> None:
        self.words.append(f"made {made.recipe.type}")
