"""A URL that is none is said to be none, by the option that names it."""

from __future__ import annotations

import pytest

from edgeserve.cli.client import endpoint
from edgeserve.errors import SettingsError
from edgeserve.http.types import origin_set

WRONG = ["http://[::1", "http://a:99999", "http://a:b", "http://[x]:1"]


@pytest.mark.parametrize("url", WRONG)
def test_a_url_that_is_none_is_no_traceback(url: str) -> None:
    with pytest.raises(SettingsError, match="--node is"):
        origin_set(url, 8090, "--node")
    with pytest.raises(SettingsError, match="--url is"):
        endpoint(url, None)
