"""Claiming: the front of what waits, each job by one bee."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg2 import errors

from tests import servers
from tests.store.hive import ANY, Hive, ids_of
from workerbee.store import Connection, Scope, schema


def test_the_front_is_taken_and_the_rest_stays(hive: Hive) -> None:
    """A claim cuts a batch in two; what is left keeps its place."""
    hive.add(5)
    hive.add(1)
    bee = hive.bee()
    assert ids_of(bee.take(3)) == [1, 2, 3]
    assert hive.waiting() == [[4, 5], [6]]
    assert hive.held() == [(str(bee.incarnation), [1, 2, 3], 3)]


def test_a_claim_takes_several_batches(hive: Hive) -> None:
    """As many jobs as were asked for, from as many headers as it takes; the mark runs over them in order."""
    for _ in range(3):
        hive.add(2)
    bee = hive.bee()
    batches = bee.claim(5, 3, ANY)
    assert [(ids_of(b), b.started) for b in batches] == [([1, 2], 2), ([3, 4], 1), ([5], 0)]
    assert hive.waiting() == [[6]]


def test_many_small_batches_are_taken_by_more_and_more(hive: Hive) -> None:
    """What a dead bee had begun comes back one by one; what follows in large batches is left to others."""
    for _ in range(60):
        hive.add(1)
    hive.add(100)
    hive.add(1)
    bee = hive.bee()
    claims = [bee.claim(100, 100, ANY) for _ in range(4)]
    assert [[len(b.jobs) for b in claim] for claim in claims] == [[1] * 8, [1] * 16, [1] * 32, [1] * 4 + [96]]


def test_higher_priority_first_then_oldest(hive: Hive) -> None:
    """As Dask has it."""
    hive.add(1)
    hive.add(1, priority=-1)
    hive.add(1, priority=10)
    hive.add(1)
    bee = hive.bee()
    assert [ids_of(bee.take()) for _ in range(4)] == [[3], [1], [4], [2]]


def test_what_becomes_due_keeps_behind_what_waited_longer(hive: Hive) -> None:
    """A job that is tried again comes after all that was queued when it failed, however many batches that is."""
    hive.add(1)
    bee = hive.bee()
    batch = bee.take()
    for _ in range(12):
        hive.add(1)
    assert bee.miss(batch) == "retried"
    hive.make_due()
    order = [i for _ in range(3) for b in bee.claim(100, 100, ANY) for i in ids_of(b)]
    assert order == [*range(2, 14), 1]


def test_a_locked_header_is_passed_over(hive: Hive, connect: Callable[[], Connection]) -> None:
    """Two bees that claim at once get different jobs, and neither waits for the other."""
    for _ in range(3):
        hive.add(2)
    first, second = hive.bee("a", connect()), hive.bee("b")
    first.connection.run("BEGIN")
    assert ids_of(first.take(2)) == [1, 2]  # and the next one is locked, in case the first had been too short
    assert ids_of(second.take(4)) == [5, 6]
    first.connection.run("COMMIT")
    assert hive.waiting() == [[3, 4]]


def test_only_functions_in_scope_are_claimed(hive: Hive) -> None:
    """A bee takes what it can run, and leaves the rest to others."""
    for function in (0, 1, 2):
        hive.add(1, function=function)
    bee = hive.bee()
    assert bee.claim(9, 9, Scope(only=())) == []
    assert [ids_of(b) for b in bee.claim(9, 9, Scope(only=(1,)))] == [[2]]
    assert [ids_of(b) for b in bee.claim(9, 9, Scope(refused=(0,)))] == [[3]]


def test_jobs_of_a_silent_client_are_not_claimed(line: Connection) -> None:
    """Ten seconds without a sign of the client, and nobody begins what its temporary jobset holds."""
    hive = Hive(line, client=uuid4())
    hive.add(2)
    bee = hive.bee()
    hive.run("UPDATE {jobset} SET seen_at = now() - interval '11 seconds' WHERE number = {number}")
    assert bee.claim(1, 1, ANY) == []
    assert hive.jobset.number not in [j.number for offers in hive.catalogue.offers() for j in offers]
    assert hive.catalogue.touch_client(hive.jobset)
    assert hive.jobset.number in [j.number for offers in hive.catalogue.offers() for j in offers]
    assert ids_of(bee.take(2)) == [1, 2]


def test_jobs_of_a_dropped_jobset_are_not_claimed(hive: Hive) -> None:
    """Marked for dropping is enough: it is as if the tables were gone."""
    hive.add(1)
    bee = hive.bee()
    hive.run("UPDATE {jobset} SET dropped_at = now() WHERE number = {number}")
    with pytest.raises(errors.UndefinedTable):
        bee.claim(1, 1, ANY)
    assert hive.run("SELECT claim FROM {batch} WHERE jobset = {number}") == [(None,)]


def test_a_job_with_an_outcome_is_not_begun_again(hive: Hive) -> None:
    """Work that came back may have been finished meanwhile, by a bee that was taken for dead."""
    hive.add(2)
    zombie, bee = hive.bee("a"), hive.bee("b")
    batch = zombie.take(2)
    zombie.lapse()
    bee.save()
    zombie.succeed(batch, 1, close=False)
    claimed = [i for b in bee.claim(9, 9, ANY) for i in ids_of(b)]
    assert claimed == [2]


def test_a_claim_says_what_was_tried_before(hive: Hive) -> None:
    """Attempts are counted, and hosts whose bees vanished with the job alone."""
    hive.add(1)
    bee = hive.bee()
    assert bee.take().jobs[0].n_attempts == 0
    hive.run(
        "UPDATE {batch} SET bee = NULL, claim = NULL, claimed_at = NULL, started = 0, again = true"
        " WHERE jobset = {number}"
    )
    hive.run(
        "INSERT INTO {attempt} (job, run, kind, bee, host, alone) VALUES (1, 1, 'failed', %(b)s, 'a', false),"
        " (1, 1, 'lost', %(b)s, 'a', true), (1, 1, 'lost', %(b)s, 'b', true), (1, 1, 'lost', %(b)s, 'b', true),"
        " (1, 1, 'lost', %(b)s, 'c', false), (1, 1, 'late', %(b)s, 'd', true)",
        b=str(uuid4()),
    )
    [job] = bee.take().jobs
    assert (job.n_attempts, job.n_hosts_lost) == (5, 2)


def test_offers_name_each_jobset_with_work(line: Connection) -> None:
    """Waiting or due, but neither held nor delayed; a bee without a jobset looks there."""
    waiting, held, delayed, due = (Hive(line) for _ in range(4))
    waiting.add(1)
    held.add(1)
    held.bee().take()
    delayed.add(1, due=4e9)
    due.add(1, due=1.0)
    offered = {j.number for offers in waiting.catalogue.offers() for j in offers}
    assert {waiting.jobset.number, due.jobset.number} <= offered
    assert not {held.jobset.number, delayed.jobset.number} & offered


def test_offers_come_in_portions(line: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobsets have work, each is offered in its turn, waiting or due, and once in a look at all."""
    monkeypatch.setattr("workerbee.store.catalogue.OFFERED_JOBSETS", 3)
    hives = [Hive(line) for _ in range(7)]
    for n, hive in enumerate(hives):
        hive.add(1, due=1.0 if n % 2 else None)
    catalogue, numbers = hives[0].catalogue, {hive.jobset.number for hive in hives}
    firsts = [{j.number for j in next(catalogue.offers())} for _ in range(40)]
    assert all(len(first) <= 3 for first in firsts)
    assert set.union(*firsts) >= numbers
    offered = [j.number for offers in catalogue.offers() for j in offers]
    assert numbers <= set(offered)
    assert len(offered) == len(set(offered))


def test_a_claim_that_a_crash_undoes_leads_to_one_outcome(run_directory: Path) -> None:
    """Claims aren't flushed: the jobs wait again, are run again though they were recorded, and keep their outcome."""
    with servers.server(wal_writer_delay="10s", autovacuum="off") as mortal, closing(Connection(mortal.dsn)) as line:
        schema.ensure(line)
        hive = Hive(line)
        hive.add(2)
        bee, other = hive.bee("a"), hive.bee("b")
        batch = bee.take(2)
        mortal.stop("immediate")
        mortal.start()
        line.drop()
        assert hive.waiting() == [[1, 2]]
        bee.succeed(batch)
        again = other.take(2)
        assert ids_of(again) == [1, 2]
        other.succeed(again)
        assert hive.run("SELECT job, run, bee::text FROM {outcome}") == [(n, 1, str(bee.incarnation)) for n in (1, 2)]
        counts = hive.catalogue.counts(hive.jobset.number)
        assert (counts.completed, counts.late, hive.waiting(), hive.held()) == (2, 2, [], [])


@pytest.mark.parametrize(
    ("budget", "costs", "claimed"),
    [
        (2, {}, [[1, 2]]),
        (2, {1: 0.5}, [[1, 2, 3, 4]]),
        (2, {1: 0.3}, [[1, 2, 3, 4, 5], [6]]),
        (0.1, {1: 0.5}, [[1]]),
        (2, {2: 0.1}, [[1, 2]]),
        (4, {1: 0.6, 2: 0.1}, [[1, 2, 3, 4, 5], list(range(6, 16))]),
        (100, {1: 0.002, 2: 0.002}, [[1, 2, 3, 4, 5], list(range(6, 26)), [26]]),
    ],
)
def test_a_budget_is_spent_by_what_each_functions_jobs_cost(
    hive: Hive, budget: float, costs: dict[int, float], claimed: list[list[int]]
) -> None:
    """Work ahead of the runners is claimed by function: how short the jobs of one are says nothing of others."""
    hive.add(5, function=1)
    hive.add(20, function=2)
    hive.add(1)
    bee = hive.bee()
    assert [ids_of(b) for b in bee.claim(1000, 1000, ANY, budget=budget, costs=costs)] == claimed


def test_a_job_of_an_unknown_function_costs_what_is_said(hive: Hive) -> None:
    """A whole runner, or what those of other functions took at first."""
    for function in range(1, 9):
        hive.add(1, function=function)
    bee = hive.bee()
    assert len(bee.claim(9, 9, ANY, budget=1, costs={1: 0.5})) == 2
    assert [ids_of(b) for b in bee.claim(9, 9, ANY, budget=1, costs={3: 0.5}, other=0.2)] == [[3], [4], [5], [6]]


def test_many_due_jobs_hide_no_urgent_ones(hive: Hive) -> None:
    """By priority and place, whether they have waited for their time or not, and however many are due."""
    plain = hive.add(300)
    hive.run("DELETE FROM {batch} WHERE jobset = {number}")
    put = (
        "INSERT INTO {batch} (jobset, function, run, priority, due_at, jobs)"
        " SELECT {number}, 0, 1, %(p)s, now() - make_interval(secs => %(ago)s), ARRAY[%(job)s::bigint + n]"
        " FROM generate_series(0, 99) n"
    )
    hive.run(put, p=-5, ago=60.0, job=plain[0])
    hive.run(put, p=5, ago=1.0, job=plain[100])
    hive.run(
        "INSERT INTO {batch} (jobset, function, run, jobs)"
        " SELECT {number}, 0, 1, ARRAY[%(job)s::bigint + n] FROM generate_series(0, 99) n",
        job=plain[200],
    )
    bee = hive.bee()
    order: list[int] = []
    while batches := bee.claim(10, 10, ANY):
        order += [job for batch in batches for job in ids_of(batch)]
    assert order == [*plain[100:200], *plain[200:300], *plain[0:100]]


def test_what_was_due_waits_by_its_place(hive: Hive) -> None:
    """What a claim has met and left is no longer looked for by its time; the rest of a cut header neither."""
    hive.add(3, due=1.0)
    hive.add(1, due=2.0)
    assert ids_of(hive.bee().take(1)) == [1]
    assert hive.run("SELECT jobs FROM {batch} WHERE jobset = {number} AND due_at IS NOT NULL") == []
    assert hive.waiting() == [[2, 3], [4]]
