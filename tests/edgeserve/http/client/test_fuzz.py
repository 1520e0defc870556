"""A server may send anything: the result is a whole answer or a lost node.

Bounded here; `make fuzz` tries 10,000 inputs.
"""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from edgeserve.errors import NodeLost
from edgeserve.http import Origin
from edgeserve.http.client.connection import UpstreamConnection
from tests.edgeserve.http.wire import Wire, sliced
from tests.patience import PATIENCE

Outcome = tuple[int, bytes, bool] | None
"""Status, body, and whether the connection may be used again; None for a lost node."""

ORIGIN = Origin("192.0.2.2", 80)

STATUS = st.sampled_from(
    ["HTTP/1.1 200 OK"] * 6
    + ["HTTP/1.1 100 Continue", "HTTP/1.0 200 OK", "HTTP/1.1 204 No Content"]
    + ["HTTP/1.1 503", "HTTP/1.1 2000 OK", "HTTP/2 200 OK", "200 OK", ""]
)
ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\n "])
FIELDS = st.sampled_from(
    [
        "Content-Length: 5",
        "Content-Length: 5",
        "Content-Length: 3",
        "content-length: -5",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Connection: close",
        "Content-Type: text/event-stream",
        "X : y",
        "no colon",
        ": nameless",
    ]
)
BODIES = st.sampled_from(
    [
        "",
        "hello",
        "hel",
        "hello, world",
        "5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ]
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Something like an answer: most parts right, some wrong."""
    lines = [draw(STATUS), *draw(st.lists(FIELDS, max_size=3)), ""]
    text = "".join(line + draw(ENDS) for line in lines)
    return (text + draw(BODIES)).encode()


anything = st.one_of(answers(), answers(), st.binary(max_size=200))
cuts = st.lists(st.integers(1, 40), max_size=20)


async def outcome(pieces: list[bytes]) -> Outcome:
    """Ask, let the server say the pieces and hang up."""
    link, wire = (
        UpstreamConnection(ORIGIN, asyncio.get_running_loop(), lambda _: None),
        Wire(),
    )
    link.connection_made(wire)
    asked = link.ask("POST", b"", b"")
    for piece in pieces:
        if not wire.closed:
            link.data_received(piece)
    kept = link.reusable and not wire.closed
    if not wire.closed:
        link.eof_received()
    link.connection_lost(None)
    async with asyncio.timeout(PATIENCE):
        try:
            answer = await asked
            return answer.status, await answer.read(), kept
        except NodeLost:
            return None


@given(data=anything, sizes=cuts)
def test_an_answer_is_whole_or_lost_alike_in_any_slices(
    data: bytes, sizes: list[int]
) -> None:
    async def both() -> tuple[Outcome, Outcome]:
        return await outcome([data]), await outcome(sliced(data, sizes))

    with asyncio.Runner() as runner:
        whole, cut = runner.run(both())

    assert whole == cut


@given(body=st.binary(max_size=60), sizes=cuts, chunked=st.booleans())
def test_a_proper_answer_comes_through_and_its_connection_is_kept(
    body: bytes, sizes: list[int], chunked: bool
) -> None:
    if chunked:
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        said = b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    else:
        said = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    with asyncio.Runner() as runner:
        got = runner.run(outcome(sliced(b"HTTP/1.1 200 OK\r\n" + said, sizes)))

    assert got == (200, body, True)
