from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edgeserve.http.sse import Event, EventReader

STREAM = (
    b"event: report\ndata: {}\n\n"
    b":\n\n"
    b'data: {"a": 1}\n\n'
    b"data: one\ndata: two\n\n"
    b"data: [DONE]\n\n"
)


def shapes(events: list[Event]) -> list[tuple[str, bytes]]:
    return [(event.name, event.data) for event in events]


def test_events_have_a_name_and_data() -> None:
    assert shapes(EventReader().feed(STREAM)) == [
        ("report", b"{}"),
        ("", b""),
        ("", b'{"a": 1}'),
        ("", b"one\ntwo"),
        ("", b"[DONE]"),
    ]


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_where_the_pieces_are_cut_makes_no_difference(cuts: list[int]) -> None:
    reader = EventReader()
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(places)]

    events = [event for piece in pieces for event in reader.feed(piece)]

    assert events == EventReader().feed(STREAM)
    assert b"".join(event.raw for event in events) == STREAM


def test_an_event_that_is_not_complete_stays_in_the_parser() -> None:
    reader = EventReader()

    assert reader.feed(b"data: hal") == []
    assert reader.rest == b"data: hal"
    assert shapes(reader.feed(b"f\n\n")) == [("", b"half")]


def test_lines_may_end_as_windows_ends_them() -> None:
    reader = EventReader()

    events = [*reader.feed(b"data: a\r\n\r"), *reader.feed(b"\ndata: b\r\n\r\n")]

    assert [event.data for event in events] == [b"a", b"b"]


def test_a_comment_is_a_sign_of_life_and_no_more() -> None:
    ping, other = EventReader().feed(b":\n\ndata: x\n\n")

    assert ping.comment
    assert not other.comment
