"""The Grafana dashboard asks for metrics that the balancer has, and for no others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.node import fake_node

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana.json"
METRIC = re.compile(r"\b(?:vllm:|edgeserve_)[a-z_]+")
PARTS = re.compile(r"_(?:bucket|sum|count)$")


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


async def test_every_metric_of_the_dashboard_is_one_of_the_balancer() -> None:
    asked = set(METRIC.findall(json.dumps(dashboard())))
    async with fake_node("pi") as node, endpoint(node) as balancer:
        await balancer.post(CHAT, chat())
        text = (await balancer.get("/metrics")).body.decode()

    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    known = {PARTS.sub("", name) if name not in kinds else name for name in asked}
    assert len(asked) > 10
    assert known - kinds.keys() == set()
    assert {kinds[PARTS.sub("", each)] for each in asked if PARTS.search(each)} == {
        "histogram"
    }


async def test_rates_are_taken_of_counters_only() -> None:
    async with fake_node("pi") as node, endpoint(node) as balancer:
        await balancer.post(CHAT, chat())
        text = (await balancer.get("/metrics")).body.decode()

    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    queries = [t["expr"] for each in dashboard()["panels"] for t in each["targets"]]
    rated = [
        PARTS.sub("", name)
        for query in queries
        for name in re.findall(r"(?:rate|increase)\(([a-z:_]+)", query)
    ]
    assert rated
    assert {kinds[name] for name in rated} <= {"counter", "histogram"}


def test_no_two_panels_lie_on_each_other() -> None:
    taken = set[tuple[int, int]]()
    for each in dashboard()["panels"]:
        at = each["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, each["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
