import sys
from pathlib import Path

import pytest

from edgeserve.models.facts import read
from quantize.imatrix import CannotCalibrate, importance_matrix
from tests.fakes.gguf import a_model

TOOL = """#!{python}
import sys
from pathlib import Path
import numpy as np
from tests.fakes.gguf import an_imatrix
arguments = sys.argv[1:]
text = Path(arguments[arguments.index("-f") + 1]).read_text()
if len(text) < 10:
    sys.exit("error: you need at least 1024 tokens")
one = np.ones((1, 256), np.float32), np.ones((1, 1), np.float32)
an_imatrix(Path(arguments[arguments.index("-o") + 1]), {{"w": one}})
"""


@pytest.fixture(autouse=True)
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A llama-imatrix that writes one entry, or refuses a short text."""
    path = tmp_path / "llama-imatrix"
    path.write_text(TOOL.format(python=sys.executable))
    path.chmod(0o755)
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setattr("quantize.imatrix.native_tool", lambda _name: path)
    return path


def test_a_text_becomes_a_matrix_once(tmp_path: Path, tool: Path) -> None:
    facts = read(a_model(tmp_path / "m.F16.gguf"))
    text = tmp_path / "talk.txt"
    text.write_text("long enough for this")

    made = importance_matrix(facts, text, tmp_path, 1)
    tool.unlink()

    assert made.name.startswith("m.talk-")
    assert importance_matrix(facts, text, tmp_path, 1) == made
    text.write_text("another text is another matrix")
    with pytest.raises(CannotCalibrate, match="No such file"):
        importance_matrix(facts, text, tmp_path, 1)


def test_a_refusal_of_the_tool_is_passed_on_and_leaves_nothing(tmp_path: Path) -> None:
    facts = read(a_model(tmp_path / "m.F16.gguf"))
    text = tmp_path / "talk.txt"
    text.write_text("short")
    before = sorted(tmp_path.iterdir())

    with pytest.raises(CannotCalibrate, match="at least 1024 tokens"):
        importance_matrix(facts, text, tmp_path, 1)

    assert sorted(tmp_path.iterdir()) == before
