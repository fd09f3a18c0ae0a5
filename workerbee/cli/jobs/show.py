"""``workerbee jobs show``: all that is known of one job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading, stored
from workerbee.cli.jobs.rows import fields, text, whole
from workerbee.cli.terminal import json_option, local, moment, shortened
from workerbee.cli.which import JobId, jobs_called

if TYPE_CHECKING:
    from workerbee.reading import Event


@click.command("show")
@click.argument("jobset_id", metavar="JOBSET")
@click.argument("job", type=JobId(), metavar="ID")
@dsn_option
@json_option
def show(jobset_id: str, job: int, dsn: str | None, *, as_json: bool) -> None:
    """Show one job: its input and output, its attempts, and its error with the traceback."""
    with reading(dsn) as reader:
        jobset_row, jobset = found(reader, jobset_id)
        [row] = jobs_called(jobset, [job])
        events, texts = jobset.life(job), jobset.texts(job)
        trouble = stored(reader, jobset_row).trouble(job)
    if as_json:
        more = {"events": [_event(event) for event in events], "texts": list(map(text, texts))}
        terminal.document("job", **fields(row), output_trouble=trouble, **more)
        return
    click.echo(f"job {row.id} of {jobset_id}: {row.status}, run {row.run}" + f", {row.function}" * bool(row.function))
    click.echo(f"input:  {whole(row.input_codec, row.input)}")
    if row.status == "completed":
        click.echo(f"output: {whole(row.output_codec or '', row.output)}")
        if trouble is not None:
            click.echo(f"        {terminal.printable(trouble)}")
    terminal.table(
        ("WHEN", "RUN", "WHAT", "TOOK", "BEE", "HOST", "ERROR"),
        (
            (
                local(event.at),
                event.run,
                event.kind,
                "" if event.duration is None else f"{event.duration:.3g} s",
                (event.bee or "")[:8],
                event.host or "",
                shortened(_said(event)),
            )
            for event in events
        ),
        right=(1, 3),
    )
    if row.status == "failed" and events and (trace := events[-1].error.get("traceback")):
        click.echo(terminal.printable(str(trace)).rstrip())
    for row_of_text in texts[:1]:
        for stream, name in ((1, "stdout"), (2, "stderr")):
            if said := row_of_text.printed.text(stream):
                click.echo(f"{name}:\n{terminal.printable(said).rstrip()}")


def _said(event: Event) -> str:
    error = event.error
    return f"{error.get('type')}: {error.get('message')}" if error else ""


def _event(event: Event) -> dict[str, Any]:
    return event.told(moment) | {"duration_seconds": event.duration, "error": event.error or None}
