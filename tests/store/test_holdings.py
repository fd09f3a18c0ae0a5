"""What a bee holds of a jobset whose tables are gone: nothing of it is touched again, and the bee goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.store.hive import ANY, Hive, new_job, success
from workerbee.bee.claiming import Claiming
from workerbee.bee.crew import Crew
from workerbee.bee.holdings import Held, Holdings, Served
from workerbee.bee.judge import Judge
from workerbee.bee.messages import Unusable
from workerbee.bee.presence import Presence
from workerbee.bee.recorder import Recorder
from workerbee.bee.refusals import Refusals
from workerbee.bee.service import Service
from workerbee.bee.shelf import Shelf
from workerbee.bee.tasks import End, Task
from workerbee.orders import Orders
from workerbee.store import BeeStore, Connection, Limits, parse_hint
from workerbee.wire import values
from workerbee.wire.job import NO_FUNCTION, Batch, EndKind, Jobset
from workerbee.wire.values import Values

LOG = logging.getLogger("workerbee.tests")


class BeeWithoutRunners:
    """What a bee that serves all jobsets holds, with a crew whose runners are never started."""

    def __init__(self) -> None:
        self.crew = Crew(Orders("", workers=2))
        self.dropped: list[int] = []
        self.holdings = Holdings(self.crew, lambda jobset: self.dropped.append(jobset.number), self.trouble)

    def trouble(self, jobset: Jobset, error: Exception) -> None:
        raise AssertionError(f"{jobset.name}: {error!r}")

    def serve(self, store: BeeStore) -> Served:
        served = self.holdings.served[store.jobset.number] = Served(store, ANY)
        return served

    def claim(self, served: Served, n: int, start: int) -> list[Batch]:
        return served.store.claim(n, start, served.scope, fits=self.holdings.scales())

    def hold(self, served: Served, n: int, *, start: int) -> list[Held]:
        """Claim so many jobs and book them."""
        held = [self.holdings.take(served, batch, None) for batch in self.claim(served, n, start)]
        for batch in held:
            self.holdings.begin(batch, without=set())
        return held


@pytest.fixture
def bee() -> Iterator[BeeWithoutRunners]:
    bee = BeeWithoutRunners()
    yield bee
    bee.crew.dismiss()


def refuse(bee: BeeWithoutRunners, number: int) -> None:
    """A function turns out to be unusable."""
    presence = SimpleNamespace(is_alone_in=lambda _: False)
    refusals = Refusals(
        bee.holdings, cast("Recorder", None), cast("Presence", presence), is_clients=False, tell=print, log=LOG
    )
    refusals.hear(Unusable(number, NO_FUNCTION, "it isn't there", None))
    refusals.settle()


def give_back(bee: BeeWithoutRunners, _: int) -> None:
    bee.holdings.give_back_unstarted()
    bee.holdings.return_booked()


#: What notices that the tables are gone.
NOTICES: dict[str, Callable[[BeeWithoutRunners, int], None]] = {
    "give back": give_back,
    "come back": lambda bee, _: bee.holdings.come_back(),
    "refuse": refuse,
}


@pytest.mark.parametrize("notice", NOTICES)
def test_a_dropped_jobset_is_let_go_of_once(hive: Hive, bee: BeeWithoutRunners, notice: str) -> None:
    """Also where several batches of it are held: whatever is to be done with the second one is done no more."""
    number = hive.jobset.number
    for _ in range(2):
        hive.add(3)
    batches = bee.hold(bee.serve(hive.bee()), 6, start=0)
    assert [len(held.unstarted) for held in batches] == [3, 3]
    assert hive.catalogue.drop_jobset(hive.jobset)
    NOTICES[notice](bee, number)
    assert bee.dropped == [number]
    assert (len(bee.holdings), bee.holdings.served) == (0, {})
    for verb in NOTICES.values():
        verb(bee, number)
    bee.holdings.start_more()
    bee.holdings.reconcile()
    bee.holdings.stop_overtaken(0.0)
    assert not any(held.open or held.unstarted for held in batches)
    assert bee.dropped == [number]


def test_what_ends_in_a_jobset_that_is_gone_counts_for_no_other(hive: Hive, bee: BeeWithoutRunners) -> None:
    """Also if another has its number by then: a restored database gives numbers again."""
    [job] = hive.add(1)
    [held] = bee.hold(bee.serve(hive.bee()), 1, start=1)
    bee.holdings.drop(hive.jobset.number)
    bee.serve(hive.bee())
    judge = Judge(bee="b", host="h", limits=Limits(1))
    recorder = Recorder(bee.holdings, hive.catalogue, bee.crew, judge, LOG, logging.INFO)
    for kind in ("completed", "error"):
        recorder.keep(End(Task(held, held.batch.jobs[0]), kind, "json", b"1", None, 0.1))
        recorder.record(n_bees=1)
    assert hive.outcome(job) is None
    assert not recorder.has_ends


@pytest.mark.parametrize("is_late", [False, True])
def test_a_hint_has_no_results_that_do_not_count(
    hive: Hive, bee: BeeWithoutRunners, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    """Where another end was first in a run, a future asks the table."""
    [job] = hive.add(1)
    store = hive.bee()
    [held] = bee.hold(bee.serve(store), 1, start=1)
    if is_late:
        store.complete([success(job)], [], hint=None)
    judge = Judge(bee="b", host="h", limits=Limits(1))
    recorder = Recorder(bee.holdings, hive.catalogue, bee.crew, judge, LOG, logging.INFO)
    hints: list[str] = []
    monkeypatch.setattr(recorder._pace, "shares", lambda *_, **__: False)
    monkeypatch.setattr(hive.catalogue, "hint_done", lambda _, hint: hints.append(hint))
    recorder.keep(End(Task(held, held.batch.jobs[0]), EndKind.COMPLETED, "json", b"7", bytes(16), 0.1))
    recorder.record(n_bees=1)
    [hint] = hints
    jobs, ends = parse_hint(hint)
    assert jobs == [job]
    assert [end.data for end in ends] == ([] if is_late else [b"7"])


def test_jobsets_that_were_served_long_ago_are_let_go(
    bee: BeeWithoutRunners, line: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bee may meet thousands; but none of which something is held or refused."""
    made = [Hive(line) for _ in range(8)]
    for n, hive in enumerate(made):
        hive.add(1)
        served = bee.serve(hive.bee())
        if n == 0:
            bee.hold(served, 1, start=1)
        if n == 1:
            served.refuse(7, "it isn't here")
        bee.holdings.make_room(3)
    numbers = [hive.jobset.number for hive in made]
    assert list(bee.holdings.served) == [numbers[0], numbers[1], numbers[-1]]


def test_no_more_bytes_of_calls_are_held_than_there_is_room_for(hive: Hive, bee: BeeWithoutRunners) -> None:
    """What doesn't fit isn't even read, and goes back as it was; one that is larger than the room is held alone."""
    first = hive.catalogue.reserve_jobs(hive.jobset, 4) or 0
    data = bytes(range(256)) * 12_000
    hive.client.add([new_job(first + n)._replace(codec="pickle", data=data) for n in range(4)])
    served = bee.serve(hive.bee())
    for most, fitting in ((7_000_000, 2), (1_000_000, 1)):
        bee.holdings._room.most = most
        assert not bee.holdings.is_full
        held = bee.hold(served, 4, start=4)
        read = [len(job.data) for batch in held for job in batch.batch.jobs if job.data]
        assert read == [len(data)] * fitting
        assert bee.crew._backlog.n_ready == fitting
        assert bee.holdings.is_full
        bee.holdings.return_booked()
        assert sum(len(batch.open) for batch in held) == fitting
        bee.holdings.give_back_tasks(bee.crew.take_back(all_ready=True))
        bee.holdings.return_booked()
        assert sorted(job for jobs in hive.waiting() for job in jobs) == [*range(first, first + 4)]
        assert hive.attempts(first) == []
        bee.holdings.close(held)


def test_an_array_that_calls_share_is_held_once(hive: Hive, bee: BeeWithoutRunners) -> None:
    """However many calls have it; those of one for which there is no room go back as they were."""
    shelf = Shelf.make()
    assert shelf is not None
    arrays = [Values().of(memoryview(bytes([n]) * 1_500_000)) for n in range(3)]
    hive.client.parts.put_values(arrays)
    first = hive.catalogue.reserve_jobs(hive.jobset, 6) or 0
    names = [values.without("pickle", [arrays[n % 3]]) for n in range(6)]
    hive.client.add([new_job(first + n)._replace(codec=name, data=b"x") for n, name in enumerate(names)])
    served = bee.serve(hive.bee())
    bee.holdings._room.most = 3_200_000
    claiming = stocking(bee, shelf)
    fits = bee.holdings.scales()
    batches = served.store.claim(6, 6, served.scope, fits=fits)
    batches, lacking = claiming._stocked(served, batches, {}, fits)
    jobs = [job for batch in batches for job in batch.jobs]
    assert [job.data for job in jobs] == [b"x", b"x", b""] * 2
    assert lacking == {}
    for n in (0, 1):
        assert shelf.take(arrays[n].taken) == arrays[n].data
    assert len(list(Path(shelf.path).iterdir())) == 2
    held = [bee.holdings.take(served, batch, None) for batch in batches]
    for batch in held:
        bee.holdings.begin(batch, without=set())
    assert bee.holdings.is_full
    bee.holdings.return_booked()
    assert sorted(job for jobs in hive.waiting() for job in jobs) == [first + 2, first + 5]
    assert bee.crew._backlog.n_ready == 4
    shelf.close()


def stocking(bee: BeeWithoutRunners, shelf: Shelf) -> Claiming:
    """What claims, of which only the shelf is needed."""
    service, none = cast("Service", SimpleNamespace(holdings=bee.holdings)), cast("Any", None)
    return Claiming(
        service, bee.crew, none, none, none, none, shelf, now=0.0, program=bytes, only_functionless=False, log=LOG
    )
