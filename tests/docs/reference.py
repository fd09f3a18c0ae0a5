"""The reference: what of it comes from the code, and what is compared. ``python -m tests.docs.reference`` writes it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import click

import workerbee
import workerbee.joblib
from tests.benchmarks.readme import fill
from tests.docs.pages import ROOT
from workerbee import cli, errors
from workerbee.bee.__main__ import main as bee
from workerbee.client.futures import JobFuture
from workerbee.handle import Handle
from workerbee.reading import CauseRow, JobRow
from workerbee.standing import Status
from workerbee.store.catalogue import Counts
from workerbee.store.seen import Progress

PAGE = ROOT / "docs" / "reference.md"
#: The callables whose parameters have a table, by its heading.
TABLES = {
    "WorkerbeeExecutor": workerbee.WorkerbeeExecutor,
    "with_options": workerbee.WorkerbeeExecutor.with_options,
    "map": workerbee.WorkerbeeExecutor.map,
    "results": workerbee.WorkerbeeExecutor.results,
    "JobSet": workerbee.JobSet,
    "JobSet.run": workerbee.JobSet.run,
    "open": workerbee.open,
    "joblib": workerbee.joblib.WorkerbeeBackend.__init__,
}
#: What every caller knows is no option.
PLAIN = {"self", "fn", "iterables"}
#: The faces whose docstrings are shown, with the methods that they have of their own.
FACES = {
    "WorkerbeeExecutor": workerbee.WorkerbeeExecutor,
    "JobFuture": JobFuture,
    "open": Handle,
    "JobSet": workerbee.JobSet,
}
#: The rows and counts that methods give.
ROWS = (Status, Progress, Counts, JobRow, CauseRow)


def written() -> str:
    """The page with its sections that come from the code."""
    text = fill(PAGE.read_text("utf-8"), "commands", "\n".join(commands()))
    return fill(text, "python", "\n".join(docstrings()))


def parameters(face: Any, *, plain: set[str] = PLAIN) -> dict[str, str]:
    """The options of a callable, with their defaults as they are written."""
    found = inspect.signature(face).parameters.values()
    return {
        p.name: "" if p.default is p.empty else f"`{p.default!r}`"
        for p in found
        if p.name not in plain and p.kind is not p.VAR_KEYWORD
    }


def every_command(group: click.Group = cli.main, name: str = "workerbee") -> Iterator[tuple[str, click.Command]]:
    """All commands with their whole names; the bee's is the program itself."""
    context = click.Context(group)
    for child in group.list_commands(context):
        command = group.get_command(context, child)
        if isinstance(command, click.Group):
            yield from every_command(command, f"{name} {child}")
        elif command is not None:
            yield f"{name} {child}", bee if child == "bee" else command


def commands() -> Iterator[str]:
    """A section for each command: its usage, what it does, its options."""
    for name, command in every_command():
        context = click.Context(command, info_name=name)
        yield f"### {name}\n"
        yield f"`{' '.join(command.get_usage(context).removeprefix('Usage: ').split())}`\n"
        yield paragraph(inspect.cleandoc(command.help or ""))
        options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
        shown = [option for option in options if "--help" not in option.opts]
        if shown:
            yield "\n| option | default | |\n|---|---|---|"
            yield from (f"| {spelled(option)} | {default(option)} | {cell(option.help or '')} |" for option in shown)
        yield ""


def spelled(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} {cell(option.make_metavar(click.Context(click.Command('x'))))}"


def default(option: click.Option) -> str:
    value = option.default
    has_none = option.is_flag or value in (None, ()) or callable(value) or "UNSET" in repr(value).upper()
    machine = option.name == "workers"  # so many cores has this machine
    return "" if has_none or machine else f"`{value}`"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def docstrings() -> Iterator[str]:
    """What `help` says of each face and its methods, as paragraphs."""
    for title, cls in FACES.items():
        face = workerbee.open if title == "open" else cls
        yield f"### {title}{'(…)' if title != 'JobFuture' else ''}\n"
        yield f"{markdown(inspect.getdoc(face) or '')}\n"
        for name, method in sorted(inspect.getmembers(cls, inspect.isfunction)):
            if not name.startswith("_") and not is_plain(name, method):
                yield f"**`{name}{shortened(method)}`** {markdown(inspect.getdoc(method) or '')}\n"
    yield "### Rows and counts\n"
    for row in ROWS:
        derived = [name for name, value in vars(row).items() if isinstance(value, property)]
        also = f" Also {', '.join(f'`{name}`' for name in derived)}." if derived else ""
        yield f"**`{row.__name__}({', '.join(row._fields)})`** {markdown(inspect.getdoc(row) or '')}{also}\n"
    yield "### Errors\n"
    yield "All are imported from `workerbee.errors`, and some are also an instance of what is in parentheses.\n"
    _, _, tree = (errors.__doc__ or "").partition("::")
    yield f"```text\n{textwrap.dedent(tree.partition('Constructors')[0]).strip()}\n```\n"


def is_plain(name: str, method: Any) -> bool:
    """Whether it is the standard library's, or only for ourselves."""
    return not method.__module__.startswith("workerbee") or name in ("observe", "abandon", "begin", "resolve")


def shortened(method: Any) -> str:
    """The signature without annotations."""
    signature = inspect.signature(method)
    kept = [p.replace(annotation=p.empty) for name, p in signature.parameters.items() if name != "self"]
    return str(signature.replace(parameters=kept, return_annotation=signature.empty))


def markdown(text: str) -> str:
    """A docstring's paragraphs; names that are in double backticks there are so in single ones here."""
    return paragraph(re.sub(r"``([^`]+)``", r"`\1`", text))


def paragraph(text: str) -> str:
    """Lines joined, but for lists and code."""
    parts = re.split(r"\n\s*\n", text)
    return "\n\n".join(part if re.match(r"    |[-*] ", part) else " ".join(part.split()) for part in parts)


def variables() -> set[str]:
    """The variables of the environment that the code asks for and that are its own."""
    found = set()
    for file in (ROOT / "workerbee").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"\bWORKERBEE_[A-Z_]+\b", node.value))
    return found - {"WORKERBEE_COMPLETE"}


if __name__ == "__main__":
    PAGE.write_text(written(), "utf-8")
