import json

import pytest

from edgeserve.errors import FleetBusy, UnknownModel, in_words


def test_an_unknown_model_is_an_error_that_lists_what_is_served() -> None:
    error = UnknownModel("huge", ["small:Q4_0", "small:Q8_0"])

    body = json.loads(error.body())

    assert error.status == 404
    assert "small:Q4_0, small:Q8_0" in body["error"]["message"]


def test_a_busy_fleet_says_when_to_come_back() -> None:
    error = FleetBusy(retry_after=7)

    assert error.headers()["retry-after"] == "7"
    assert "7 s" in str(error)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/root/x"), "Permission denied"),
        (OSError("AF_UNIX path too long"), "AF_UNIX path too long"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("no such thing"), "no such thing"),
    ],
)
def test_errors_have_words_without_error_numbers(error: Exception, words: str) -> None:
    assert in_words(error) == words
