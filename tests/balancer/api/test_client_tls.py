"""Clients of a balancer over TLS: its start, its certificate, the commands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancer.app import running
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import SettingsError
from edgeserve.http import upstream
from tests.edgeserve.http.certificates import Certificate, a_certificate
from tests.patience import PATIENCE

EDGESERVE = (sys.executable, "-m", "edgeserve")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return a_certificate(tmp_path_factory.mktemp("tls"))


async def test_a_certificate_of_ones_own_is_shown_to_clients(
    pair: Certificate, tmp_path: Path
) -> None:
    settings = BalancerSettings(
        port=0,
        discover=False,
        state_dir=tmp_path,
        tls_cert=pair.cert,
        tls_key=pair.key,
    )
    said: list[str] = []
    async with (
        running(settings, say=said.append) as balancer,
        upstream(connect_seconds=PATIENCE, tls=pair.client()) as up,
        up.ask(balancer.origin, "GET", "/v1/models", {}) as answer,
    ):
        assert json.loads(await answer.read())["data"] == []
    assert said[0].startswith("listening on https://127.0.0.1:")


async def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    settings = BalancerSettings(port=0, discover=False, tls_cert=tmp_path / "none.pem")
    with pytest.raises(SettingsError, match=r"none\.pem"):
        async with running(settings, say=print):
            pass


def test_a_key_without_a_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="needs tls_cert"):
        BalancerSettings(tls_key=Path("key.pem"))


@contextmanager
def serving(state: Path) -> Generator[tuple[str, str]]:
    """Run `balancer start --tls`; yields its URL and its fingerprint."""
    process = subprocess.Popen(
        [*EDGESERVE, "balancer", "start", "--tls", "--port", "0", "--no-discover"],
        env={**os.environ, "EDGESERVE_STATE_DIR": str(state)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        url = lines[0].split()[-1]
        found = re.search(r"fingerprint ([0-9A-F:]{95})$", lines[2])
        assert found, lines
        yield url, found[1]
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def models(url: str, state: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGESERVE, "models", "--json", "--url", url, *more],
        env={**os.environ, "EDGESERVE_STATE_DIR": str(state)},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_commands_trust_the_certificate_of_this_machine_or_a_fingerprint(
    tmp_path: Path,
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    with serving(here) as (url, fingerprint):
        assert url.startswith("https://")

        assert models(url, here).returncode == 0

        unknown = models(url, elsewhere)
        assert unknown.returncode == 1
        assert "is not trusted here" in unknown.stderr
        assert f"--fingerprint {fingerprint}" in unknown.stderr

        pinned = models(url, elsewhere, "--fingerprint", fingerprint)
        assert pinned.returncode == 0, pinned.stderr

        wrong = models(url, here, "--fingerprint", "00:" * 31 + "00")
        assert wrong.returncode == 1
        assert f"another certificate than expected: {fingerprint}" in wrong.stderr

        nonsense = models(url, here, "--fingerprint", "AB:CD")
        assert nonsense.returncode == 2

    with serving(here) as (_, again):
        assert again == fingerprint
    assert (here / "client-port.pem").stat().st_mode & 0o777 == 0o600


async def test_plain_clients_are_told(pair: Certificate, tmp_path: Path) -> None:
    settings = BalancerSettings(
        port=0, discover=False, state_dir=tmp_path, tls_cert=pair.cert, tls_key=pair.key
    )
    async with running(settings, say=lambda _: None) as balancer:
        port = balancer.origin.port
        done = await asyncio.create_subprocess_exec(
            *EDGESERVE, "models", "--url", f"http://127.0.0.1:{port}",
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await done.communicate()

    assert f"use https://127.0.0.1:{port}" in said.decode()
