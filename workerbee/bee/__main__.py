"""``python -m workerbee.bee``: a process that claims and runs jobs. Only a command; nothing imports it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType
from typing import Any

import click

from workerbee import program, resources, server
from workerbee.bee.crew import Crew
from workerbee.bee.printer import Printer
from workerbee.bee.supervisor import Supervisor
from workerbee.errors import WorkerbeeError
from workerbee.logs import print_to_stdout
from workerbee.orders import ExitStatus, Orders
from workerbee.program import Program
from workerbee.script import Script
from workerbee.wire import codec
from workerbee.wire.job import valid_id


def _names(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not all(name.partition(":")):
            raise click.BadParameter(f"{name!r} is not of the form MODULE:NAME")
    return names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("jobset_id", required=False)
@click.option(
    "--dsn",
    help="libpq connection string; else PGHOST, PGSERVICE …, else the embedded server. Passwords go into ~/.pgpass.",
)
@click.option("--workers", type=click.IntRange(1), default=None, help="Runner processes (default: one a core).")
@click.option(
    "--function",
    "functions",
    multiple=True,
    metavar="MODULE:NAME",
    callback=_names,
    help="Run the jobs that bring no function with this one, and those that name it and have JSON arguments. "
    "May be repeated: the first one is for jobs that bring none.",
)
@click.option("--busywait", is_flag=True, help="Wait for more work for ever instead of ending when all jobs are done.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=600.0,
    show_default=True,
    help="Seconds to wait for the jobset and its first job.",
)
@click.option("--lifetime", type=click.FloatRange(0), help="Seconds after which to drain and exit with status 75.")
@click.option("--max-jobs", type=click.IntRange(1), help="Jobs after which to drain and exit with status 75.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds that running jobs get at a SIGTERM.",
)
@click.option(
    "--max-payload",
    type=click.IntRange(1),
    default=codec.MAX_BYTES,
    show_default=True,
    help="Bytes of a result; a job with a larger one fails.",
)
@click.option("--prefix-output", is_flag=True, help="Begin each line that a job prints with its number.")
@click.option(
    "--max-n-retry-attempts",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Attempts at a job that raises JobFailedError and brings no limit of its own, as an executor's do.",
)
@click.option(
    "--reconnect-timeout",
    type=click.FloatRange(0),
    default=3600.0,
    show_default=True,
    help="Seconds of outage after which to exit with status 69.",
)
def main(**options: Any) -> None:
    """Claim and run the jobs of JOBSET_ID until all are done, or those of every jobset until told to end.

    SIGTERM or SIGINT: claim nothing more, finish what runs within the grace period; a second one gives
    it all back at once. SIGHUP (but under nohup), SIGUSR1, SIGUSR2 and SIGXCPU, by which batch systems warn: the same,
    once. Exit status: 0 nothing left to do, or stopped; 2 usage; 69 no database; 70 no such
    jobset, or it can't go on, or it ran nothing because here is no key file, another key, or not what the functions
    are imported from; 75 lifetime or number of jobs reached.
    """
    program.occupy_standard_descriptors(inheritable=True)
    program.reset_signals()
    program.keep_freed_memory()
    printer = Printer()
    sys.stdout = printer.stream(1)
    try:
        status = _run(printer, **options)
    except WorkerbeeError as error:
        click.echo(f"workerbee: {error}", err=True)
        status = ExitStatus.NO_DATABASE if isinstance(error, OSError) else ExitStatus.USAGE
    printer.finish()
    os._exit(status)  # threads that are left over must not keep a batch system's slot busy


def _run(
    printer: Printer,
    dsn: str | None,
    workers: int | None,
    functions: tuple[str, ...],
    jobset_id: str | None,
    **options: Any,
) -> int:
    log = logging.getLogger("workerbee")
    print_to_stdout(log)
    if jobset_id is not None:
        valid_id(jobset_id)
    with server.of_command(dsn) as found:
        orders = Orders(
            found.dsn,
            jobset_id=jobset_id,
            workers=resources.affordable(workers or resources.cores(), log),
            functions=functions,
            flags=tuple(program.interpreter_flags()),
            **(options | {"busywait": options["busywait"] or jobset_id is None}),
        )
        # The arguments may hold a password: jobs don't get to see them.
        here = Program.here()._replace(argv=sys.argv[:1], script=Script(None, None)).dumps()
        crew = Crew(orders, program=here, forward=printer.put)
        supervisor = Supervisor(orders, crew, log, program=lambda: here)
        _on_signals(supervisor)
        return supervisor.run()


def _on_signals(supervisor: Supervisor) -> None:
    warned = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal warned
        warned = True
        supervisor.drain()

    def warn(number: int, frame: FrameType | None) -> None:
        if not warned:  # SIGXCPU is repeated every second, and only the first one counts
            stop(number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
        if signal.getsignal(number) != signal.SIG_IGN:  # under nohup it stays ignored
            signal.signal(number, warn)


if __name__ == "__main__":
    main()
