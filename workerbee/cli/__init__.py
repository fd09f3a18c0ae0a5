"""The command ``workerbee``. Each of its commands has a module here, or is a program of its own."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from workerbee import __version__
from workerbee.cli.bees import bees
from workerbee.cli.change import cancel, pause, resume, retry
from workerbee.cli.demo import demo
from workerbee.cli.drop import drop
from workerbee.cli.jobs import failures, jobs
from workerbee.cli.key import key
from workerbee.cli.psql import completion, psql
from workerbee.cli.results import results
from workerbee.cli.schema import schema
from workerbee.cli.status import status
from workerbee.cli.top import top
from workerbee.cli.wait import wait


class _Commands(click.Group):
    """Commands whose users see Workerbee's errors as one sentence, with the exit status that a bee has."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # whoever reads has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            context.exit(0)
        except KeyboardInterrupt:
            context.exit(130)
        except Exception as error:
            from workerbee.errors import WorkerbeeError  # noqa: PLC0415 (loads what --help does without)

            if not isinstance(error, WorkerbeeError):
                raise
            click.echo(f"workerbee: {error}", err=True)
            context.exit(69 if isinstance(error, OSError) else 2)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        """``workerbee JOBSET`` is ``workerbee top JOBSET``; but what is almost a command is a mistake."""
        name = args[0]
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(context, args)
        from difflib import get_close_matches  # noqa: PLC0415 (few need it)

        if name.isalpha() and (near := get_close_matches(name, self.commands, 1, 0.75)):
            context.fail(f"there is no command {name!r}; did you mean {near[0]!r}? A jobset: workerbee top {name}")
        return "top", self.commands["top"], args


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="workerbee")
def main() -> None:
    """Run many independent jobs on whatever machines are at hand, through PostgreSQL."""


for command in (
    demo,
    status,
    top,
    bees,
    jobs,
    failures,
    results,
    wait,
    retry,
    cancel,
    pause,
    resume,
    drop,
    schema,
    key,
    psql,
    completion,
):
    main.add_command(command)


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bee(arguments: tuple[str, ...]) -> None:
    """Claim and run jobs: the same as python -m workerbee.bee."""
    # In the place of this process, so that signals and exit status are the bee's own.
    os.execv(sys.executable, [sys.executable, "-m", "workerbee.bee", *arguments])  # noqa: S606
