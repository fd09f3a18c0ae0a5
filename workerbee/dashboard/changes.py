"""Changes: what is meant and how much it is, said before, and what has happened, said after."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from workerbee import changing
from workerbee.changing import Changing
from workerbee.client.spectators import until_dropped
from workerbee.errors import WorkerbeeError
from workerbee.reading import Connection, JobsetRow, Reader, Wanted, connected, is_forbidden, is_passing

#: Statuses that can be retried, and that can be cancelled.
BADLY, OPEN = ("failed", "cancelled"), ("waiting", "retrying", "running")
#: Changes that are under way at a time, and that are remembered.
AT_A_TIME, MOST = 4, 100
#: Seconds that a browser is kept waiting for a change to be done; the page tells the rest.
WAIT = 2.0
#: Pages of jobs that are counted before one says "at least".
COUNTED = 5

log = logging.getLogger("workerbee.dashboard")


class Question(NamedTuple):
    """A change to be confirmed; ``n`` of jobs (None: no jobs are meant), at least so many where not ``is_exact``."""

    sentence: str
    verb: str
    n: int | None
    is_exact: bool = True
    must_type: str | None = None
    is_grave: bool = False


class Change:
    """A change under way, or done."""

    def __init__(self, jobset_id: str, said: Callable[[int], str]) -> None:
        self.jobset_id = jobset_id
        self._said = said
        self._ended = threading.Event()
        self.n = 0
        self.trouble: str | None = None

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more of it comes."""
        return self._ended.is_set()

    @property
    def sentence(self) -> str:
        """The sentence that says what has happened so far."""
        if self.trouble is not None:
            return f"It broke off: {self.trouble}" + f" {self._said(self.n)} before." * bool(self.n)
        return f"{self._said(self.n)}." if self.is_over else f"{self._said(self.n)} so far …"

    def run(self, steps: Iterator[int]) -> None:
        """Do it, step by step."""
        try:
            with until_dropped(self.jobset_id):
                for n in steps:
                    self.n += n
        except Exception as error:  # noqa: BLE001 (it is said where it is looked for)
            self.trouble = _told(error)
        finally:
            log.warning("%s: %s", self.jobset_id, self.sentence)
            self._ended.set()

    def wait(self) -> None:
        """Give it a moment."""
        self._ended.wait(WAIT)


class Changes:
    """Asks, and does what was answered with yes, each over a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._all: OrderedDict[str, Change] = OrderedDict()

    def find(self, name: str) -> Change | None:
        """The change of this name, if it is remembered."""
        return self._all.get(name)

    def question(self, do: str, row: JobsetRow, wanted: Wanted, job: int | None) -> Question:
        """Say what would be changed. Raises KeyError for what can't be done."""
        name = row.jobset.name
        if do in ("pause", "resume"):
            text = f"Bees will begin no more jobs of {name}; what runs goes on."
            text = text if do == "pause" else f"Bees will begin jobs of {name} again."
            return Question(text, do.capitalize(), None)
        if do == "drop":
            text = (
                f"This deletes {name} with its {row.counts.added:,} jobs and all their results. There is no way back."
            )
            return Question(text, "Delete it for good", row.counts.added, must_type=name, is_grave=True)
        verb, sentence = {
            "retry": ("Run them once more", "{} of {}'s jobs that ended badly will be run once more."),
            "cancel": ("Cancel them", "{} open jobs of {} will be cancelled; runners of what runs are killed."),
        }[do]
        n, is_exact = self._counted(do, row, wanted, job)
        said = sentence.format(f"{'' if is_exact else 'At least '}{n:,}", name)
        return Question(said, verb, n, is_exact, is_grave=do == "cancel")

    def _counted(self, do: str, row: JobsetRow, wanted: Wanted, job: int | None) -> tuple[int, bool]:
        among = BADLY if do == "retry" else OPEN
        with connected(self._dsn) as connection:
            reader = Reader(connection).of(row.jobset)
            if job is not None:
                return sum(found.status in among for found in reader.jobs_of([job])), True
            if wanted == Wanted(OPEN):
                return reader.progress().open, True
            if wanted == Wanted(("failed",)):
                return reader.progress().failed, True
            n, after = 0, 0
            for _ in range(COUNTED):
                rows, more = reader.jobs(after, 1000, wanted)
                n += len(rows)
                if more is None:
                    return n, True
                after = more
        return n, False

    def begin(self, do: str, row: JobsetRow, wanted: Wanted, job: int | None, why: str | None) -> str:
        """Do it; the name under which what happens can be asked for. Raises RuntimeError if too much is under way."""
        if sum(not change.is_over for change in self._all.values()) >= AT_A_TIME:
            raise RuntimeError("other changes are under way: try again when they are done")
        change = Change(row.jobset.name, _SAID[do])
        name = secrets.token_urlsafe(12)
        self._all[name] = change
        while len(self._all) > MOST:
            self._all.popitem(last=False)
        steps = self._steps(do, row, wanted, job, why)
        threading.Thread(target=change.run, args=(steps,), name="workerbee change", daemon=True).start()
        change.wait()
        return name

    def _steps(self, do: str, row: JobsetRow, wanted: Wanted, job: int | None, why: str | None) -> Iterator[int]:
        with connected(self._dsn) as connection:
            yield from _done(connection, do, row, wanted, job, why)


def _done(
    connection: Connection, do: str, row: JobsetRow, wanted: Wanted, job: int | None, why: str | None
) -> Iterator[int]:
    verbs = Changing(connection, row.jobset)
    if do == "retry":
        verbs.find_lost(None if job is None else [job])
    if job is not None:
        found = Reader(connection).of(row.jobset).jobs_of([job])
        change, among = (verbs.retry_runs, BADLY) if do == "retry" else (verbs.cancel_runs, OPEN)
        yield change([(one.id, one.run) for one in found if one.status in among])
    elif do == "retry":
        yield from verbs.retrying(wanted)
    elif do == "cancel":
        yield from verbs.cancelling(wanted)
    elif do == "pause":
        yield int(verbs.pause(why))
    elif do == "resume":
        yield int(verbs.resume())
    else:
        dropped = changing.drop(connection, row.jobset)
        yield int(dropped.is_gone)
        if dropped.left:
            raise WorkerbeeError("; ".join(dropped.left))


def _jobs(n: int) -> str:
    return f"{n:,} job{'s' * (n != 1)}"


_SAID: dict[str, Callable[[int], str]] = {
    "retry": lambda n: f"{_jobs(n)} wait{'s' * (n == 1)} to be run once more",
    "cancel": lambda n: f"{_jobs(n)} {'was' if n == 1 else 'were'} cancelled",
    "pause": lambda n: "It is paused" if n else "It was paused already",
    "resume": lambda n: "It goes on" if n else "It wasn't paused",
    "drop": lambda n: "It is deleted" if n else "It is deleted as soon as nobody reads it any more",
}


def _told(error: BaseException) -> str:
    if isinstance(error, WorkerbeeError):
        return str(error)
    if is_forbidden(error):
        return "this user of the database may only read"
    if is_passing(error):
        return "the database didn't answer in time; try again"
    log.error("a change failed", exc_info=error)
    return f"{type(error).__name__}, see the log"
