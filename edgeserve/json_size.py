"""JSON size: refuse bodies of more values than reading them is safe for. Pure.

A value takes two bytes to send and a hundred or more to hold: 60 MiB of `{},` took
4.5 GB and stopped everything else for minutes.
"""

from __future__ import annotations

import re

from edgeserve.errors import BadRequest

MOST_VALUES = 1_000_000
"""Most values in one request body. Two thousand inputs of 500 tokens are as many."""

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
