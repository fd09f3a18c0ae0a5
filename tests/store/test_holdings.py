"""What a bee holds of a jobset whose tables are gone: nothing of it is touched again, and the bee goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from tests.store.hive import ANY, Hive
from workerbee.bee import holdings
from workerbee.bee.crew import Crew
from workerbee.bee.holdings import Held, Holdings, Served
from workerbee.bee.judge import Judge
from workerbee.bee.messages import Unusable
from workerbee.bee.presence import Presence
from workerbee.bee.recorder import Recorder
from workerbee.bee.refusals import Refusals
from workerbee.bee.runner_process import Launch
from workerbee.bee.tasks import End, Task
from workerbee.store import BeeStore, Connection, Limits
from workerbee.wire.job import NO_FUNCTION, Jobset

LOG = logging.getLogger("workerbee.tests")


class Bee:
    """What a bee that serves all jobsets holds, with a crew whose runners are never started."""

    def __init__(self) -> None:
        self.crew = Crew(2, launch=Launch((), "0", ()), program=b"", forward=lambda *_: None)
        self.dropped: list[int] = []
        self.holdings = Holdings(self.crew, lambda jobset: self.dropped.append(jobset.number), self.trouble)

    def trouble(self, jobset: Jobset, error: Exception) -> None:
        raise AssertionError(f"{jobset.name}: {error!r}")

    def serve(self, store: BeeStore) -> Served:
        served = self.holdings.served[store.jobset.number] = Served(store, ANY)
        return served

    def hold(self, served: Served, n: int, *, start: int) -> list[Held]:
        """Claim so many jobs and book them."""
        held = [self.holdings.take(served, batch, None) for batch in served.store.claim(n, start, served.scope)]
        for batch in held:
            self.holdings.begin(batch, without=set())
        return held


@pytest.fixture
def bee() -> Iterator[Bee]:
    bee = Bee()
    yield bee
    bee.crew.dismiss()


def refuse(bee: Bee, number: int) -> None:
    """A function turns out to be unusable."""
    presence = SimpleNamespace(is_alone_in=lambda _: False)
    refusals = Refusals(
        bee.holdings, cast("Recorder", None), cast("Presence", presence), is_clients=False, tell=print, log=LOG
    )
    refusals.hear(Unusable(number, NO_FUNCTION, "it isn't there", None))
    refusals.settle()


def give_back(bee: Bee, _: int) -> None:
    bee.holdings.give_back_unstarted()
    bee.holdings.return_booked()


#: What notices that the tables are gone.
NOTICES: dict[str, Callable[[Bee, int], None]] = {
    "give back": give_back,
    "come back": lambda bee, _: bee.holdings.come_back(),
    "refuse": refuse,
}


@pytest.mark.parametrize("notice", NOTICES)
def test_a_dropped_jobset_is_let_go_of_once(hive: Hive, bee: Bee, notice: str) -> None:
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


def test_what_ends_in_a_jobset_that_is_gone_counts_for_no_other(hive: Hive, bee: Bee) -> None:
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


def test_jobsets_that_were_served_long_ago_are_let_go(
    bee: Bee, line: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bee may meet thousands; but none of which something is held or refused."""
    monkeypatch.setattr(holdings, "MOST_SERVED", 3)
    made = [Hive(line) for _ in range(8)]
    for n, hive in enumerate(made):
        hive.add(1)
        served = bee.serve(hive.bee())
        if n == 0:
            bee.hold(served, 1, start=1)
        if n == 1:
            served.refuse(7, "it isn't here")
        bee.holdings.make_room()
    numbers = [hive.jobset.number for hive in made]
    assert list(bee.holdings.served) == [numbers[0], numbers[1], numbers[-1]]
