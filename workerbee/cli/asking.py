"""Commands that change much say how much, and ask before they do it."""

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
    """Ask for confirmation; where there is nobody to ask, demand ``--yes``."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {what}; say --yes to do it")
    click.confirm(f"This will {what}. Go on?", abort=True, err=True)
