"""Folders of a user without a name and a home, as a container gives to a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edgeserve.config.paths import OURS, PLATFORMS
from tests.patience import PATIENCE

NAMELESS = """
import pwd, sys
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
from edgeserve.cli.main import main
main(sys.argv[1:])
"""


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    left_out = {"HOME", *OURS, *PLATFORMS}
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        [sys.executable, "-c", NAMELESS, *arguments],
        env={**env, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_a_user_without_a_home_needs_only_the_three_folders(tmp_path: Path) -> None:
    folders = dict.fromkeys(OURS, str(tmp_path))

    done = run("node", "start", "--help", **folders)

    assert done.returncode == 0, done.stderr
    assert f"[default:{tmp_path}]" in "".join(done.stdout.split())


def test_without_them_a_sentence_names_the_folder_that_is_missing() -> None:
    done = run("node", "start", "--help")

    assert done.returncode == 2
    assert done.stderr == (
        "edgeserve: this user has no home folder; set HOME, or EDGESERVE_STATE_DIR to a"
        " folder\n"
    )


def test_services_of_such_a_user_are_refused_in_a_sentence(tmp_path: Path) -> None:
    folders = dict.fromkeys(OURS, str(tmp_path))

    done = run("service", "install", "--user", "--dry-run", **folders)

    assert done.returncode != 0
    assert "no home folder for the services" in done.stderr
