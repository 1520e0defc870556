import io
import sys

import pytest

from edgeserve.cli import main
from edgeserve.columns import print_table

ID = "req-64182fec6be76116"
REASON = "costs more than the one that was chosen, by a few seconds"


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 40 columns."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")


@pytest.mark.usefixtures("narrow")
def test_an_id_is_never_folded_however_narrow_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    heads = ("request", "address", "why")

    print_table(heads, [(ID, "http://127.0.0.1:8090", REASON)])

    assert f"{ID}  http://127.0.0.1:8090  " in capsys.readouterr().out


@pytest.mark.usefixtures("narrow")
def test_long_texts_are_folded_where_that_makes_the_table_fit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("request", "why"), [(ID, REASON)])

    *_, first, second, _, _ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{ID}  costs")
    assert second.startswith(" " * len(ID))


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
