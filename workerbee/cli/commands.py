"""A group of commands that loads each one when it is wanted: help needs their names and summaries alone."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class Subcommands(click.Group):
    """A group of commands; who types another one is told which there are."""

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        """Find the command."""
        name, commands = args[0], self.list_commands(context)
        if name in commands or name.startswith("-") or context.resilient_parsing:  # a shell asks for completions
            return super().resolve_command(context, args)
        return context.fail(
            f"there is no command {name!r}, there are {', '.join(commands)}{self.example(context, args)}"
        )

    def example(self, _context: click.Context, _args: list[str]) -> str:
        """Give what may have been meant, if anybody can guess it."""
        return ""


class Commands(Subcommands):
    """Its commands by section, each with its summary; ``package`` has a module for each, named as the command."""

    def __init__(self, *args: Any, package: str, sections: Mapping[str, Mapping[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._package = package
        self.sections = sections

    def list_commands(self, _: click.Context) -> list[str]:
        """The names, section by section."""
        return [name for section in self.sections.values() for name in section]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of this name; None if there is none."""
        if name not in self.list_commands(context):
            return None
        found: click.Command = getattr(import_module(f"{self._package}.{name}"), name)
        return found

    def example(self, context: click.Context, args: list[str]) -> str:
        """The first command is the likely one, where the command was forgotten."""
        return f": {context.command_path} {self.list_commands(context)[0]} {' '.join(args)}"

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and summaries, and load no command."""
        widest = max(len(name) for section in self.sections.values() for name in section)
        for title, section in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), summary) for name, summary in section.items()])
