"""Every help page fits a terminal; a mistyped name gets a suggestion."""

import dataclasses

import click
import pytest

from edgeserve.cli.main import edgeserve as command
from edgeserve.config.options import COMMON, HEADINGS
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.help import Command, Group, HeadedOption, SettingsCommand, leaves
from tests.fakes.terminal import Terminal

LEAVES = dict(leaves(command, click.Context(command, info_name="edgeserve")))
GROUPS = {path[:-1] for path in LEAVES}
SETTINGS = [path for path in LEAVES if isinstance(LEAVES[path], SettingsCommand)]


@pytest.fixture(autouse=True)
def eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("path", sorted({*LEAVES, *GROUPS}), ids=" ".join)
def test_a_help_page_fits_in_eighty_columns(
    path: tuple[str, ...], edgeserve: Terminal
) -> None:
    seen = edgeserve(*path, "--help")

    assert seen.status == 0
    assert max(map(len, seen.out.splitlines())) <= 80


@pytest.mark.parametrize("path", sorted(GROUPS), ids=" ".join)
def test_a_group_lists_each_command_on_one_line_with_a_whole_sentence(
    path: tuple[str, ...], edgeserve: Terminal
) -> None:
    page = edgeserve(*path, "--help").out
    sections = dict(
        each.split(":\n", 1) for each in page.split("\n\n") if ":\n" in each
    )
    headings = tuple(group_at(path).headings) or ("Commands",)
    shown = [line for each in headings for line in sections[each].splitlines()]

    assert [line.split()[0] for line in shown] == list(
        dict.fromkeys(
            each[len(path)]
            for each in LEAVES
            if each[: len(path)] == path and len(each) > len(path)
        )
    )
    assert all(line.endswith(".") and not line.endswith("...") for line in shown)


def group_at(path: tuple[str, ...]) -> Group:
    found: click.Command | None = command
    for name in path:
        assert isinstance(found, Group)
        found = found.get_command(click.Context(found), name)
    assert isinstance(found, Group)
    return found


@pytest.mark.parametrize("path", sorted(GROUPS), ids=" ".join)
def test_each_command_of_a_long_group_is_under_exactly_one_heading(
    path: tuple[str, ...],
) -> None:
    group = group_at(path)
    commands = group.list_commands(click.Context(group))
    named = [name for names in group.headings.values() for name in names]

    assert sorted(named) == (sorted(commands) if named or len(commands) > 5 else [])


@pytest.mark.parametrize("path", sorted(set(LEAVES) - GROUPS), ids=" ".join)
def test_a_page_of_more_than_ten_options_has_them_under_headings(
    path: tuple[str, ...],
) -> None:
    found = LEAVES[path]
    options = [each for each in found.params if isinstance(each, click.Option)]
    plain = [each for each in options if not isinstance(each, HeadedOption)]

    assert isinstance(found, Command)
    assert len(options) <= 10 or len(plain) <= 6


def test_the_address_of_the_balancer_stands_below_what_a_command_is_about(
    edgeserve: Terminal,
) -> None:
    page = edgeserve("models", "load", "--help").out

    assert page.index("--drain") < page.index("\nBalancer:\n") < page.index("--url")


@pytest.mark.parametrize("path", SETTINGS, ids=" ".join)
def test_a_long_page_shows_the_usual_options_under_headings_and_all_if_asked(
    path: tuple[str, ...], edgeserve: Terminal
) -> None:
    usual, every = edgeserve(*path, "--help").out, edgeserve(*path, "--help-all").out

    assert len(usual.splitlines()) <= 60
    assert "more with --help-all" in usual
    for option in LEAVES[path].params:
        assert isinstance(option, click.Argument) or option.opts[-1] in every
    assert "\nNetwork:\n" in every
    assert "\nProcess:\n" in usual


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_no_page_has_more_options_than_one_can_take_in(path: tuple[str, ...]) -> None:
    found = LEAVES[path]

    assert len(found.params) <= 25 or isinstance(found, SettingsCommand)


def test_what_the_headings_name_are_settings_and_each_stands_once() -> None:
    shapes = (NodeSettings, BalancerSettings)
    fields = {each.name for shape in shapes for each in dataclasses.fields(shape)}
    named = [name for names in HEADINGS.values() for name in names]

    assert len(named) == len(set(named))
    assert set(named) - {"config_file"} <= fields
    assert set(named) >= COMMON


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("nodse", "`edgeserve nodes`"),
        ("modles", "`edgeserve models`"),
        ("balancr", "`edgeserve balancer`"),
        ("node strat", "`edgeserve node start`"),
        ("quantize plann m.gguf", "`edgeserve quantize plan`"),
        ("engine biuld", "`edgeserve engine build`"),
        ("start", "`edgeserve node start` or `edgeserve balancer start`"),
        ("node start --slot 3", "--slots"),
        ("balancer start --polcy x", "--policy"),
        ("chat --modle x hi", "--model"),
        ("--verison", "--version"),
        ("-v", "--version"),
        ("version", "`edgeserve --version`"),
        ("help", "`edgeserve --help`"),
        ("node help", "`edgeserve node --help`"),
        ("key new --nmae x", "--name"),
        ("node --slots 3", "`edgeserve node start`"),
        ("--url http://nuc:8080", "`edgeserve nodes`"),
        ("balancer start --policy predct", "did you mean 'predict'?"),
        ("pull smollm2-135m", "did you mean 'smollm2-135m-instruct'?"),
        ("quantize plan m.gguf --machine pi5-8", "did you mean 'pi5-8gb'?"),
        ("quantize run m.gguf --types Q4_KM", "did you mean 'Q4_K_M'?"),
    ],
)
def test_a_similar_name_is_suggested(
    typed: str, meant: str, edgeserve: Terminal
) -> None:
    seen = edgeserve(*typed.split())

    assert seen.status == 2
    assert meant in " ".join(seen.err.split())


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("up --port abc", "'abc' must be a whole number from 0 to 65535"),
        ("chat --max-tokens x", "'x' must be a whole number from 1."),
        ("token rotate --keep-hours x", "'x' must be a number from 0."),
    ],
)
def test_what_is_no_number_is_told_which_would_be_right(
    typed: str, right: str, edgeserve: Terminal
) -> None:
    seen = edgeserve(*typed.split())

    assert seen.status == 2
    assert right in seen.err


def test_a_dissimilar_name_gets_no_suggestion(edgeserve: Terminal) -> None:
    assert "mean" not in edgeserve("xyzzy").err
