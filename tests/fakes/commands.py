"""Hold a command line that documentation shows to the commands that there are."""

from __future__ import annotations

import shlex

import click

from edgeserve.cli.main import edgeserve


def problems(line: str) -> list[str]:
    """Return what is wrong with `edgeserve …`: unknown commands and flags."""
    program, *words = shlex.split(line, comments=True)
    if program != "edgeserve":
        return [f"{line!r} does not start with edgeserve"]
    command: click.Command = edgeserve
    context = click.Context(edgeserve)
    while isinstance(command, click.Group):
        alone = command.invoke_without_command
        if alone and (not words or words[0].startswith("-")):
            break
        if not words:
            return [f"{line!r} names no command"]
        name, *words = words
        found = command.get_command(context, name)
        if found is None:
            return [f"{line!r}: no command {name!r}"]
        command = found
    known = {
        flag
        for param in command.params
        for flag in (*param.opts, *param.secondary_opts)
    }
    known |= {"--help", "-h"}
    flags = [word.partition("=")[0] for word in words if word.startswith("-")]
    return [f"{line!r}: no flag {flag}" for flag in flags if flag not in known]
