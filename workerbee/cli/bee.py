"""``workerbee bee``: the bee, under another name."""

from __future__ import annotations

import os
import sys

import click


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bee(arguments: tuple[str, ...]) -> None:
    """Claim and run jobs: the same as python -m workerbee.bee."""
    # In the place of this process, so that signals and exit status are the bee's own.
    os.execv(sys.executable, [sys.executable, "-m", "workerbee.bee", *arguments])  # noqa: S606
