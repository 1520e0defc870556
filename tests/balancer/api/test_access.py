from pathlib import Path

import pytest

from balancer.api.access import cors, listening_host
from edgeserve.config.settings import BalancerSettings
from edgeserve.config.values import WrongValue
from edgeserve.errors import SettingsError
from tests.balancer.endpoint import a_secret, endpoint


def host(
    asked: str | None,
    *,
    token: bool = False,
    api_keys: bool = False,
    anonymous: bool = False,
) -> str:
    return listening_host(asked, token=token, api_keys=api_keys, anonymous=anonymous)


def test_without_secrets_it_stays_on_this_machine() -> None:
    assert host(None) == "127.0.0.1"


def test_a_token_alone_says_nothing_of_clients() -> None:
    assert host(None, token=True) == "127.0.0.1"


def test_keys_alone_say_nothing_of_nodes() -> None:
    assert host(None, api_keys=True) == "127.0.0.1"


def test_with_token_and_keys_it_listens_everywhere() -> None:
    assert host(None, token=True, api_keys=True) == "::"


def test_anonymous_clients_are_let_in_on_purpose_only() -> None:
    assert host(None, token=True, anonymous=True) == "::"


@pytest.mark.parametrize("asked", ["127.0.0.1", "::1", "localhost", "127.0.0.9"])
def test_loopback_needs_nothing(asked: str) -> None:
    assert host(asked) == asked


def test_another_address_without_a_token_is_refused_with_what_to_do() -> None:
    with pytest.raises(SettingsError, match="edgeserve token new"):
        host("0.0.0.0", api_keys=True)


def test_another_address_without_keys_is_refused_with_what_to_do() -> None:
    with pytest.raises(SettingsError, match="edgeserve key new"):
        host("192.168.1.2", token=True)


@pytest.mark.parametrize("admitted", [{"api_keys": True}, {"anonymous": True}])
def test_another_address_with_both_is_taken(admitted: dict[str, bool]) -> None:
    assert host("192.168.1.2", token=True, **admitted) == "192.168.1.2"


def test_without_keys_only_this_machines_pages_may_ask() -> None:
    may = cors(BalancerSettings(), keys=False)

    assert may.allows("http://localhost:3000")
    assert not may.allows("https://chat.example")


def test_where_clients_need_a_key_the_key_is_what_counts() -> None:
    assert cors(BalancerSettings(), keys=True).allows("https://chat.example")


def test_named_pages_are_the_only_ones_allowed() -> None:
    may = cors(BalancerSettings(cors_origins=("https://chat.example",)), keys=True)

    assert may.allows("https://chat.example")
    assert not may.allows("http://localhost:3000")
    assert not may.allows("https://elsewhere.example")


@pytest.mark.parametrize("wrong", ["chat.example", "https://", "https://a/path"])
def test_what_no_browser_would_send_is_refused(wrong: str) -> None:
    with pytest.raises(WrongValue, match=r"cors_origins must be origins"):
        BalancerSettings(cors_origins=(wrong,))


PATHS = (
    "/health", "/metrics", "/v1/models", "/edgeserve/v1/nodes",
    "/edgeserve/v1/requests", "/props", "/nothing",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_without_keys_no_route_answers_another_name(path: str) -> None:
    async with endpoint(allowed_hosts=("llm.example",)) as balancer:
        evil = await balancer.get(path, headers={"host": "evil.example:80"})
        named = await balancer.get(path, headers={"host": "llm.example"})

    assert (evil.status, evil.json["error"]["code"]) == (421, "misdirected_request")
    assert named.status != 421


async def test_with_keys_the_key_decides(tmp_path: Path) -> None:
    keys = a_secret(tmp_path, "keys", "edgeserve-0123456789abcdef")
    async with endpoint(api_key_file=keys) as balancer:
        other = await balancer.get("/v1/models", headers={"host": "llm.example"})

    assert other.status == 401
