"""Servers that speak TLS, with certificates of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeserve.config.servers import ServerSetting
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.balancer.servers.test_server_registry import add, ask, remove
from tests.edgeserve.http.certificates import Certificate, a_certificate
from tests.fakes.servers import VLLM, fake_server


@pytest.fixture
def own(tmp_path: Path) -> Certificate:
    """A certificate that no authority has signed."""
    return a_certificate(tmp_path)


def below(prefix: str) -> dict[str, Any]:
    return {f"{prefix}{path}": answer for path, answer in VLLM.items()}


@pytest.mark.parametrize("path", ["", "/", "/v1", "/gpu/0", "/gpu/0/v1/"])
async def test_a_server_with_a_trusted_certificate_is_used_at_any_path(
    own: Certificate, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(own.cert))  # as if of a known authority
    prefix = path.rstrip("/").removesuffix("/v1")
    async with (
        fake_server(below(prefix), tls=own.server()) as server,
        endpoint(servers=(f"{server.url}{path}",)) as here,
    ):
        answer = await here.post(CHAT, chat())

    assert (answer.status, server.asked[0][0]) == (200, f"{prefix}/v1/chat/completions")


async def test_a_self_signed_certificate_is_refused_unless_it_is_named(
    own: Certificate,
) -> None:
    async with fake_server(VLLM, tls=own.server()) as server, endpoint() as here:
        refused = await add(here, server.url)
        wrong = await add(here, server.url, ca="no PEM")
        added = await add(here, server.url, ca=own.cert.read_text())
        answer = await here.post(CHAT, chat())

    assert (refused.status, wrong.status) == (422, 400)
    assert f"the certificate of {server.url} is not trusted here (self" in refused.error
    assert "with --ca-file or as `ca_file` in a [[server]] table" in refused.error
    assert "has no certificates in PEM" in wrong.error
    assert (added.status, answer.status) == (200, 200)


async def test_the_settings_name_the_certificate_by_its_file(own: Certificate) -> None:
    async with fake_server(VLLM, tls=own.server()) as server:
        known = ServerSetting(url=server.url, ca_file=str(own.cert))
        async with endpoint(server_tables=(known,)) as here:
            answer = await here.post(CHAT, chat())

    assert answer.status == 200


async def test_a_certificate_is_for_one_server_alone(
    own: Certificate, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = a_certificate(tmp_path / "other", "b")
    async with (
        fake_server(VLLM, tls=own.server()) as one,
        fake_server(VLLM, tls=other.server()) as two,
        endpoint() as here,
    ):
        await add(here, one.url, ca=own.cert.read_text())
        stranger = await add(here, two.url)
        mistaken = await add(here, two.url, ca=own.cert.read_text())

    assert (stranger.status, mistaken.status) == (422, 422)


async def test_a_certificate_is_trusted_only_as_long_as_its_server_is_here(
    own: Certificate,
) -> None:
    async with fake_server(VLLM, tls=own.server()) as server, endpoint() as here:
        await add(here, server.url, ca=own.cert.read_text())
        beside = await add(here, f"{server.url}/elsewhere", ca="")
        await remove(here, server.url)
        again = await add(here, server.url)

    assert (beside.status, again.status) == (422, 422)
    assert "is not trusted here" in again.error


async def test_a_server_at_another_address_than_its_certificates_says_so(
    own: Certificate,
) -> None:
    async with fake_server(VLLM, tls=own.server()) as server, endpoint() as here:
        url = server.url.replace("127.0.0.1", "127.1")
        refused = await add(here, url, ca=own.cert.read_text())

    assert refused.status == 422
    assert "name it by the host that its certificate is for" in refused.error


async def test_tls_and_plain_http_are_not_mistaken_for_each_other(
    own: Certificate,
) -> None:
    async with (
        fake_server(VLLM, tls=own.server()) as safe,
        fake_server(VLLM) as plain,
        endpoint() as here,
    ):
        loud = await add(here, safe.url.replace("https", "http"))
        deaf = await add(here, plain.url.replace("http", "https"))
        none = await ask(here, "GET")

    assert (loud.status, deaf.status, none.json) == (422, 422, [])
    assert f"does not speak TLS (WRONG_VERSION_NUMBER); try {plain.url}" in deaf.error
