"""What changes much says how much, and asks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def yes_option(command: Command) -> Command:
    """``--yes``, for who is sure."""
    return click.option("--yes", is_flag=True, help="Don't ask.")(command)


def make_sure(what: str, *, yes: bool) -> None:
    """Ask; without somebody to ask, demand ``--yes``."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {what}; say --yes to do it")
    click.confirm(f"This will {what}. Go on?", abort=True, err=True)
