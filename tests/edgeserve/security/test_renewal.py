"""The certificate for clients is read again when its files change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest

from edgeserve.errors import SettingsError
from edgeserve.security.renewal import CHECK_SECONDS, RenewedContext
from tests.edgeserve.http.certificates import Certificate, a_certificate


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += CHECK_SECONDS
        return self.now


def renewed(pair: Certificate) -> RenewedContext:
    return RenewedContext(pair.cert, pair.key, Clock())


@pytest.fixture
def pair(tmp_path: Path) -> Certificate:
    return a_certificate(tmp_path)


@pytest.fixture
def another(tmp_path: Path) -> Certificate:
    (tmp_path / "another").mkdir()
    return a_certificate(tmp_path / "another", "another and longer")


def test_clients_need_tls_1_2_or_later(pair: Certificate) -> None:
    assert renewed(pair)().minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_context_lasts_while_its_files_do(pair: Certificate) -> None:
    contexts = renewed(pair)

    assert contexts() is contexts()


def test_a_new_pair_is_used_once_both_files_are_there(
    pair: Certificate, another: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = renewed(pair)
    old = contexts()

    another.cert.replace(pair.cert)
    with caplog.at_level(logging.WARNING):
        assert contexts() is old
        assert contexts() is old
    another.key.replace(pair.key)

    assert contexts() is not old
    assert caplog.text.count("the old certificate stays in use") == 1
    assert "key values mismatch" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\0" * 2**21])
def test_a_broken_or_missing_file_changes_nothing(
    pair: Certificate, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = renewed(pair)
    old = contexts()

    if content is None:
        pair.cert.unlink()
    else:
        pair.cert.write_bytes(content)

    assert contexts() is old
    assert "the old certificate stays in use" in caplog.text
    assert str(pair.cert) in caplog.text


def test_the_files_are_looked_at_once_a_second_at_most(
    pair: Certificate, another: Certificate
) -> None:
    now = [0.0]
    contexts = RenewedContext(pair.cert, pair.key, lambda: now[0])
    old = contexts()

    another.cert.replace(pair.cert)
    another.key.replace(pair.key)

    now[0] = CHECK_SECONDS / 2
    assert contexts() is old
    now[0] = CHECK_SECONDS
    assert contexts() is not old


def test_a_file_may_hold_both(pair: Certificate, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())

    assert RenewedContext(both, both)() is not None


def test_at_the_start_a_pair_that_cannot_be_used_is_refused(
    pair: Certificate, another: Certificate, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="key values mismatch"):
        RenewedContext(pair.cert, another.key)
    with pytest.raises(SettingsError, match=r"absent\.pem: No such file"):
        RenewedContext(tmp_path / "absent.pem", pair.key)


def test_a_key_with_a_password_is_refused_without_asking_for_it(
    pair: Certificate, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(pair.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            form.Encoding.PEM,
            form.PrivateFormat.PKCS8,
            form.BestAvailableEncryption(b"a password"),
        )
    )

    with pytest.raises(SettingsError, match="unencrypted"):
        RenewedContext(pair.cert, locked)
