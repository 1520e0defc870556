import socket
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from edgeserve import network
from edgeserve.cli.client import Endpoint, NoAnswer, endpoint
from edgeserve.config.paths import (
    OWN_CERTIFICATE,
    admin_key_file,
    config_dir,
    state_dir,
)
from edgeserve.errors import SettingsError
from edgeserve.security.certificates import keep, new_certificate
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


def test_another_server_is_recognized(running: FakeEndpoint) -> None:
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
    key = edgeserve("key", "new", "--file", str(config_dir() / "api-keys")).out.strip()

    edgeserve("models", "--url", running.url)

    ((_, headers, _),) = running.asked
    assert headers["authorization"] == f"Bearer {key}"
    assert endpoint("http://example.org", None).api_key is None


def test_a_key_that_the_balancer_left_here_is_shown_to_it_alone(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    edgeserve("key", "new", "--file", str(config_dir() / "api-keys"))
    port = int(running.url.rpartition(":")[2])
    left = admin_key_file(state_dir(), port)
    left.parent.mkdir()
    left.write_text("admin-key-of-this-start\n")

    edgeserve("models", "--url", running.url)

    ((_, headers, _),) = running.asked
    assert headers["authorization"] == "Bearer admin-key-of-this-start"
    other = endpoint(f"http://127.0.0.1:{port - 1}", None)
    assert other.key_file is None
    assert endpoint(f"http://example.org:{port}", None).key_file is None


def test_an_address_of_this_machine_is_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESERVE_BALANCER_STATE_DIR", str(tmp_path))
    ours = {ip_interface("192.0.2.7/24"), ip_interface("2001:db8::7/64")}
    monkeypatch.setattr(network, "interfaces", lambda: ours)
    left = admin_key_file(tmp_path, 8080)
    left.write_text("admin-key-of-this-start\n")

    for host in ("192.0.2.7", "[2001:db8::7]"):
        assert endpoint(f"http://{host}:8080", None).key_file == left
    assert endpoint("http://192.0.2.8:8080", None).key_file is None


def test_key_and_certificate_are_those_of_the_state_folder_in_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESERVE_BALANCER_STATE_DIR", str(tmp_path))
    made = new_certificate("balancer")
    keep(made, tmp_path / OWN_CERTIFICATE)
    left = admin_key_file(tmp_path, 443)
    left.write_text("admin-key-of-this-start\n")

    found = endpoint("https://localhost", None)

    assert (found.key_file, found.own) == (left, made.fingerprint)


def test_a_key_of_its_own_comes_before_the_one_that_was_left(
    edgeserve: Terminal, running: FakeEndpoint, tmp_path: Path
) -> None:
    left = admin_key_file(state_dir(), int(running.url.rpartition(":")[2]))
    left.parent.mkdir()
    left.write_text("admin-key-of-this-start\n")
    own = tmp_path / "own"
    own.write_text("key-of-a-client-of-mine\n")

    edgeserve("models", "--url", running.url, "--api-key-file", str(own))

    ((_, headers, _),) = running.asked
    assert headers["authorization"] == "Bearer key-of-a-client-of-mine"
