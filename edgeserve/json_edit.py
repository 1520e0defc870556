"""JSON edits: changes top-level keys of an object, keeps all other bytes. Pure.

Other values keep their bytes: numbers their digits, strings their escapes. Of a
repeated key the last one counts, as in llama.cpp.
"""

from __future__ import annotations

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
