"""``workerbee report``: how a jobset went, as one file for an archive or a mail."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.results import opened

if TYPE_CHECKING:
    from workerbee.cli.html import JobsetReport
    from workerbee.reading import JobsetReader, JobsetRow, Reader

#: Rows of each list, and steps of the rate's curve.
ROWS, STEPS = 50, 96


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file, such as my_jobset.html; - is stdout.",
)
@dsn_option
def report(jobset_id: str, output: Path, dsn: str | None) -> None:
    """Write one static HTML file that says how JOBSET went: figures, plots, failures by cause, longest jobs, bees.

    It needs nothing else to be shown: no network, no script.
    """
    with reading(dsn) as reader:
        from workerbee.cli.html import written  # noqa: PLC0415 (loads the driver)

        text = written(_gathered(reader, *found(reader, jobset_id)))
        with opened(None if str(output) == "-" else output) as file:
            file.write(text)


def _gathered(reader: Reader, row: JobsetRow, jobset: JobsetReader) -> JobsetReport:
    from workerbee.cli.html import JobsetReport  # noqa: PLC0415 (loads the driver)
    from workerbee.reading import EndedBy  # noqa: PLC0415
    from workerbee.standing import status_of  # noqa: PLC0415

    now = time.time()
    counts = row.counts
    past = jobset.history_steps(row.created_at, max(60.0, (now - row.created_at) / STEPS))
    ends = jobset.recent_ends()
    samples = [(minute.at, minute.counts) for minute in past]
    samples.append((max([row.active_at, *(at for _, at, _ in ends)]), counts))
    causes = jobset.causes(ROWS)
    return JobsetReport(
        at=now,
        row=row,
        status=status_of(reader.connection, row.jobset),
        ended=[EndedBy(row.created_at, 0, 0, 0), *(EndedBy(at, n.completed, n.failed, n.lost) for at, n in samples)],
        took=[(job, took) for job, _, took in ends if took is not None],
        causes=causes,
        examples={cause.example: jobset.life(cause.example) for cause in causes[:ROWS]},
        running=jobset.begun_jobs(ROWS),
        bees=reader.bees(row.jobset, ROWS),
        departed=reader.departed(row.jobset, ROWS),
    )
