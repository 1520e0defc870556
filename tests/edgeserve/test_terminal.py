import io
import sys

import pytest

from edgeserve.cli.main import main
from edgeserve.terminal import Entry, Table, for_terminal, print_table
from tests.fakes.terminal import Keyboard

ID = "req-64182fec6be76116"
VARIANT = "a-model-with-a-very-long-name-instruct-2507:UD-Q4_K_XL"
REASON = "costs more than the one that was chosen, by a few seconds"


def table(heads: str, *rows: Entry | list[str], room: int = 80) -> list[str]:
    entries = [each if isinstance(each, Entry) else Entry(each) for each in rows]
    made = Table(heads.split(), entries, room)
    return [*made.head(), *made.body()]


def test_a_row_that_fits_is_one_line() -> None:
    assert table("name state", ["pi", "up"], ["nuc", "suspect"]) == [
        "name  state",
        "pi    up",
        "nuc   suspect",
    ]


def test_columns_without_room_go_on_a_second_line_under_their_heads() -> None:
    row = [ID, "192.168.100.200", "answered"]

    assert table("request client outcome", row, room=40) == [
        "request               client",
        "  outcome",
        f"{ID}  192.168.100.200",
        "  answered",
    ]


def test_a_name_of_any_length_stays_whole_and_moves_what_follows_it() -> None:
    lines = table("model slots", [VARIANT, "4"], ["small:Q4_1", "2"], room=58)

    assert lines == [
        f"{'model':51}  slots",
        VARIANT,
        f"{'':51}  4",
        f"{'small:Q4_1':51}  2",
    ]


def test_a_cell_too_long_for_its_place_moves_left_before_it_moves_down() -> None:
    lines = table(
        "name value from", ["a" * 23, "b" * 26, "c" * 28], ["d", "e", "f" * 37]
    )

    assert lines[1:] == [
        f"{'a' * 23}  {'b' * 26}",
        " " * 52 + "c" * 28,
        f"d{'':24}e{'':17}{'f' * 37}",
    ]


def test_sentences_stand_below_their_row_and_are_wrapped() -> None:
    lines = table("name state", Entry(["pi", "up"], [REASON]), room=40)

    assert lines[2:] == [
        "  costs more than the one that was",
        "  chosen, by a few seconds",
    ]


@pytest.mark.parametrize("room", [40, 80, 120])
def test_nothing_is_wider_than_the_terminal(room: int) -> None:
    heads = "time request client node outcome waited first why"
    row = ["12:00:00", ID, "192.168.100.200", "pi", "answered", "0.1", "0.2", REASON]

    lines = table(heads, Entry(row, [REASON * 5]), room=room)

    assert max(map(len, lines)) <= room
    assert any(ID in line for line in lines)


def test_letters_of_two_columns_keep_the_columns_straight() -> None:
    assert table("name state", ["台所", "up"], ["kitchen", "up"])[1:] == [
        "台所     up",
        "kitchen  up",
    ]


def test_a_pipe_gets_eighty_columns_or_what_the_variable_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(("name", "why"), [Entry(("pi", "up"), [REASON * 3])])
    monkeypatch.setenv("COLUMNS", "60")
    print_table(("name", "why"), [Entry(("pi", "up"), [REASON * 3])])

    wide, narrow = capsys.readouterr().out.split("name")[1:]
    assert 60 < max(map(len, wide.splitlines())) <= 80
    assert max(map(len, narrow.splitlines())) <= 60


def test_sentences_break_between_words_on_a_terminal_and_nowhere_in_a_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    in_a_log = for_terminal(REASON)
    monkeypatch.setattr(sys, "stderr", Keyboard())
    on_a_terminal = for_terminal(f"{REASON}\nand a second line")

    assert in_a_log == REASON
    assert on_a_terminal.splitlines() == [
        "costs more than the one that was chosen,",
        "   by a few seconds",
        "and a second line",
    ]


def test_a_terminal_without_the_letter_shows_a_question_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    with pytest.raises(SystemExit):
        main(["--version"])
    print_table(("cost",), [("≥ 1.5",)])
    sys.stdout.flush()

    assert b"? 1.5" in raw.getvalue()
