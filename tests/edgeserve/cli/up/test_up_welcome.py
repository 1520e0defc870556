import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeserve.cli.up.welcome import QUESTION, Welcome
from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.patience import PATIENCE

CHAT = "/v1/chat/completions"
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Scattering."}}]}
MODEL = {"id": "it's a model", "abilities": ["chat"]}


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with fake_endpoint({CHAT: ANSWER, "/v1/models": {"data": [MODEL]}}) as running:
        yield running


def a_welcome(endpoint: FakeEndpoint, key_file: Path | None = None) -> Welcome:
    return Welcome(
        url=endpoint.url, models=[MODEL], command="edgeserve", key_file=key_file
    )


def pasted(welcome: Welcome, way: str) -> str:
    """Run one line exactly as it was printed."""
    (line,) = (line for line in welcome.text().splitlines() if f"  {way} " in line)
    shell = ["sh", "-c"] if way == "curl" else [sys.executable, "-c"]
    done = subprocess.run(
        [*shell, line.strip()],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("way", ["curl", "from"])
def test_each_line_gets_an_answer_as_pasted(way: str, endpoint: FakeEndpoint) -> None:
    said = pasted(a_welcome(endpoint), way)

    ((path, _, body),) = endpoint.asked
    assert "Scattering." in said
    assert path == CHAT
    assert body["model"] == MODEL["id"]
    assert body["messages"] == [{"role": "user", "content": QUESTION}]


@pytest.mark.parametrize("way", ["curl", "from"])
def test_where_a_key_is_asked_for_the_lines_show_it_without_printing_it(
    way: str, endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    file = tmp_path / "client's keys"
    file.write_text("# laptop\nkey-of-the-laptop\nkey-of-the-phone\n")
    welcome = a_welcome(endpoint, key_file=file)

    pasted(welcome, way)

    ((_, headers, _),) = endpoint.asked
    assert headers["authorization"] == "Bearer key-of-the-laptop"
    assert "key-of-the-laptop" not in welcome.text()


@pytest.mark.parametrize("way", ["curl", "from"])
def test_without_a_model_that_chats_the_lines_list_the_models(
    way: str, endpoint: FakeEndpoint
) -> None:
    embedding = {"id": "e5", "abilities": ["embeddings"]}
    welcome = Welcome(url=endpoint.url, models=[embedding], command="edgeserve")

    pasted(welcome, way)

    assert [path for path, _, _ in endpoint.asked] == ["/v1/models"]


def test_an_unusual_address_is_named_to_chat() -> None:
    usual = Welcome(url="http://127.0.0.1:8080", models=[MODEL], command="edgeserve")
    other = Welcome(url="http://127.0.0.1:8081", models=[MODEL], command="edgeserve")

    assert "edgeserve chat\n" in usual.text()
    assert "edgeserve chat --url http://127.0.0.1:8081\n" in other.text()
