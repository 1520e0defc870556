"""What `make check-debian` reads from the README and from what `up` prints."""

from __future__ import annotations

import json

import pytest

from edgeserve.cli.up.welcome import Welcome
from tests.rootfs.steps import content, curl_line, packages


def test_the_readme_prepares_a_bare_machine_with_one_line() -> None:
    assert packages().startswith("apt-get update && apt-get install -y ")
    assert {"git", "make", "curl", "python3-venv"} <= set(packages().split())


def test_the_line_that_up_prints_is_found() -> None:
    model = {"id": "small", "abilities": ["chat"]}
    welcome = Welcome(url="http://127.0.0.1:8080", models=[model], command="edgeserve")

    assert curl_line(welcome.text()) == welcome.curl()


def test_an_empty_answer_is_a_failure() -> None:
    answer = json.dumps({"choices": [{"message": {"content": ""}}]})

    with pytest.raises(RuntimeError, match="nothing was answered"):
        content(answer)
