"""JSON bodies: change top-level keys, keep all other bytes; bound the values. Pure.

Other values keep their bytes: numbers their digits, strings their escapes. Of a
repeated key the last one counts, as in llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from edgeserve.errors import BadRequest
from edgeserve.wire import MALFORMED

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def edited(
    body: bytes, *, put: Mapping[str, object], drop: Iterable[str] = ()
) -> bytes:
    """Return `body` with the keys of `put` set and those of `drop` removed.

    Raises BadRequest where `body` is no JSON object.
    """
    values: dict[str, object] = {**raw_fields(body), **put}
    for key in drop:
        values.pop(key, None)
    return _encode(values)


def raw_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """Split an object into its keys and the bytes of their values."""
    try:
        return _decoder.decode(body)
    except MALFORMED as error:
        raise BadRequest(f"the request body is not valid: {error}") from error


MOST_VALUES = 1_000_000
"""Most values in one request body: each takes two bytes to send and a hundred to hold.
Two thousand inputs of 500 tokens are as many."""

_SEPARATORS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|,', re.DOTALL)


def check_values(body: bytes) -> None:
    """Raise BadRequest for too many values; most bodies tell by their commas alone."""
    if len(body) <= MOST_VALUES or body.count(b",") <= MOST_VALUES:
        return
    values = 0
    for number, found in enumerate(_SEPARATORS.finditer(body)):
        values += found[0] == b","
        if values > MOST_VALUES or number > 3 * MOST_VALUES:
            raise BadRequest(
                f"the request body holds more than {MOST_VALUES} values; send less"
            )
