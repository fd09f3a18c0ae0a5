"""The command ``workerbee``. Each of its commands has a module here that is named as the command."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from workerbee import __version__
from workerbee.cli.commands import Commands

SECTIONS = {
    "Look": {
        "status": "Say how JOBSET goes, or list all jobsets.",
        "top": "Show live how JOBSET goes (also: workerbee JOBSET).",
        "dashboard": "Show all of it in a browser.",
        "jobs": "List or find jobs; show one, or what it prints.",
        "failures": "Say why jobs of JOBSET fail, by cause.",
        "results": "Write what the jobs of JOBSET returned.",
        "bees": "List the bees that serve JOBSET, or all bees.",
        "report": "Write how JOBSET went as one HTML file.",
        "wait": "Wait until all jobs of JOBSET have ended.",
    },
    "Steer": {
        "retry": "Run the failed jobs of JOBSET once more.",
        "cancel": "Cancel what waits and what runs in JOBSET.",
        "pause": "Have no more jobs of JOBSET begun.",
        "resume": "Have the jobs of JOBSET begun again.",
        "drop": "Delete jobsets with all their jobs and results.",
    },
    "Run": {
        "bee": "Claim and run jobs: the same as python -m workerbee.bee.",
        "demo": "Search for a classifier's parameters, as a first example.",
    },
    "Set up": {
        "doctor": "Say whether this machine can work with the server.",
        "server": "Say what the embedded server keeps, and stop it.",
        "key": "Show the key that signs, and go on where it is lost.",
        "schema": "Show, install or print the tables of all jobsets.",
        "psql": "Open psql on the server that is meant.",
        "completion": "Print what makes a shell complete these commands.",
        "help": "Print a page of the documentation.",
    },
}

#: What users of other programs type first.
MEANT = {
    "run": "bee",
    "start": "bee",
    "worker": "bee",
    "ls": "status",
    "list": "status",
    "info": "status",
    "ps": "bees",
    "watch": "top",
    "show": "jobs show",
    "log": "jobs logs",
    "logs": "jobs logs",
    "errors": "failures",
    "rerun": "retry",
    "restart": "retry",
    "kill": "cancel",
    "stop": "cancel",
    "rm": "drop",
    "delete": "drop",
    "remove": "drop",
    "check": "doctor",
    "export": "results",
}
#: Where to look for what is missing.
LISTED = {"JOBSET": "workerbee status lists the jobsets", "ID": "workerbee jobs list JOBSET lists the jobs"}


class _Main(Commands):
    """Commands whose users see Workerbee's errors as one sentence, with the exit status that a bee has."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # whoever reads has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            context.exit(0)
        except KeyboardInterrupt:
            context.exit(130)
        except click.MissingParameter as error:
            raise _named(error) from None
        except Exception as error:
            from workerbee.errors import WorkerbeeError  # noqa: PLC0415 (loads what --help does without)

            if not isinstance(error, (WorkerbeeError, OSError)) and not type(error).__module__.startswith("psycopg2"):
                raise
            is_away = isinstance(error, WorkerbeeError) and isinstance(error, OSError)
            click.echo(f"workerbee: {_said(error, is_away=is_away)}", err=True)
            context.exit(69 if is_away else 2)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parse what is typed ahead of the command, where options of a command are a likely mistake."""
        try:
            return super().parse_args(context, args)
        except click.NoSuchOption as error:
            name = next((arg for arg in args if arg in self.list_commands(context)), "COMMAND")
            return context.fail(f"{error.option_name} goes behind the command: workerbee {name} {error.option_name} …")

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        """``workerbee JOBSET`` is ``workerbee top JOBSET``; but what is almost a command is a mistake."""
        name, commands = args[0], self.list_commands(context)
        if name in commands or name.startswith("-") or context.resilient_parsing:  # a shell asks for completions
            return super().resolve_command(context, args)
        from difflib import get_close_matches  # noqa: PLC0415 (few need it)

        near = [MEANT[name]] if name in MEANT else get_close_matches(name, commands, 1, 0.75) if name.isalpha() else []
        if near:
            context.fail(f"there is no command {name!r}; did you mean {near[0]!r}? A jobset: workerbee top {name}")
        if args[1:2] and args[1] in commands:
            context.fail(f"the command comes first: workerbee {args[1]} {name}")
        if len(args) > 1 and not args[1].startswith("-"):
            context.fail(f"there is no command {name!r}; workerbee --help lists them")
        return "top", self.get_command(context, "top"), args


def _said(error: Exception, *, is_away: bool) -> str:
    """Say what has gone wrong, and what helps, in one line."""
    from workerbee.errors import WorkerbeeError  # noqa: PLC0415 (loads what --help does without)

    said = " ".join(str(error).split())
    if isinstance(error, WorkerbeeError):
        return said + "; workerbee doctor says where it fails" * is_away
    if isinstance(error, OSError):
        return f"{error.filename or 'stdout'} can't be written or read: {error.strerror or said}"
    if error.pgcode == "42501":  # type: ignore[attr-defined]  # a psycopg2.Error
        return f"this user has no right to do that ({said}): workerbee help sharing has the rights as SQL"
    from workerbee.reading import is_dropped  # noqa: PLC0415

    if is_dropped(error):
        return "the jobset was dropped while it was in use; workerbee status lists those that are there"
    return f"PostgreSQL refuses what is needed: {said}"


def _named(error: click.MissingParameter) -> click.UsageError:
    """Name what is missing, with what to type."""
    if error.ctx is None or error.param is None:
        return error
    usage = " ".join((error.ctx.command_path, *error.ctx.command.collect_usage_pieces(error.ctx)))
    listed = LISTED.get(error.param.make_metavar(error.ctx), "")
    name = error.param.get_error_hint(error.ctx)
    return click.UsageError(f"{name} is missing: {usage}" + (f"; {listed}" if listed else ""), error.ctx)


@click.group(cls=_Main, package=__name__, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="workerbee")
def main() -> None:
    """Run many independent jobs on whatever machines are at hand, through PostgreSQL."""
