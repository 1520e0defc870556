"""Engines that make vectors and put documents in order, through node and balancer."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint.conftest import MODEL, START_SECONDS, started
from tests.native import engine_flags
from tests.patience import PATIENCE

pytestmark = pytest.mark.engine

Ask = Callable[..., Any]

PANDA = "The giant panda is a bear that lives in China."
DOCUMENTS = ["Bread is baked in an oven.", PANDA, "hi"]


@pytest.fixture(scope="module")
def ask(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Ask]:
    """Ask a balancer whose one node serves a model for vectors and for ranking alone.

    SmolLM2 was trained for neither; llama.cpp lets it do both.
    """
    home = tmp_path_factory.mktemp("roles")
    roles = ("--embedding-model", str(smollm2), "--rerank-model", str(smollm2))
    alone = ("--models-dir", str(home / "models"), "--no-advertise", "--threads", "1")
    node_flags = (*roles, *alone, *engine_flags())
    with (
        started("node", *node_flags, home=home) as node,
        started("balancer", "--no-discover", "--node", node, home=home) as url,
    ):

        def asked(path: str, **fields: object) -> Any:
            body = json.dumps(fields).encode() if fields else None
            request = urllib.request.Request(
                url + path, body, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return json.load(response)

        _until_both_serve(asked)
        yield asked


def _until_both_serve(ask: Ask) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        served = ask("/v1/models")["data"]
        if served and served[0]["abilities"] == ["embeddings", "rerank"]:
            return
        time.sleep(0.1)
    pytest.fail(f"after {START_SECONDS} s: {ask('/edgeserve/v1/nodes')}")


@pytest.mark.parametrize("named", [{}, {"model": MODEL}, {"model": f"{MODEL}:Q4_1"}])
def test_documents_are_put_in_order(ask: Ask, named: dict[str, str]) -> None:
    answer = ask("/v1/rerank", query="pandas", documents=DOCUMENTS, **named)

    scores = [each["relevance_score"] for each in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(each["index"] for each in answer["results"]) == [0, 1, 2]


def test_only_the_best_come_where_so_many_are_asked_for(ask: Ask) -> None:
    answer = ask("/v1/rerank", query="pandas", documents=DOCUMENTS, top_n=1)

    assert len(answer["results"]) == 1


def test_one_text_has_one_vector_however_it_is_asked_for(ask: Ask) -> None:
    alone = ask("/v1/embeddings", input=PANDA)["data"]
    among = ask("/v1/embeddings", input=DOCUMENTS)["data"]

    assert [each["index"] for each in among] == [0, 1, 2]
    assert among[1]["embedding"] == pytest.approx(alone[0]["embedding"], abs=1e-3)


def test_ollamas_routes_have_the_same_vectors_shortened_where_asked(ask: Ask) -> None:
    ours = ask("/v1/embeddings", input=PANDA)["data"][0]["embedding"]
    new = ask("/api/embed", model=MODEL, input=[PANDA, "x"])
    old = ask("/api/embeddings", model=MODEL, prompt=PANDA)
    short = ask("/api/embed", model=MODEL, input=PANDA, dimensions=8)["embeddings"]

    assert new["embeddings"][0] == pytest.approx(ours, abs=1e-3)
    assert old["embedding"] == pytest.approx(ours, abs=1e-3)
    assert new["prompt_eval_count"] > 0
    assert sum(each * each for each in short[0]) == pytest.approx(1)


def test_what_such_engines_cannot_do_is_refused_at_once(ask: Ask) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask("/v1/chat/completions", messages=[{"role": "user", "content": "hi"}])

    with refused.value as answer:
        assert answer.code == 400
        assert "chat" in json.load(answer)["error"]["message"]
