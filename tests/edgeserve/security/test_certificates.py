"""A process makes its own certificate once, and is known by it from then on."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from edgeserve.security.certificates import (
    fleet_context,
    keep,
    new_certificate,
    own_certificate,
    server_context,
    shown,
    stored_certificate,
)


def test_a_certificate_is_made_once_and_only_its_owner_can_read_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "node.pem"
    made = own_certificate(path, "kitchen")
    assert own_certificate(path, "kitchen") == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(made.fingerprint) == 64
    assert shown(made.fingerprint).count(":") == 31


@pytest.mark.parametrize("damage", ["", "empty", "half", "other key"])
def test_a_damaged_certificate_is_replaced(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "node.pem"
    made, other = own_certificate(path, "kitchen"), new_certificate("other")
    content = {
        "": b"nonsense",
        "empty": b"",
        "half": made.pem[: len(made.pem) // 2],
        "other key": other.pem.partition(b"-----BEGIN CERT")[0]
        + b"-----BEGIN CERT"
        + made.pem.partition(b"-----BEGIN CERT")[2],
    }[damage]
    path.write_bytes(content)
    assert stored_certificate(path) is None
    again = own_certificate(path, "kitchen")
    assert again != made
    assert stored_certificate(path) == again


def test_a_certificate_that_cannot_be_stored_serves_all_the_same(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    made = own_certificate(tmp_path / "file" / "node.pem", "kitchen")
    assert server_context(made).cert_store_stats()["x509"] == 0


def test_the_fleet_channel_accepts_no_version_before_tls_1_3(tmp_path: Path) -> None:
    keep(new_certificate("kitchen"), tmp_path / "node.pem")
    found = stored_certificate(tmp_path / "node.pem")
    assert found is not None
    for context in (server_context(found), fleet_context()):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
