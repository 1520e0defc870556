"""`edgeserve node tune`: measure a model's settings here, and keep the best."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from edgeserve.config import NodeSettings, resolve
from edgeserve.examples import examples
from edgeserve.flags import settings_options
from edgeserve.help import SettingsCommand
from edgeserve.strays import warn_of_strays


@click.command(
    cls=SettingsCommand,
    epilog=examples(
        ("edgeserve node tune smollm2-135m-instruct", "three minutes or so"),
        ("edgeserve node tune my.gguf --seconds 600", "a large model needs longer"),
        ("edgeserve node tune my.gguf --slots 4", "leave the slots as they are"),
    ),
)
@click.argument("model")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=180.0,
    show_default=True,
    help="How long to measure, roughly.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_options(NodeSettings, aside=("Network", "Who may ask"))
def tune(
    model: str, seconds: float, as_json: bool, config_file: Path | None, **flags: Any
) -> None:
    """Measure settings on this machine, and keep the better ones.

    Tries slots, threads, batch sizes and more. Runs the engine again and again, on
    loopback, for one stream and for many; leave the machine alone meanwhile. The next
    `edgeserve node start` uses the result, where it still fits in memory and no setting
    says otherwise. It is never worse than the untuned settings: those win ties.
    """
    flags["models"] = (model,)
    warn_of_strays()
    settings = resolve(NodeSettings, file=config_file, flags=flags).settings

    from node.tune.run import tuned
    from node.tune.show import lines, to_json, watching
    from quantize.interrupt import interruptible

    with interruptible(), watching(seconds) as watch:
        results = asyncio.run(tuned(settings, seconds, watch))
    if as_json:
        click.echo(to_json(results))
        return
    for line in lines(results):
        click.echo(line)
