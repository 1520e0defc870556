"""What a page tells a reader to do is read as it is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.page import Commands, Settings, UnclearPage, missing, steps
from tests.docs.table import BACKGROUND, NOT_HERE, PROGRAMS
from tests.docs.test_pages import DOCS, PAGES

EXAMPLE = """
On `nuc`, serve:

```sh
edgeserve pull
edgeserve up --lan  # stays
```

```text
Serving at http://192.168.1.20:8080
…
```

Then, in `~/ask.py` on `laptop`:

```python
print(1)
```

```sh
python3 ask.py
```
"""


def test_the_paragraph_before_a_block_says_where_it_belongs() -> None:
    serve, settings, ask = steps(EXAMPLE)

    assert isinstance(serve, Commands)
    assert (serve.machine, serve.last) == ("nuc", "edgeserve up --lan")
    assert serve.shown == ("Serving at http://192.168.1.20:8080", "…")
    assert settings == Settings("laptop", "~/ask.py", "print(1)\n")
    assert ask == Commands("laptop", "python3 ask.py\n")


@pytest.mark.parametrize(
    "unclear",
    [
        "```sh\nedgeserve up\n```\n",
        "On `nuc`:\n\n```toml\nslots = 1\n```\n",
        "On `nuc`:\n\n```text\nserves\n```\n",
    ],
    ids=["no machine", "no file", "no command"],
)
def test_a_block_that_belongs_nowhere_is_refused(unclear: str) -> None:
    with pytest.raises(UnclearPage):
        steps(unclear)


def test_what_is_shown_may_have_other_numbers_but_not_other_words_or_order() -> None:
    said = "pi   joined (2 slots)\nat http://10.0.0.1:80, 0.4 GiB\n"

    assert missing(said, ("pi joined (4 slots)", "at http://nuc:80")) == [
        "at http://nuc:80"
    ]
    assert missing(said, ("pi joined", "… http://192.168.1.20:8080, 12 GiB")) == []
    assert missing(said, ("pi joined (0 slots)",)) == ["pi joined (0 slots)"]
    assert missing("0 of 10 cached", ("5 of 31 cached",)) == ["5 of 31 cached"]
    assert missing("0 of 10 cached", ("0 of 31 cached",)) == []
    assert missing(said, ("at http://10.0.0.1", "pi joined")) == ["pi joined"]
    assert missing(said, ("at http://10.0.0.1", "…", "pi joined")) == []
    assert missing("on eth0", ("on eth0",)) == []
    assert missing(said, ("pi … (2 cores)",)) == ["pi … (2 cores)"]


@pytest.mark.parametrize("name", PAGES)
def test_only_the_last_command_of_a_block_goes_on(name: str) -> None:
    """What came after it would never run."""
    for step in steps((DOCS / f"{name}.md").read_text()):
        if isinstance(step, Commands):
            lines = step.script.strip().splitlines()
            assert not any(line.startswith(BACKGROUND) for line in lines[:-1])


def test_every_reason_for_a_stand_in_is_still_needed() -> None:
    shown = "\n".join(path.read_text() for path in Path(DOCS).glob("*.md"))

    assert [each for each in (*NOT_HERE, *PROGRAMS) if f"\n{each}" not in shown] == []
