from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from balancer.persistence.handover import handover_socket, inherited, offering
from edgeserve.errors import SettingsError
from edgeserve.http import bind
from tests.patience import PATIENCE

LEARNED = b"rates" * 100_000


@pytest.fixture
def listening() -> socket.socket:
    return bind("127.0.0.1", 0)


async def test_the_next_process_gets_the_open_port_and_what_was_learned(
    tmp_path: Path, listening: socket.socket
) -> None:
    def newcomer() -> tuple[int, bytes]:
        with inherited(path) as handover, handover.listening as port:
            handover.serving()
            return port.getsockname()[1], handover.learned

    path, taken = handover_socket(tmp_path, 8080), asyncio.Event()
    with listening:
        async with offering(path, listening, lambda: LEARNED, taken):
            port, learned = await asyncio.to_thread(newcomer)
            async with asyncio.timeout(PATIENCE):
                await taken.wait()

        assert port == listening.getsockname()[1]
    assert learned == LEARNED


async def test_a_client_that_waits_in_the_backlog_is_served_by_the_next_process(
    tmp_path: Path, listening: socket.socket
) -> None:
    def newcomer() -> bytes:
        with inherited(path) as handover, handover.listening as port:
            handover.serving()
            listening.close()
            port.settimeout(PATIENCE)
            connection, _ = port.accept()
            with connection:
                return connection.recv(5)

    path = handover_socket(tmp_path, 8080)
    with socket.create_connection(listening.getsockname()) as client:
        client.sendall(b"hello")
        async with offering(path, listening, lambda: b"", asyncio.Event()):
            said = await asyncio.to_thread(newcomer)

    assert said == b"hello"


async def test_a_newcomer_that_fails_before_it_serves_changes_nothing(
    tmp_path: Path, listening: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        with inherited(path) as handover:
            handover.listening.close()

    def succeeds() -> None:
        with inherited(path) as handover:
            handover.listening.close()
            handover.serving()

    path, taken = handover_socket(tmp_path, 8080), asyncio.Event()
    with listening:
        async with offering(path, listening, lambda: b"", taken):
            await asyncio.to_thread(fails)
            assert not taken.is_set()
            await asyncio.to_thread(succeeds)
            async with asyncio.timeout(PATIENCE):
                await taken.wait()

    assert "a takeover failed" in caplog.text


def test_where_no_balancer_runs_the_sentence_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match="without --takeover"),
        inherited(handover_socket(tmp_path, 8080)),
    ):
        pass


async def test_the_door_is_for_its_owner_and_gone_afterwards(
    tmp_path: Path, listening: socket.socket
) -> None:
    path = handover_socket(tmp_path / "state", 8080)
    with listening:
        async with offering(path, listening, lambda: b"", asyncio.Event()):
            mode = path.stat().st_mode & 0o777

    assert mode == 0o600
    assert not path.exists()
