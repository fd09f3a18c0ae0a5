"""Which jobs a command means: the options that say so, and what is stored of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from workerbee.reading import JobRow, JobsetReader, Wanted

#: Functions that are named to who asks for another one.
SHOWN = 10

#: No job has a number of more digits.
ID_DIGITS = 18

Command = TypeVar("Command", bound=Callable[..., Any])


class JobId(click.ParamType):  # type: ignore[type-arg]  # only new versions of click have one
    """A job's number; what is none is answered by how the command is typed."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        """Read it. Raises BadParameter."""
        text = str(value)
        if text.isascii() and text.isdecimal() and len(text) <= ID_DIGITS and int(text):
            return int(text)
        pieces = [] if context is None else [context.command_path, *context.command.collect_usage_pieces(context)]
        listed = "workerbee jobs list JOBSET lists the jobs"
        return self.fail(f"{text!r} is no job's number: {' '.join(pieces)}; {listed}", param, context)


def jobs_called(jobset: JobsetReader, ids: Sequence[int]) -> list[JobRow]:
    """The jobs with these ids. Raises UsageError if there is none of one of them."""
    rows = jobset.jobs_of(list(ids))
    if missing := sorted(set(ids) - {row.id for row in rows}):
        name = jobset.jobset.name
        raise click.UsageError(
            f"there is no job {missing[0]} in {name}: workerbee jobs list {name} --after {missing[0] - 1}"
        )
    return rows


def statuses_option(*allowed: str) -> Callable[[Command], Command]:
    """``--status``, one of these or several with commas between."""

    def parsed(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
        statuses = None if value is None else tuple(value.lower().replace(" ", "").split(","))
        if unknown := set(statuses or ()) - set(allowed):
            raise click.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(allowed)}")
        return statuses

    text = f"Only what is {' or '.join(allowed)}; several with commas between."
    return click.option("--status", "statuses", callback=parsed, metavar="STATUS", help=text)


def which_options(command: Command) -> Command:
    """The options that say which jobs are meant."""
    command = click.option("--host", metavar="HOST", help="Only jobs that were on this host last.")(command)
    command = click.option("--function", metavar="MODULE:NAME", help="Only jobs of this function.")(command)
    text = "Only jobs that failed for this cause: a group of 'workerbee failures'."
    return click.option("--group", metavar="GROUP", help=text)(command)


def refuse_both(ids: tuple[int, ...], which: dict[str, str | None], statuses: tuple[str, ...] | None) -> None:
    given = [f"--{name}" for name, value in (which | {"status": statuses}).items() if value is not None]
    if ids and given:
        raise click.UsageError(f"give IDs or {given[0]}, not both")


def wanted_jobs(
    reader: JobsetReader,
    statuses: tuple[str, ...] | None,
    *,
    group: str | None,
    function: str | None,
    host: str | None,
) -> Wanted:
    """The jobs that the options mean."""
    from workerbee.reading import Wanted  # noqa: PLC0415 (loads the driver)

    if function is not None:
        _require_function(reader, function)
    return Wanted(statuses, function, group and _cause_called(reader, group), host)  # type: ignore[arg-type]


def _require_function(reader: JobsetReader, function: str) -> None:
    names = dict.fromkeys(row.name for row in reader.functions())
    if not any(function in (name, name.partition(":")[2]) for name in names):
        known = ", ".join(list(names)[-SHOWN:]) or "none"
        raise click.UsageError(f"{reader.jobset.name} has no jobs of {function!r}; its functions are {known}")


def _cause_called(reader: JobsetReader, group: str) -> bytes:
    try:
        return reader.cause_called(group)
    except ValueError as error:
        raise click.UsageError(f"{error}: workerbee failures {reader.jobset.name}") from None
