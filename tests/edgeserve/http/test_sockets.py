import pytest

from edgeserve.errors import SettingsError
from edgeserve.http import bind


@pytest.mark.parametrize(
    ("host", "why"),
    [("192.0.2.1", "no interface has that address"), ("no.invalid", "has that name")],
)
def test_an_address_that_is_not_ours_is_one_plain_sentence(host: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f"^cannot listen on {host}:0: .*{why}$"):
        bind(host, 0)


def test_an_ipv6_address_stands_in_brackets() -> None:
    with pytest.raises(SettingsError, match=r"^cannot listen on \[2001:db8::1\]:0: "):
        bind("2001:db8::1", 0)
