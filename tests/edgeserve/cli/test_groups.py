"""`edgeserve models group`: what it says before and after it orders anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal

OWN = "/edgeserve/v1/models"
PATH = f"{OWN}/big/group"
MEMBER = {
    "node": "pc", "head": True, "layers": 20, "share": 0.5, "memory": 6_400_000_000,
    "computing_ms": 41.0, "network_ms": 0.0,
}  # fmt: skip
PLAN: dict[str, Any] = {
    "model": "big:Q4_K_M",
    "engine": "big:Q4_K_M@group",
    "node": "pc",
    "context": 8192,
    "tokens_per_second": 9.1,
    "prompt_tokens_per_second": 120.0,
    "load_seconds": 63.0,
    "members": [MEMBER, {**MEMBER, "node": "nuc", "head": False, "network_ms": 1.2}],
    "unmeasured": [],
    "unknown_speed": ["nuc"],
    "measured": 8.7,
    "why": "",
    "alone": [
        {
            "variant": "big:Q2_K",
            "node": "nuc",
            "state": "available",
            "tokens_per_second": 14.0,
            "quicker": True,
        }
    ],
}


@pytest.fixture
def balancer(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    with fake_endpoint({PATH: PLAN}) as running:
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        yield running


def test_a_dry_run_shows_the_members_and_what_is_quicker(
    edgeserve: Terminal, balancer: FakeEndpoint
) -> None:
    seen = edgeserve("models", "group", "big", "--dry-run")

    first, now, guessed, _, head, worker, alone = seen.out.splitlines()
    assert first.startswith("big:Q4_K_M on 2 nodes, led by pc: about 9.1 tokens/s")
    assert now == "its group that serves now writes 8.7 tokens/s"
    assert guessed.startswith("how fast nuc can be was not measured yet, only guessed")
    assert head.split() == ["pc", "(head)", "20", "6.4", "GB", "41", "ms", "-"]
    assert worker.split()[-2:] == ["1.2", "ms"]
    assert alone == "big:Q2_K on nuc alone: about 14 tokens/s, quicker"
    assert [each["dry_run"] for each in balancer.said(PATH)] == [True]


def test_members_and_head_can_be_named(
    edgeserve: Terminal, balancer: FakeEndpoint
) -> None:
    flags = ("--nodes", "pc, nuc", "--head", "pc", "--no-wait")
    seen = edgeserve("models", "group", "big", *flags)

    [said] = balancer.said(PATH)
    assert seen.status == 0
    assert (said["nodes"], said["head"], said["dry_run"]) == (
        ["pc", "nuc"],
        "pc",
        False,
    )


def test_it_waits_until_the_group_is_loaded(
    edgeserve: Terminal, balancer: FakeEndpoint
) -> None:
    report = {"id": "big:Q4_K_M@group", "state": "ready"}
    row = {"model": "big", "engines": [{"node": "pc", "report": report}]}
    balancer.answers[OWN] = [row]

    seen = edgeserve("models", "group", "big")

    assert "big:Q4_K_M@group on pc is loaded, after" in seen.out


def test_dissolving_says_where_and_takes_no_other_option(
    edgeserve: Terminal, balancer: FakeEndpoint
) -> None:
    told = {"model": "big", "dissolved": [{"model": "big:Q4_K_M", "node": "pc"}]}
    balancer.answers[PATH] = told
    seen = edgeserve("models", "group", "big", "--dissolve")
    wrong = edgeserve("models", "group", "big", "--dissolve", "--dry-run")

    assert seen.out == "the group of big:Q4_K_M on pc ends\n"
    assert wrong.status == 2
