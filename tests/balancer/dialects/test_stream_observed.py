from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from balancer.dialects.chat import Chat
from balancer.dialects.messages import Messages
from balancer.dialects.stream import DialectStream
from balancer.dialects.timings import Timings, timings_in

PROGRESS = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}],'
PROGRESS += b'"prompt_progress":{"total":9,"cache":4,"processed":4,"time_ms":0}}\n\n'
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
LAST = b'data: {"choices":[],"timings":{"cache_n":4,"prompt_n":5,"prompt_ms":2.5,'
LAST += b'"predicted_n":2,"predicted_ms":7.0}}\n\ndata: [DONE]\n\n'


@dataclass
class RecordedCalls:
    """An observer that records its calls."""

    slot: int | None = None
    first_seconds: float | None = None
    calls: list[object] = field(default_factory=list[object])

    def progress(self, total: int, cached: int, processed: int) -> None:
        self.calls.append((total, cached, processed))

    def wrote(self) -> None:
        self.calls.append("wrote")

    def answered(self, timings: Timings | None) -> None:
        self.calls.append(timings)


def test_an_observer_gets_progress_then_the_first_token_then_the_timings() -> None:
    observer = RecordedCalls()
    reader = DialectStream(Chat, hides=True, observer=observer)

    out = b"".join(map(reader.feed, (PROGRESS, TOKEN, TOKEN, LAST)))
    observer.answered(reader.timings())

    assert out == TOKEN + TOKEN + LAST
    assert observer.calls == [(9, 4, 4), "wrote", Timings(4, 5, 2.5, 2, 7.0)]


def test_an_answer_that_does_not_stream_has_its_timings_too() -> None:
    observer = RecordedCalls()
    reader = DialectStream(Chat, observer=observer)

    reader.whole(LAST)
    observer.answered(reader.timings())

    assert observer.calls == [Timings(4, 5, 2.5, 2, 7.0)]


@pytest.mark.parametrize(
    "piece",
    [
        b"",
        b'{"timings":{}}',
        b'{"timings":{"cache_n":',
        b'{"timings":{"prompt_n":"x"}}',
    ],
)
def test_timings_that_make_no_sense_are_none(piece: bytes) -> None:
    assert timings_in(piece) is None


def test_progress_that_makes_no_sense_is_passed_over() -> None:
    observer = RecordedCalls()

    DialectStream(Chat, observer=observer).feed(
        b'data: {"prompt_progress":{"total":1}}\n\n'
    )

    assert observer.calls == []


START = b'event: message_start\ndata: {"type":"message_start","message":{"content":[],'
START += (
    b'"usage":{"cache_read_input_tokens":8,"input_tokens":2,"output_tokens":0}}}\n\n'
)
BLOCK = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
BLOCK += b'"delta":{"type":"text_delta","text":"say \\"usage\\":{"}}\n\n'
END = b'event: message_delta\ndata: {"type":"message_delta","delta":{},'
END += b'"usage":{"output_tokens":6}}\n\nevent: message_stop\ndata: {}\n\n'


@pytest.mark.parametrize("pieces", [(START, BLOCK, BLOCK, END), (START + BLOCK + END,)])
def test_a_message_without_timings_has_its_number_of_tokens(
    pieces: tuple[bytes, ...],
) -> None:
    observer = RecordedCalls()
    reader = DialectStream(Messages, observer=observer)

    for piece in pieces:
        reader.feed(piece)
    observer.answered(reader.timings())

    assert observer.calls == ["wrote", Timings(8, 2, 0.0, 6, 0.0)]


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ('"cache_read_input_tokens": 8, "input_tokens": 2', (8, 2)),
        ('"input_tokens": 10, "input_tokens_details": {"cached_tokens": 8}', (8, 2)),
        ('"input_tokens": 10', (0, 10)),
    ],
)
def test_a_whole_answer_without_timings_has_its_usage(
    usage: str, counted: tuple[int, int]
) -> None:
    observer = RecordedCalls()
    reader = DialectStream(Messages, observer=observer)

    reader.whole(b'{"content": [], "usage": {%b, "output_tokens": 6}}' % usage.encode())
    observer.answered(reader.timings())

    assert observer.calls == [Timings(*counted, 0.0, 6, 0.0)]


def test_an_answer_without_timings_and_usage_is_an_answer() -> None:
    observer = RecordedCalls()
    reader = DialectStream(Messages, observer=observer)

    reader.whole(b'{"content":[]}')
    observer.answered(reader.timings())

    assert observer.calls == [None]


@pytest.mark.parametrize("cut", range(1, 150, 7))
def test_usage_that_comes_in_two_pieces_is_counted(cut: int) -> None:
    start = b'data: {"type":"message_start","message":{"usage":{"input_tokens":2,'
    start += b'"cache_read_input_tokens":8,"output_tokens":0}}}\n\n'
    text = b'data: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n'
    end = b'data: {"type":"message_delta","usage":{"output_tokens":6}}\n\n'
    end += b'data: {"type":"message_stop"}\n\n'
    reader = DialectStream(Messages)

    for piece in (start[:cut], start[cut:], text, end[:cut], end[cut:]):
        reader.feed(piece)

    assert reader.timings() == Timings(8, 2, 0.0, 6, 0.0)
