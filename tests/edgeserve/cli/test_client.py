import socket
from collections.abc import Iterator

import pytest

from edgeserve.cli.client import Endpoint, NoAnswer, endpoint
from edgeserve.errors import SettingsError
from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal


@pytest.fixture
def running() -> Iterator[FakeEndpoint]:
    with fake_endpoint({"/v1/models": {"data": []}}) as running:
        yield running


@pytest.mark.parametrize("command", ["nodes", "models", "chat"])
def test_silence_is_one_sentence_that_says_what_to_start(
    command: str, edgeserve: Terminal
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

    seen = edgeserve(command, "--url", url)

    assert seen.status == 1
    assert seen.err.startswith(f"edgeserve: nothing answers at {url}")
    assert "edgeserve up" in seen.err
    assert seen.err.count("\n") == 1


def test_https_to_a_plain_port_is_one_sentence_with_the_url_to_use(
    running: FakeEndpoint,
) -> None:
    there = endpoint(running.url.replace("http:", "https:"), None)

    with pytest.raises(NoAnswer, match=f"does not speak TLS.* --url {running.url}"):
        there.get("/v1/models")


@pytest.mark.parametrize("url", ["nuc:8080", "ftp://nuc", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="--url"):
        endpoint(url, None)


def test_the_address_that_openai_clients_take_works_too() -> None:
    assert endpoint("http://nuc:8080/v1/", None) == Endpoint("http://nuc:8080")


def test_another_server_is_told_apart(running: FakeEndpoint) -> None:
    running.answers["/v1/models"] = lambda: [b"<html>"]

    with pytest.raises(Exception, match="is not an edgeserve balancer"):
        Endpoint(running.url).get("/v1/models")


def test_a_refusal_is_passed_on(edgeserve: Terminal, running: FakeEndpoint) -> None:
    running.statuses["/v1/models"] = 401
    running.answers["/v1/models"] = {"error": {"message": "API key missing or wrong"}}

    seen = edgeserve("models", "--url", running.url)

    assert seen.status == 1
    assert "401: API key missing or wrong" in seen.err
    assert "--api-key-file" in seen.err


def test_the_key_of_this_machine_is_shown_to_this_machine(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    key = edgeserve("key", "new").out.strip()

    edgeserve("models", "--url", running.url)

    ((_, headers, _),) = running.asked
    assert headers["authorization"] == f"Bearer {key}"
    assert endpoint("http://example.org", None).api_key is None
