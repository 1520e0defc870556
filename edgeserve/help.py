"""Command help: lays out `--help`, and suggests a command for a mistyped one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import click

WIDTH = 76
"""Width of a line: it fits 80 columns with click's margin."""


def examples(*pairs: tuple[str, str]) -> str:
    """Return pairs (command, what it does) as an epilog that click does not rewrap."""
    width = max(len(command) for command, _ in pairs)
    beside = max(width + 3 + len(does) for _, does in pairs) <= WIDTH
    lines = list[str]()
    for command, does in pairs:
        if beside:
            lines.append(f"  {command:<{width}}   {does}".rstrip())
        else:
            lines += [f"  {command}", f"      {does}"]
    return "\n".join(("\b", "Examples:", *lines))


F = TypeVar("F", bound=Callable[..., Any])

OPTIONS, COMMANDS = "Options", "Commands"
"""Headings of what has none of its own."""

ALL = "edgeserve.help_all"
"""Key in a context's `meta`: rare options are shown too."""


class HeadedOption(click.Option):
    """An option under a heading of its page; only in `--help-all` if `rare`."""

    def __init__(
        self, *args: Any, heading: str, rare: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading
        self.rare = rare


def under(heading: str) -> Callable[..., Callable[[F], F]]:
    """Return `click.option` for options under a heading."""
    return partial(click.option, cls=HeadedOption, heading=heading)


class Command(click.Command):
    """A command whose options are shown under their headings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, or say which number would be right."""
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            kind = error.param.type if error.param else None
            if isinstance(kind, RANGES) and "is not a valid" in error.message:
                value = error.message.partition(" is not a valid")[0]
                right = f"{value} must be {_numbers(kind)}."
                raise click.BadParameter(right, error.ctx, error.param) from error
            raise

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the options under their headings, those without one first."""
        sections: dict[str, list[tuple[str, str]]] = {OPTIONS: []}
        for each in self.get_params(ctx):
            heading = each.heading if isinstance(each, HeadedOption) else OPTIONS
            record = each.get_help_record(ctx)
            if record and (ALL in ctx.meta or not _is_rare(each)):
                sections.setdefault(heading, []).append(record)
        _write(formatter, sections)


RANGES = (click.IntRange, click.FloatRange)


def _numbers(kind: click.IntRange | click.FloatRange) -> str:
    """Say which numbers an option takes."""
    what = "a whole number" if isinstance(kind, click.IntRange) else "a number"
    least, most = kind.min, kind.max
    if least is None:
        return what if most is None else f"{what} of at most {most}"
    return f"{what} from {least}" + (f" to {most}" if most is not None else "")


def _write(
    formatter: click.HelpFormatter, sections: Mapping[str, list[tuple[str, str]]]
) -> None:
    """Write what stands under each heading, and no heading without anything."""
    for heading, rows in sections.items():
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)


class SettingsCommand(Command):
    """A command with so many options that some are shown by `--help-all` only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_help_all,
                help="Show the rare options too.",
            )
        )

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the options, and say how many are not shown."""
        super().format_options(ctx, formatter)
        if ALL not in ctx.meta:
            hidden = sum(map(_is_rare, self.params))
            formatter.write_paragraph()
            formatter.write_text(f"{hidden} more with --help-all.")


def _is_rare(option: click.Parameter) -> bool:
    return isinstance(option, HeadedOption) and option.rare


def _help_all(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


class Group(Command, click.Group):
    """Sub-commands under headings, each with its first sentence.

    `headings` has the names under each heading, both in the order of first use. Without
    it, all stand under one heading in the order they were added.
    """

    command_class = Command
    group_class = type

    def __init__(
        self,
        *args: Any,
        headings: Mapping[str, Collection[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.headings = headings or {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """List them in the order of the headings."""
        named = [name for names in self.headings.values() for name in names]
        return list(dict.fromkeys((*named, *self.commands)))

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the options, then the sub-commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """List them; unlike click, do not shorten the texts, and align all."""
        heading_of = {
            name: heading for heading, names in self.headings.items() for name in names
        }
        names = self.list_commands(ctx)
        width = max(map(len, names), default=0)
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            row = name.ljust(width), self.line(ctx, name)
            sections.setdefault(heading_of.get(name, COMMANDS), []).append(row)
        _write(formatter, sections)

    def line(self, ctx: click.Context, name: str) -> str:
        """Return the line of a sub-command in the list."""
        command = self.get_command(ctx, name)
        return first_sentence(command.help or "") if command else ""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command, or suggest one."""
        if args and not args[0].startswith("-") and not self.get_command(ctx, args[0]):
            raise click.UsageError(self._no_command(ctx, args[0]), ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, or say to which sub-command an option belongs."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name.lower() == "-v" and self._takes(ctx, "--version"):
                meant = f"{error.format_message()} Did you mean '--version'?"
                raise click.UsageError(meant, ctx) from error
            owners = [
                path
                for path, command in leaves(self, ctx)
                if any(error.option_name in each.opts for each in command.params)
            ]
            owners = [path for path in owners if path[:-1] not in owners]
            if not owners:
                raise
            raise click.UsageError(
                f"{error.option_name} belongs after its command:"
                f" {_either(_path(ctx, *path) for path in owners)}",
                ctx,
            ) from error

    def _takes(self, ctx: click.Context, option: str) -> bool:
        return any(option in each.opts for each in self.get_params(ctx))

    def _no_command(self, ctx: click.Context, name: str) -> str:
        """Suggest an option, a similar name, or a sub-command of a sub-command."""
        if self._takes(ctx, option := f"--{name}"):
            return f"No such command {name!r}. Did you mean {_path(ctx, option)}?"
        near = difflib.get_close_matches(name, self.list_commands(ctx), n=2)
        paths = [_path(ctx, each) for each in near] or [
            _path(ctx, *path) for path, _ in leaves(self, ctx) if path[-1] == name
        ]
        hint = f" Did you mean {_either(paths)}?" if paths else ""
        return f"No such command {name!r}.{hint}"


def leaves(
    group: click.Group, ctx: click.Context, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command under a group, with its path.

    Groups are left out, except those that are commands themselves.
    """
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield (*path, name), command
            yield from leaves(command, ctx, (*path, name))
        elif command is not None:
            yield (*path, name), command


def _path(ctx: click.Context, *names: str) -> str:
    return f"`{' '.join((ctx.command_path, *names))}`"


def _either(paths: Iterator[str] | list[str]) -> str:
    *others, last = paths
    return f"{', '.join(others)} or {last}" if others else last


def first_sentence(text: str) -> str:
    """Return the first sentence of a command's help."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph, maxsplit=1)[0]
