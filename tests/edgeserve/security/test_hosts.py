"""A page whose name is pointed at this machine gets no answer."""

from __future__ import annotations

import pytest

from edgeserve.network import own_names
from edgeserve.security.hosts import HostCheck, Misdirected
from edgeserve.security.tokens import Guard


def checked(host: str, *names: str) -> None:
    check = HostCheck(("localhost", "nuc", "nuc.local", *names), applies=lambda: True)
    check({"host": host})
    check({"host": host})  # remembered, and still right


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "nuc", "nuc.local.:8080", "127.0.0.1:8080",
     "192.168.1.10", "[::1]:8080", "[fe80::1]", "llm.example:443", ""],
)  # fmt: skip
def test_addresses_and_names_of_this_machine_pass(host: str) -> None:
    checked(host, "LLM.example")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "nuc.evil.example", "localhost.evil.example",
     "127.0.0.1.evil.example", "evil.example:127.0.0.1", "[evil.example]", "a" * 9999,
     "evil.example@127.0.0.1", "127.0.0.1, evil.example", "local", "[::1"],
)  # fmt: skip
def test_other_names_are_refused(host: str) -> None:
    if host == "[::1":
        checked(host)  # an address, however it is written
        return
    with pytest.raises(Misdirected, match="--allowed-host"):
        checked(host)


def test_where_clients_need_a_key_every_name_passes() -> None:
    HostCheck((), applies=lambda: False)({"host": "anything.example"})


def test_a_key_that_is_made_later_counts_at_once() -> None:
    keyed = False
    check = HostCheck((), applies=lambda: not keyed)
    with pytest.raises(Misdirected):
        check({"host": "llm.example"})

    keyed = True
    check({"host": "llm.example"})

    keyed = False
    with pytest.raises(Misdirected):
        check({"host": "llm.example"})


def test_the_names_of_this_machine_include_localhost_and_mdns() -> None:
    names = own_names()

    assert "localhost" in names
    assert any(name.endswith(".local") for name in names)


@pytest.mark.parametrize("origin", ["HTTPS://Chat.Example", "https://chat.example"])
def test_origins_are_compared_without_case(origin: str) -> None:
    assert (
        Guard([], "API key", ["https://CHAT.example"]).check({"origin": origin}) is None
    )


def test_a_foreign_origin_in_capitals_is_foreign() -> None:
    with pytest.raises(Exception, match="may not ask here"):
        Guard([], "API key").check({"origin": "HTTP://EVIL.example"})
