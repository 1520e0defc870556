"""Benchmark in virtual time: how much sooner answers begin than with other policies.

Usage: python -m tests.bench.routing.virtual

For each fleet and load the 95th percentile of the time to the first token, as a ratio
to EdgeServe's, over four seeds (geometric mean, and the least of the four).
"""

from __future__ import annotations

from statistics import geometric_mean

from balancer.simulate.compare import POLICIES, made_up
from balancer.simulate.fleets import FLEETS
from balancer.simulate.report import figures
from balancer.simulate.world import play

SEEDS = (1, 2, 3, 4)
CHATS = 150
LOADS = {"light": 0.3, "70 %": 0.7, "overload": 1.1}
OURS, STOCK, ORACLE = "edgeserve", "cache-aware", "oracle"
"""`cache-aware` is SGLang's default; `cache-aware-tuned` may be the best other one."""


def ratios(fleet: str, load: float, seed: int) -> tuple[float, float, float]:
    """Return the p95 of the best other policy, cache-aware and the oracle, to ours."""
    machines = FLEETS[fleet]
    calls = made_up(machines, load, CHATS, seed)
    p95 = {
        name: figures(name, machines, play(machines, calls, make(machines))).first_p95
        for name, make in POLICIES.items()
    }
    best = min(p95[name] for name in p95 if name not in {OURS, STOCK, ORACLE})
    return best / p95[OURS], p95[STOCK] / p95[OURS], p95[ORACLE] / p95[OURS]


def main() -> None:
    """Print a row for each fleet and load."""
    print(f"{'fleet':>10} {'load':>9} {'best other':>11} {'least':>6}", end="")
    print(f" {'stock cache-aware':>18} {'oracle':>7}")
    for fleet in FLEETS:
        for name, load in LOADS.items():
            best, stock, oracle = zip(
                *(ratios(fleet, load, seed) for seed in SEEDS), strict=True
            )
            print(f"{fleet:>10} {name:>9} {geometric_mean(best):11.2f}", end="")
            print(f" {min(best):6.2f} {geometric_mean(stock):18.1f}", end="")
            print(f" {geometric_mean(oracle):7.2f}")


if __name__ == "__main__":
    main()
