"""Cancelling and running anew."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import pytest

from tests.servers import Database
from tests.store.explaining import Explaining, nodes
from tests.store.hive import ANY, ONCE, Hive, failure, ids_of, new_job, success, until_blocked, until_waiting
from workerbee.store import ClientStore, Connection
from workerbee.store.connection import Query, Row
from workerbee.store.headers import LOOKS
from workerbee.wire.job import Options


class Interrupted(Connection):
    """After each of its statements others have their turn."""

    def __init__(self, dsn: str, others: Callable[[], None]) -> None:
        super().__init__(dsn)
        self._others = others

    def run(self, query: Query, params: Mapping[str, Any] | None = None) -> list[Row]:
        rows = super().run(query, params)
        self._others()
        return rows


def test_what_waits_is_cancelled(hive: Hive) -> None:
    """It has its outcome, and is no longer there to be claimed."""
    hive.add(3)
    assert hive.client.cancel_waiting([(2, 1)]) == {2}
    assert (hive.waiting(), hive.status(2)) == ([[1, 3]], "cancelled")
    assert hive.client.cancel_waiting([(1, 1), (3, 1)]) == {1, 3}
    assert hive.waiting() == []
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.cancelled, counts.open) == (3, 0)


def test_what_is_held_but_not_begun_is_cancelled(hive: Hive) -> None:
    """Beyond the mark; the holder hears of it when it moves the mark."""
    hive.add(4)
    bee = hive.bee()
    batch = bee.take(4, start=2)
    assert hive.client.cancel_waiting([(i, 1) for i in (2, 3)]) == {3}
    assert bee.start(batch, 4) == (3, [1, 2, 4])


def test_a_cancellation_and_a_start_take_turns(hive: Hive, connect: Callable[[], Connection]) -> None:
    """While the mark moves, a cancellation waits, and then sees what has begun."""
    hive.add(3)
    bee = hive.bee("a", connect())
    batch = bee.take(3, start=0)
    bee.connection.run("BEGIN")
    bee.start(batch, 2)
    cancelled: list[set[int]] = []
    until_waiting(
        lambda: cancelled.append(hive.client.cancel_waiting([(2, 1), (3, 1)])),
        connect(),
        what="the cancellation waiting for the mark",
        then=bee.connection,
    )
    assert cancelled == [{3}]


@pytest.mark.parametrize("held", [True, False], ids=["held", "waiting"])
@pytest.mark.parametrize("verb", [ClientStore.cancel_running, ClientStore.cancel_waiting], ids=["running", "waiting"])
def test_others_act_between_any_two_statements(
    hive: Hive, verb: Callable[..., set[int]], held: bool, shared: Database
) -> None:
    """Somebody sees jobs cancelled and submits them again, a bee claims and starts: no job is lost, none begins."""
    hive.add(4)
    bee, thief = hive.bee("a"), hive.bee("b")
    batch = bee.take(3, start=1) if held else None
    begun: set[tuple[int, int]] = {(1, 1)} if held else set()

    def act() -> None:
        hive.client.reopen(hive.client.ended_badly(), Options())
        for claimed in thief.claim(9, 9, ANY):
            begun.update((job, claimed.run) for job in ids_of(claimed))
            thief.succeed(claimed)
        if batch is not None:
            started, jobs = bee.start(batch, 3)
            begun.update((job, batch.run) for job in jobs[:started])

    connection = Interrupted(shared.dsn, act)
    verb(ClientStore(connection, hive.jobset, uuid4()), [(job, 1) for job in (1, 2, 3, 4)])
    connection.close()
    act()
    if batch is not None:
        bee.succeed(batch, *(job for job, run in begun if run == batch.run))
    cancelled = {job for job in (1, 2, 3, 4) if hive.outcome(job) == "cancelled"}
    assert cancelled >= {2, 3, 4}
    assert begun >= {(job, 2) for job in cancelled}, "each of them is run anew"
    assert begun.isdisjoint({(2, 1), (3, 1), (4, 1)})
    assert (hive.waiting(), hive.held()) == ([], [])


@pytest.mark.parametrize("start", [0, 1])
def test_what_is_claimed_under_a_cancellations_eyes(hive: Hive, connect: Callable[[], Connection], start: int) -> None:
    """It waits for the claim, and then takes away what hasn't begun."""
    hive.add(3)
    bee = hive.bee("a", connect())
    bee.connection.run("BEGIN")
    batch = bee.take(3, start=start)
    until_waiting(
        lambda: hive.client.cancel_waiting([(i, 1) for i in (1, 2, 3)]),
        connect(),
        what="the cancellation waiting for the claim",
        then=bee.connection,
    )
    assert [hive.outcome(i) for i in (1, 2, 3)] == [*[None] * start, *["cancelled"] * (3 - start)]
    assert bee.start(batch, 3) == (start, [1][:start])


def test_a_run_of_before_takes_nothing_of_the_present_one(hive: Hive) -> None:
    """A held header of a run that was cancelled goes; the header of the next run stays as it is."""
    hive.add(2)
    bee = hive.bee()
    batch = bee.take(2, start=1)
    hive.client.cancel_running([(1, 1)])
    hive.client.reopen([(1, 1)], Options())
    assert hive.client.cancel_waiting([(1, 1), (2, 1)]) == {2}
    assert hive.client.cancel_running([(1, 1), (2, 1)]) == set()
    assert (hive.waiting(), bee.start(batch, 2)) == ([[1]], (1, [1]))


@pytest.mark.parametrize("closing", [True, False], ids=["closing", "not closing"])
def test_cancelling_and_completing_the_same_jobs(hive: Hive, connect: Callable[[], Connection], closing: bool) -> None:
    """Whoever is second waits for the first; neither waits for the other."""
    hive.add(3)
    last = hive.bee("z").take(3)
    bee = hive.bee("a", connect())
    # Three headers, the later ones for the earlier jobs: as a cancellation meets them isn't the order of the ids.
    hive.run("DELETE FROM {batch} WHERE jobset = {number}")
    batches = []
    for job in (3, 2, 1):
        hive.run("INSERT INTO {batch} (jobset, function, run, jobs) VALUES ({number}, 0, 1, %(jobs)s)", jobs=[job])
        batches.append(bee.take(1))
    assert last.run == 1
    # Somebody is just recording job 2, so that the completion stops in the middle.
    other = hive.bee("c", connect())
    other.connection.run("BEGIN")
    other.complete([success(2)], [], hint=None)
    raised: list[BaseException] = []
    completing = _thread(raised, lambda: bee.complete([success(j) for j in (1, 2, 3)], batches * closing, hint=None))
    watching = connect()
    until_blocked(1, watching)
    client = ClientStore(connect(), hive.jobset, uuid4())
    cancelling = _thread(raised, lambda: client.cancel([(3, 1), (1, 1)], running=True))
    until_blocked(2, watching)
    other.connection.run("ROLLBACK")
    for thread in (completing, cancelling):
        thread.join(20)
    assert raised == []
    assert {hive.outcome(j) for j in (1, 2, 3)} == {"completed"}


def _thread(raised: list[BaseException], action: Callable[[], object]) -> threading.Thread:
    def act() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            raised.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_neighbours_and_strangers_are_cancelled_together(hive: Hive) -> None:
    """Whatever the gaps, the runs and the repetitions: those that were asked for, and no others."""
    ids = hive.add(450)
    hive.client.cancel_waiting([(i, 1) for i in ids[100:110]])
    hive.client.reopen([(i, 1) for i in ids[100:110]], Options())
    asked = [(i, 2 if 100 < i <= 110 else 1) for i in ids if i % 7 and not 300 < i < 305]
    assert hive.client.cancel_waiting([*asked, *asked[:9]]) == {i for i, _ in asked}
    assert sorted(j for jobs in hive.waiting() for j in jobs) == sorted(set(ids) - {i for i, _ in asked})


def test_cancelling_one_after_the_other_seldom_looks_at_all_headers(hive: Hive, shared: Database) -> None:
    """However many there are; what lies between each other's jobs is found too."""
    for _ in range(LOOKS + 50):
        hive.add(1)
    hive.client.add([new_job(n, function=n % 3) for n in range(1000, 1300)])
    connection = Explaining(shared.dsn)
    client = ClientStore(connection, hive.jobset, uuid4())
    assert client.cancel_waiting([(job, 1) for job in range(1, LOOKS + 1)]) == set(range(1, LOOKS + 1))
    for _ in range(LOOKS + 1):
        assert client.cancel_waiting([(1, 1)]) == set()
    connection.plans.clear()
    for job in (LOOKS + 9, LOOKS + 40, 1100, 1200, 1201, 1299):
        assert client.cancel_waiting([(job, 1)]) == {job}
    connection.close()
    assert len(connection.plans) == 6
    for plan in connection.plans:
        seen = [node for node in nodes(plan) if node.get("Relation Name") == "batch$"]
        assert seen
        assert all(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= 4 for node in seen)


def test_what_stands_elsewhere_by_now_is_cancelled(hive: Hive) -> None:
    """Whoever remembers where a job stood looks everywhere if it isn't there, and if its header has run out before."""
    hive.add(LOOKS)
    hive.add(4)
    for job in range(1, LOOKS + 2):
        assert hive.client.cancel_waiting([(job, 1)]) == {job}
    moved, later = range(LOOKS + 2, LOOKS + 5), LOOKS + 5
    hive.run("UPDATE {batch} SET id = DEFAULT WHERE jobset = {number}")
    hive.add(2)
    for job in [*moved, later, later + 1]:
        assert hive.client.cancel_waiting([(job, 1)]) == {job}
    again = hive.add(2)
    hive.run("INSERT INTO {outcome} (job, run, status) VALUES (%(job)s, 1, 'cancelled')", job=again[0])
    for _ in range(LOOKS + 2):
        assert hive.client.cancel_waiting([(again[0], 1)]) == set()
    assert hive.client.cancel_waiting([(again[1], 1)]) == {again[1]}


def test_only_the_run_that_was_asked_for_is_cancelled(hive: Hive) -> None:
    """A run of before or after is another matter."""
    hive.add(1)
    assert hive.client.cancel_waiting([(1, 2)]) == set()
    assert hive.waiting() == [[1]]


def test_a_running_job_is_ended(hive: Hive) -> None:
    """The outcome is cancelled, and what its bee brings later is late."""
    hive.add(1)
    bee = hive.bee()
    batch = bee.take()
    assert hive.client.cancel_running([(1, 1)]) == {1}
    bee.succeed(batch)
    assert hive.outcome(1) == "cancelled"
    assert hive.catalogue.counts(hive.jobset.number).late == 1


def test_a_job_cancelled_among_running_ones_never_begins(hive: Hive) -> None:
    """Whoever ends jobs, started or not, ends those that wait or are held unbegun before they run."""
    hive.add(3)
    hive.add(1)
    bee = hive.bee()
    batch = bee.take(3, start=1)
    assert hive.client.cancel_running([(i, 1) for i in (1, 2, 4)]) == {1, 2, 4}
    assert bee.start(batch, 3) == (2, [1, 3])
    assert bee.claim(5, 5, ANY) == []


def test_a_completed_job_is_not_cancelled(hive: Hive) -> None:
    """After the outcome nothing changes."""
    hive.add(1)
    bee = hive.bee()
    bee.succeed(bee.take())
    assert hive.client.cancel_running([(1, 1)]) == set()
    assert hive.outcome(1) == "completed"


def test_a_retry_that_waits_is_cancelled(hive: Hive) -> None:
    """Also in its pause."""
    hive.add(1)
    bee = hive.bee()
    bee.miss(bee.take())
    assert hive.client.cancel_waiting([(1, 1)]) == {1}
    assert (hive.waiting(), hive.outcome(1)) == ([], "cancelled")


def test_ended_badly_is_run_anew(hive: Hive) -> None:
    """A failed or cancelled run is followed by a new one, which has attempts of its own."""
    hive.add(3)
    bee = hive.bee()
    batch = bee.take(3)
    bee.miss(batch, 1, attempts=1)
    hive.client.cancel_running([(2, 1)])
    bee.succeed(batch, 3)
    assert hive.client.ended_badly() == [(1, 1), (2, 1)]
    assert hive.client.reopen([(1, 1), (2, 1), (3, 1)], Options(priority=2)) == 2
    assert (hive.client.ended_badly(), hive.waiting()) == ([], [[1, 2]])
    again = bee.take(2)
    assert (again.run, [job.n_attempts for job in again.jobs]) == (2, [0, 0])
    bee.succeed(again)
    assert (hive.outcome(1, 1), hive.outcome(1, 2), hive.status(1)) == ("failed", "completed", "completed")
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.reopened, counts.open) == (2, 0)


def test_one_of_many_callers_opens_a_run(hive: Hive) -> None:
    """Opening it again opens nothing."""
    hive.add(1)
    hive.client.cancel_waiting([(1, 1)])
    assert hive.client.reopen([(1, 1)], Options()) == 1
    assert hive.client.reopen([(1, 1)], Options()) == 0
    assert hive.waiting() == [[1]]
    assert hive.client.reopen([(1, 2)], Options()) == 0  # that run is open


def test_many_jobs_run_anew_in_small_batches(hive: Hive) -> None:
    """As they were added."""
    ids = hive.add(450)
    hive.client.cancel_waiting([(i, 1) for i in ids])
    hive.client.reopen([(i, 1) for i in ids], Options())
    assert [len(jobs) for jobs in hive.waiting()] == [200, 200, 50]


def test_the_old_run_says_nothing_of_the_new_one(hive: Hive) -> None:
    """Who still runs an ended run brings results for that one only, and the view shows the job once."""
    hive.add(1)
    bee, other = hive.bee("a"), hive.bee("b")
    batch = bee.take()
    hive.client.cancel_running([(1, 1)])
    hive.client.reopen([(1, 1)], Options())
    assert hive.run("SELECT id, status FROM {view}") == [(1, "waiting")]
    bee.succeed(batch)
    assert (hive.outcome(1, 1), hive.outcome(1, 2), hive.waiting()) == ("cancelled", None, [[1]])
    assert ids_of(other.take()) == [1]


def test_a_lost_value_makes_its_job_a_failed_one(hive: Hive) -> None:
    """Once, whoever notices it, in the latest run alone and only of a value in a file; then it can be retried."""
    hive.add(2)
    bee = hive.bee()
    batch = bee.take(2)
    reference = b'{"files": []}'
    bee.complete([success(1)._replace(codec="blob", data=reference), success(2)], [batch], hint=None)
    lose = hive.client.lent.lose
    assert not lose(failure(2, 2)._replace(codec="error"), b"cause")
    assert list(hive.client.lent.lent_results()) == [[1]]
    assert lose(failure(1, 2)._replace(codec="error"), b"cause")
    assert not lose(failure(1, 2)._replace(codec="error"), b"cause")
    assert list(hive.client.lent.lent_results()) == []
    assert (hive.status(1), hive.outcome(1), hive.outcome(1, 2)) == ("failed", "completed", "failed")
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.completed, counts.failed, counts.open) == (1, 1, 0)
    assert hive.client.reopen([(1, 2)], Options()) == 1
    batch = bee.take(1)
    assert ids_of(batch) == [1]
    bee.complete([success(1, 3)], [batch], hint=None)
    assert not lose(failure(1, 2)._replace(codec="error"), b"cause")
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.completed, counts.open, hive.status(1)) == (2, 0, "completed")


def test_only_a_completed_run_can_lose_its_value(hive: Hive) -> None:
    """A failed one has none, even if its row says that it is in a file."""
    hive.add()
    bee = hive.bee()
    bee.fail(bee.take(), failure(1)._replace(codec="blob"), ONCE, "{}")
    assert not hive.client.lent.lose(failure(1, 2), b"cause")
    assert (hive.outcome(1), hive.outcome(1, 2)) == ("failed", None)
