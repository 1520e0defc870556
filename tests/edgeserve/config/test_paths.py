"""Folders of a user that has no home, as in a container with a user id of its own."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import NoReturn

import pytest

from edgeserve.cli.service.here import manager_for
from edgeserve.config.paths import OURS, config_dir, models_dir, state_dir
from edgeserve.errors import CommandError, SettingsError

XDG = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")


@pytest.fixture(autouse=True)
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", *OURS, *XDG):
        monkeypatch.delenv(variable, raising=False)

    def nobody(_uid: int) -> NoReturn:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)


@pytest.mark.parametrize("place", [config_dir, state_dir, models_dir])
def test_without_a_home_it_says_what_to_set(place: object) -> None:
    assert callable(place)

    with pytest.raises(SettingsError, match="set HOME, or EDGESERVE_CONFIG_DIR"):
        place()


def test_services_of_a_user_without_a_home_are_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "linux")

    with pytest.raises(CommandError, match="no home folder for the services"):
        manager_for("user")


def test_folders_that_are_named_need_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in OURS:
        monkeypatch.setenv(variable, str(tmp_path / variable))

    found = [config_dir(), state_dir(), models_dir()]

    assert found == [tmp_path / variable for variable in OURS]
