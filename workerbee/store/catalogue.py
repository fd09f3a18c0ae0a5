"""The queries on what all jobsets share: the list of jobsets, bees, hints, counters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from psycopg2 import errors, sql

from workerbee._version import __version__
from workerbee.store import queries, tables
from workerbee.store.connection import Connection, Row
from workerbee.store.trouble import is_forbidden
from workerbee.wire.job import Jobset

#: Jobsets in one look at what there is to claim. A bee claims from one of them, and there may be thousands.
OFFERED_JOBSETS = 50
#: Characters of a bee's last words.
LAST_WORDS_CHARS = 2000


class Counts(NamedTuple):
    """Counts of what has happened in a jobset so far, summed over all writers."""

    added: int
    reopened: int
    completed: int
    failed: int
    cancelled: int
    retried: int
    lost: int
    speculative: int
    late: int
    revived: int = 0

    @property
    def open(self) -> int:
        """Count the runs that have not ended."""
        return self.added + self.reopened - self.completed - self.failed - self.cancelled


class Remaining(NamedTuple):
    """The work that is left: whether there are batches, held ones too; waiting jobs' functions; whether jobs ever came.

    ``paused`` says by whom and why; None: it isn't.
    """

    any_batch: bool
    any_held: bool
    functions: list[int] | None
    ever_added: bool
    paused: str | None


class Maker(NamedTuple):
    """The process that makes a jobset and is to add its first jobs."""

    host: str
    pid: int
    python: str


class BeeFacts(NamedTuple):
    """A bee as it describes itself with each heartbeat; ``jobset`` None: it serves them all.

    ``lifetime`` is in seconds from its start (None: no limit); ``launch`` names the batch job that has started it, and
    ``place`` its number among the bees of that.
    """

    incarnation: UUID
    jobset: int | None
    host: str
    pid: int
    python: str
    runners: int
    version: str = __version__
    cpus: int | None = None
    launch: str | None = None
    place: int | None = None
    lifetime: float | None = None


class Pulse(NamedTuple):
    """The answer to a heartbeat: whether others took the bee for dead, how many live, the server's clock (epoch)."""

    given_up: bool
    n_bees: int
    clock: float


class Catalogue:
    """The shared tables, over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._offered = 0  # the number after which the next look begins

    def _run(self, name: str, /, **params: Any) -> list[Row]:
        return self.connection.run(queries.shared("catalogue.sql")[name], params)

    # Jobsets

    def create_jobset(
        self,
        jobset_id: str | None,
        *,
        key: str | None,
        speculate: bool,
        client: UUID | None = None,
        uuid: UUID | None = None,
        maker: Maker | None = None,
    ) -> Jobset | None:
        """Create a jobset with its tables and view, in one transaction; None if it exists already.

        A ``maker`` is noted with it, so that another can take its place (`become_maker`). If the answer to a COMMIT was
        lost, a second try with the same ``uuid`` finds the jobset made by the first, and returns it as created.
        """
        uuid = uuid or uuid4()
        params = {
            "id": jobset_id,
            "uuid": str(uuid),
            "key": key,
            "speculate": speculate,
            "client": client and str(client),
            "layout": tables.LAYOUT,
        }
        with self.connection.transaction():
            created = self._run("create_jobset", **params)
            if created:
                number = created[0][0]
                tables.make(self.connection, number, jobset_id, uuid)
                if maker is not None:
                    self._note_maker(uuid, number, maker, None)
        if created:
            return Jobset(number, jobset_id, uuid, key, speculate, client)
        found = self.find_jobset(jobset_id) if jobset_id is not None else None
        return found if found is not None and found.uuid == uuid else None

    def become_maker(self, jobset_id: str, maker: Maker, age: float) -> bool:
        """Take the place of a jobset's maker that is gone before a job was added; True for one of those who ask.

        ``age`` is the age of the caller's process in seconds.
        """
        rows = self._run("vacancy", id=jobset_id, host=maker.host, pid=maker.pid, age=age)
        return any(self._note_maker(UUID(uuid), number, maker, before) for number, uuid, before in rows)

    def _note_maker(self, uuid: UUID, number: int, maker: Maker, before: str | None) -> bool:
        params = {"host": maker.host, "pid": maker.pid, "uuid": str(uuid), "number": number, "before": before}
        return bool(self._run("note_maker", **params, backend=self.connection.backend))

    def find_jobset(self, jobset_id: str) -> Jobset | None:
        return _jobset(self._run("find_jobset", id=jobset_id))

    def find_jobset_by_number(self, number: int) -> Jobset | None:
        return _jobset(self._run("find_jobset_by_number", number=number))

    def jobset_ids(self) -> tuple[str, ...]:
        """List the durable jobsets, newest first."""
        return tuple(row[0] for row in self._run("jobset_ids"))

    def lacking(self, error: BaseException) -> str:
        """Name the rights that this user lacks on the tables that an error names, in any language; or nothing."""
        names = re.findall(r"[\w$]+", str(error)) if is_forbidden(error) else []
        return self._run("lacking", names=names)[0][0] or "" if names else ""

    def damage(self, jobset: Jobset) -> str | None:
        """Say what somebody has changed by hand of the jobset's tables, so that it can't be used; None: nothing."""
        [(found,)] = self._run("damage", number=jobset.number)
        return None if found is None else str(found)

    def adopt_key(self, jobset: Jobset, fingerprint: str) -> str | None:
        """Give the fingerprint of the jobset's key, which is this one if it had none; None: the jobset is gone."""
        rows = self._run("adopt_key", number=jobset.number, uuid=str(jobset.uuid), key=fingerprint)
        return str(rows[0][0]) if rows else None

    def restore_key(self, jobset: Jobset, fingerprint: str) -> None:
        """Set the fingerprint of the jobset's key, whatever it was."""
        self._run("restore_key", number=jobset.number, uuid=str(jobset.uuid), key=fingerprint)

    def rename_jobset(self, jobset: Jobset, jobset_id: str) -> bool:
        """Give a jobset another id, with all that it holds; False if another jobset has it."""
        run = self.connection.run
        try:
            with self.connection.transaction():
                run("SET LOCAL lock_timeout = '1s'")
                self._run("rename_jobset", number=jobset.number, id=jobset_id)
                view = queries.identifiers(jobset.number, jobset.id, jobset.uuid)["view"]
                run(sql.SQL("ALTER VIEW {} RENAME TO {}").format(view, sql.Identifier(jobset_id)))
        except errors.UniqueViolation:
            return False
        return True

    def touch_client(self, jobset: Jobset) -> bool:
        """Say that the temporary jobset's client is alive; False if the jobset is gone."""
        return bool(self._run("touch_client", number=jobset.number, uuid=str(jobset.uuid)))

    def ask(self, jobset: Jobset, job: int, *, by: str, seconds: float) -> None:
        """Ask to see, for so many seconds, what a running job prints; by its negative number, its stacks."""
        self._run("ask", number=jobset.number, uuid=str(jobset.uuid), job=job, by=tables.storable(by), seconds=seconds)

    def pause(self, jobset: Jobset, *, by: str, why: str | None) -> bool:
        """Have no jobs of this jobset claimed; running ones go on. False if it was paused already, or is gone."""
        params = {"by": tables.storable(by), "why": why and tables.storable(why)}
        rows = self._run("pause", number=jobset.number, uuid=str(jobset.uuid), **params)
        return bool(rows and rows[0][0])

    def resume(self, jobset: Jobset) -> bool:
        """Have the jobset's jobs claimed again, and tell the bees; False if it wasn't paused."""
        return bool(self._run("resume", number=jobset.number, uuid=str(jobset.uuid)))

    def drop_jobset(self, jobset: Jobset) -> bool:
        """Drop the jobset. If somebody is reading it now, mark it, so that it is swept later, and return False."""
        self.mark_dropped(jobset)
        return self._drop_tables(jobset)

    def mark_dropped(self, jobset: Jobset) -> None:
        """Mark the jobset as dropped: nobody finds it, or claims from it, and its tables are swept later."""
        self._run("mark_dropped", number=jobset.number, uuid=str(jobset.uuid))

    def sweep(self, leave: Callable[[Jobset], object] = lambda _: None) -> int:
        """Drop marked jobsets, and temporary ones whose client fell silent an hour ago. Returns how many.

        ``leave`` is called with each before, to remove what it has elsewhere.
        Rows of bees that vanished long ago are deleted too. Jobsets of other database users are left to these.
        """
        self._run("forget_bees")
        left = [
            dropped for row in self._run("dropped_jobsets", tables=list(queries.TABLES)) if (dropped := _jobset([row]))
        ]
        for jobset in left:
            leave(jobset)
        return sum(self._drop_tables(jobset, patience="50ms") for jobset in left)

    def _drop_tables(self, jobset: Jobset, *, patience: str = "1s") -> bool:
        """Drop a jobset's tables; False if the locks on them can't be had within ``patience``."""
        try:
            with self.connection.transaction():
                self._run("be_patient", patience=patience)
                if self._run("hold_jobset", number=jobset.number, uuid=str(jobset.uuid)):  # else another has its number
                    tables.drop(self.connection, jobset.number, jobset.id, jobset.uuid)
                    self._run("forget_jobset", number=jobset.number)
        except queries.LOCKED:
            return False
        return True

    def reserve_jobs(self, jobset: Jobset, n: int) -> int | None:
        """Reserve ``n`` job ids. Returns the first one; None if the jobset is gone."""
        rows = self._run("reserve_jobs", number=jobset.number, uuid=str(jobset.uuid), n=n)
        return int(rows[0][0]) if rows else None

    def counts(self, number: int) -> Counts:
        return Counts(*self._run("counts", number=number)[0])

    def fold_counters(self, number: int, least: int = 20) -> None:
        """Add up the counters of writers that are gone, if there are at least so many."""
        self._run("fold_counters", number=number, least=least)

    def note_minute(self, numbers: Iterable[int]) -> list[int]:
        """Note these jobsets' counters in their history. Returns those that nobody had noted in this minute before."""
        return [number for number, _ in self._run("note_minute", numbers=queries.array(numbers))]

    def thin_history(self, number: int) -> None:
        """Delete minutes of a jobset's history, more of them the older they are."""
        self._run("thin_history", number=number)

    def remaining(self, number: int) -> Remaining:
        return Remaining(*self._run("remaining", number=number)[0])

    # Bees

    def beat(self, bee: BeeFacts, *, lease: float, resting: bool) -> Pulse:
        """Send a heartbeat, and be alive for ``lease`` seconds."""
        params = bee._asdict() | {"lease": lease, "resting": resting, "backend": self.connection.backend}
        params["bee"] = str(params.pop("incarnation"))
        [(given_up, clock, n_bees)] = self._run("beat", **params)
        return Pulse(bool(given_up), max(1, int(n_bees)), clock)

    def set_back(self, step: float, longest: float) -> None:
        """Make stored times earlier, by the ``step`` (seconds) by which the server's clock was set back.

        A pause before a retry is one of these times if more than the ``longest`` pause is left of it.
        """
        self._run("set_back", step=step, longest=longest)

    def leave(self, incarnation: UUID, words: str = "") -> None:
        """Sign a bee off, and keep its last ``words`` for those who look later."""
        self._run("leave", bee=str(incarnation), words=tables.storable(words)[:LAST_WORDS_CHARS])

    def live_bees(self, number: int) -> int:
        """Count the bees that serve this jobset and were alive half a minute ago."""
        return int(self._run("live_bees", number=number)[0][0])

    def live_runners(self, number: int) -> int:
        """Count the runners of the bees that serve this jobset and take work."""
        return int(self._run("live_runners", number=number)[0][0])

    def offers(self) -> Iterator[list[Jobset]]:
        """Give the jobsets with jobs to claim, each once, in portions, from where the last look ended."""
        began = self._offered
        for start, until in ((began, 2**31 - 1), (0, began)):
            after, more = start, start < until
            while more:
                rows = self._run("offers", after=after, until=until, n=OFFERED_JOBSETS)
                more = len(rows) == OFFERED_JOBSETS
                self._offered = after = rows[-1][0] if more else 0
                yield [found for _, *row in rows if row[0] is not None and (found := _jobset([tuple(row)]))]

    def held_elsewhere(self, incarnation: UUID, jobset: int | None) -> list[int]:
        """Jobsets in which other bees hold work."""
        return [row[0] for row in self._run("held_elsewhere", bee=str(incarnation), jobset=jobset)]

    # Hints

    def hint_work(self, number: int) -> None:
        self._run("hint_work", number=number)

    def recall(self, number: int) -> None:
        """Ask bees to give back the jobs of this jobset that they have not begun."""
        self._run("recall", number=number)

    def hint_done(self, number: int, jobs: str) -> None:
        self._run("hint_done", number=number, jobs=jobs)


def _jobset(rows: list[Row]) -> Jobset | None:
    if not rows:
        return None
    number, jobset_id, uuid, key, speculate, client = rows[0]
    return Jobset(number, jobset_id, UUID(uuid), key, speculate, UUID(client) if client else None)
