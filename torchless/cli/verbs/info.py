"""``torchless info``: this installation and this machine."""

from __future__ import annotations

import json

import click

from torchless.cli.options import Option, Verb, with_options
from torchless.cli.terminal import listing

__all__ = ["command"]

_HELP = """Print versions, processor, memory, and what torchless found in its folders.

Backends, models, formats and verbs are found by file name; this lists them. Worth adding to every report
of a fault.
"""


@click.command("info", cls=Verb, help=_HELP, short_help="Print versions, machine, and what was found.")
@with_options([Option("--json", "as_json", is_flag=True, help="Print JSON.")])
def command(as_json: bool) -> None:
    from torchless.cli.machine_report import machine_report, report_blocks

    report = machine_report()
    if as_json:
        print(json.dumps(report, indent=1))
        return
    print("\n\n".join("\n".join(listing(topic, items)) for topic, items in report_blocks(report)))
