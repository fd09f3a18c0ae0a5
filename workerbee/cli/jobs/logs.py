"""``workerbee jobs logs``: what a job has printed, and with ``-f`` what it prints."""

from __future__ import annotations

import sys

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.jobs.rows import text
from workerbee.cli.terminal import json_option, local
from workerbee.cli.which import JobId, jobs_called


@click.command("logs")
@click.argument("jobset_id", metavar="JOBSET")
@click.argument("job", type=JobId(), metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on with what it prints, until it has ended.")
@dsn_option
@json_option
def logs(jobset_id: str, job: int, dsn: str | None, *, follow: bool, as_json: bool) -> None:
    """Print what a job of JOBSET has printed, oldest execution first: stdout on stdout, stderr on stderr."""
    with reading(dsn) as reader:
        _, jobset = found(reader, jobset_id)
        [row] = jobs_called(jobset, [job])
        if follow:
            from workerbee.following import Follower  # noqa: PLC0415 (few need it)

            for piece in Follower(reader.connection, jobset.jobset, job).pieces():
                _show(piece.stream, piece.text, as_json=as_json)
            return
        texts = jobset.texts(job)[::-1]
    if as_json:
        terminal.lines(map(text, texts))
        return
    for execution in texts:
        if len(texts) > 1:
            click.echo(f"-- run {execution.run}, until {local(execution.at)}, bee {execution.bee[:8]}", err=True)
        for stream in (1, 2):
            _show(stream, execution.printed.after(stream, 0), as_json=False)
    if row.status == "running":
        click.echo(f"job {job} runs: -f follows what it prints", err=True)
    elif not texts:
        click.echo(f"job {job} is {row.status}, and has printed nothing", err=True)


def _show(stream: int, text: bytes, *, as_json: bool) -> None:
    """Write what a job has printed, as it is but to a terminal."""
    if as_json:
        terminal.lines([{"stream": ("stdout", "stderr")[stream - 1], "text": text.decode(errors="replace")}])
    else:
        file = (sys.stdout, sys.stderr)[stream - 1]
        if file.isatty():
            file.write(terminal.printable(text.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")))
        else:
            file.flush()
            file.buffer.write(text)
    sys.stdout.flush()
