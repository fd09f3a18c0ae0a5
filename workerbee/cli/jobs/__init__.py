"""``workerbee jobs``: single jobs. Each of its commands has a module here that is named as the command."""

from __future__ import annotations

import click

from workerbee.cli.commands import Commands

COMMANDS = {
    "list": "List the jobs of JOBSET by id.",
    "find": "Find jobs of JOBSET by their input, or by a part of it.",
    "show": "Show one job: its input and output, its attempts, its error.",
    "logs": "Print what one job has printed, or follow it (-f).",
    "stack": "Print where a running job is.",
}


@click.group(cls=Commands, package=__name__, sections={"Commands": COMMANDS})
def jobs() -> None:
    """List or find jobs; show one, or what it prints."""
