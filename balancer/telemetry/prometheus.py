"""Prometheus text: histograms, and lines of the text format, version 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Times in seconds, counted by bucket; `bounds` are its upper bounds."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count a time, once or several times."""
        self._counts[bisect_left(self._bounds, seconds)] += times
        self._total += seconds * times

    def lines(self, name: str, labels: Labels = ()) -> Iterator[str]:
        """Render the lines; buckets are cumulative."""
        below = 0
        bounds = (*map(str, self._bounds), "+Inf")
        for bound, count in zip(bounds, self._counts, strict=True):
            below += count
            yield f"{name}_bucket{rendered((*labels, ('le', bound)))} {below}"
        yield f"{name}_sum{rendered(labels)} {self._total:.6f}"
        yield f"{name}_count{rendered(labels)} {below}"


def family(
    name: str, kind: str, text: str, values: Mapping[Labels, float]
) -> Iterator[str]:
    """Render one family of counters or gauges."""
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in sorted(values.items()):
        yield f"{name}{rendered(labels)} {value}"


def timed(name: str, text: str, times: Mapping[Labels, Histogram]) -> Iterable[str]:
    """Render one family of histograms."""
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} histogram"
    for labels, found in sorted(times.items(), key=lambda each: each[0]):
        yield from found.lines(name, labels)


def rendered(labels: Labels) -> str:
    """Render labels, as they follow a name."""
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
