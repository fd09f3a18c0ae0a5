"""What the views of jobs know, as plain facts: the same for their HTML and their JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

from workerbee import finding, following
from workerbee.client.spectators import until_dropped
from workerbee.dashboard.facts import Facts, event_facts, job_facts, text_facts, told
from workerbee.dashboard.looks import Looks
from workerbee.dashboard.sampler import NothingSeenError, Part, Sampler
from workerbee.finding import Found
from workerbee.following import SoFar
from workerbee.reading import (
    BegunRow,
    Event,
    JobPage,
    JobRow,
    JobsetRow,
    Reader,
    TextRow,
    Wanted,
    is_forbidden,
    is_standby,
)

#: Rows of a list, and executions of a job whose texts are shown.
JOBS, TEXTS = 50, 5
#: Inputs that are read at a time.
AT_A_TIME = 1000
#: Seconds for which is looked for an input, and for which what was found counts as new.
FIND_SECONDS, FOUND_SECONDS = 0.15, 60.0


class Life(NamedTuple):
    """A job, what happened to it, who is at it, and what its executions have printed."""

    row: JobRow
    events: list[Event]
    begun: list[BegunRow]
    printed: SoFar


class JobLooks:
    """Looks at jobs through one sampler. Raises JobsetNotFoundError, and NothingSeenError in an outage."""

    def __init__(self, sampler: Sampler, searcher: Sampler, looks: Looks, *, may_ask: bool) -> None:
        """``searcher`` is for what takes long; ``may_ask``: bees may be asked for what jobs print."""
        self._sampler = sampler
        self._searcher = searcher
        self._looks = looks
        self._may_ask = may_ask

    def jobs(self, jobset_id: str, wanted: Wanted, after: int) -> Facts:
        """A page of jobs."""
        with until_dropped(jobset_id):
            row = self._looks.find(jobset_id)
            part: Part[JobPage] = self._sampler.part(
                ("jobs", row.jobset.number, wanted, after),
                lambda reader: reader.of(row.jobset).jobs(after, JOBS, wanted),
            )
        page = part.value
        return told(self._sampler, part, jobset=jobset_id, jobs=[job_facts(job) for job in page.rows], after=page.after)

    def found(self, jobset_id: str, text: str, value: Any, before: int) -> Facts:
        """The jobs whose input is this value, or contains it; ``text`` is the value as it was written."""

        def read(reader: Reader) -> tuple[Found, list[JobRow]]:
            one = reader.of(row.jobset)
            found = finding.find(one, value, n=JOBS, before=before, seconds=FIND_SECONDS, at_a_time=AT_A_TIME)
            return found, one.jobs_of(found.ids)[::-1]

        with until_dropped(jobset_id):
            row = self._looks.find(jobset_id)
            key = ("found", row.jobset.number, text, before)
            part = self._searcher.part(key, read, fresh=FOUND_SECONDS)
        found, rows = part.value
        facts = found._asdict() | {"of": row.counts.added, "is_newest": before == finding.LAST}
        return told(self._searcher, part, jobset=jobset_id, jobs=[job_facts(job) for job in rows], found=facts)

    def job(self, jobset_id: str, job: int) -> Facts | None:
        """One job with its life; None if there is none."""

        def read(reader: Reader) -> Life | None:
            one = reader.of(row.jobset)
            rows = one.jobs_of([job])
            begun = one.begun_jobs(job=job) if rows and rows[0].status == "running" else []
            return Life(rows[0], one.life(job), begun, following.printed(one, job, TEXTS)) if rows else None

        with until_dropped(jobset_id):
            row = self._looks.find(jobset_id)
            part = self._sampler.part(("job", row.jobset.number, job), read)
            if part.value is None:
                return None
            found, life, begun, printed = part.value
            cant_ask = self._ask(row, job) if begun else None
        events = [event_facts(event) for event in life]
        return told(
            self._sampler,
            part,
            jobset=jobset_id,
            job=job_facts(found),
            running=[one._asdict() for one in begun],
            error=next((event["error"] for event in reversed(events) if event["error"]), None),
            events=events,
            printing=_printing(printed.running, begun),
            cant_ask=cant_ask,
            printed=[text_facts(text) for text in printed.ended if text.printed.size],
        )

    def _ask(self, row: JobsetRow, job: int) -> str | None:
        """Ask for what a running job prints, as long as somebody looks at it; why that can't be asked for."""
        if not self._may_ask:
            return "This page only reads"

        def read(reader: Reader) -> str | None:
            try:
                following.ask(reader.connection, row.jobset, job)
            except Exception as error:
                if is_forbidden(error):
                    return "This page's user of the database may only read"
                if is_standby(error):
                    return "This server is a standby, which takes no changes"
                raise
            return None

        key = ("asked", row.jobset.number, job)
        try:
            return self._sampler.part(key, read, fresh=following.ASK_AGAIN_SECONDS).value
        except NothingSeenError:
            return None


def _printing(text: TextRow | None, begun: list[BegunRow]) -> Facts | None:
    """The text of the execution under way; what a bee showed that is gone is none."""
    return text_facts(text) if text is not None and any(one.bee == text.bee for one in begun) else None
