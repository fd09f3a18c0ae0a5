"""Adding: jobs and the batches that bring them, stored together and once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.store.hive import ANY, Hive, ids_of, new_job, until_waiting
from tests.waiting import eventually
from workerbee.store import ClientStore, Connection, client
from workerbee.wire.job import EndKind, FunctionRow, NewJob, Options, Outcome


def test_added_jobs_wait(hive: Hive) -> None:
    """They are readable at once, and in a batch that can be claimed."""
    assert hive.add(3) == [1, 2, 3]
    assert hive.waiting() == [[1, 2, 3]]
    assert hive.run("SELECT id, input_data, status, n_claims FROM {view} ORDER BY id")[2] == (3, {"n": 3}, "waiting", 0)


def test_a_batch_stays_small(hive: Hive) -> None:
    """Headers are cut at 200 jobs, so that claiming never rewrites a long array."""
    hive.add(450)
    assert [len(jobs) for jobs in hive.waiting()] == [200, 200, 50]


def test_adding_again_adds_nothing(hive: Hive) -> None:
    """After a COMMIT whose answer was lost the same jobs are sent once more: no job and no batch is doubled."""
    jobs = [new_job(1), new_job(2, digest=b"two")]
    assert hive.client.add(jobs) == {1, 2}
    assert hive.client.add(jobs) == set()
    assert hive.waiting() == [[1, 2]]
    assert hive.catalogue.counts(hive.jobset.number).added == 2


def test_the_same_call_is_one_job(hive: Hive) -> None:
    """Whoever submits a call that is there gets to know its job, and only what is new is added."""
    hive.client.add([new_job(1, digest=b"one")])
    assert hive.client.add([new_job(2, digest=b"one"), new_job(3, digest=b"three")]) == {3}
    same = hive.client.same_calls([b"one", b"three", b"four"])
    assert {digest: call.job for digest, call in same.items()} == {b"one": 1, b"three": 3}


def test_whole_is_all_or_none(hive: Hive) -> None:
    """One job that is there keeps the others out, by its input or by its id."""
    hive.client.add([new_job(1, digest=b"one", key=b"k")])
    assert hive.client.add([new_job(2, digest=b"two"), new_job(3, digest=b"one")], whole=True) == set()
    assert hive.client.add([new_job(2, digest=b"two"), new_job(3, digest=b"x", key=b"k")], whole=True) == set()
    assert hive.waiting() == [[1]]
    assert hive.client.taken_inputs([b"one", b"two"], [b"k"]) == ({b"one": 1}, {b"k": 1})
    assert hive.client.add([new_job(2, digest=b"two")], whole=True) == {2}


@pytest.mark.parametrize(
    ("limit", "most"),
    [("statement_timeout", "150ms"), ("transaction_timeout", "300ms"), ("idle_in_transaction_session_timeout", "1ms")],
)
def test_what_is_added_as_a_whole_may_take_its_time(
    hive: Hive, connect: Callable[[], Connection], monkeypatch: pytest.MonkeyPatch, limit: str, most: str
) -> None:
    """Whatever the server's limits are by default: each try would meet them again. Afterwards they are as they were."""
    line = connect()
    if limit == "transaction_timeout" and line.run("SHOW server_version_num") < [("170000",)]:
        pytest.skip("this server knows no such limit")
    monkeypatch.setattr(client, "PORTION", (2000, 4_000_000))
    hive.run(
        "CREATE OR REPLACE FUNCTION public.pause() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_catalog.pg_sleep(0.2); RETURN NULL; END $$"
    )
    hive.run("CREATE TRIGGER pause AFTER INSERT ON {job} FOR EACH STATEMENT EXECUTE FUNCTION public.pause()")
    line.run(f"SET {limit} = '{most}'")
    jobs = [new_job(n) for n in range(1, 6001)]
    assert ClientStore(line, hive.jobset, uuid4()).add(jobs, whole=True) == set(range(1, 6001))
    assert line.run(f"SHOW {limit}") == [(most,)]


def test_options_and_functions_get_batches_of_their_own(hive: Hive) -> None:
    """What differs in how it is to be run doesn't share a header."""
    jobs = [new_job(1), new_job(2, priority=5), new_job(3, function=9), new_job(4, timeout=2.0, max_attempts=4)]
    hive.client.add(jobs)
    assert hive.waiting() == [[2], [1], [3], [4]]
    [row] = hive.run("SELECT timeout, max_attempts FROM {batch} WHERE jobset = {number} AND jobs = '{{4}}'")
    assert row == (2.0, 4)


def test_a_large_value_comes_back_whole(hive: Hive) -> None:
    """What is too large for one statement travels in parts, as input and as result."""
    data = b'"%s"' % (b"x" * 1_200_000)
    hive.client.add([NewJob(1, 0, Options(), "json", data, b"m", None)])
    bee = hive.bee()
    batch = bee.take()
    assert batch.jobs[0].data == data
    bee.complete([result(data)], [batch], hint=None)
    [[stored]] = hive.client.finished([1])
    assert (stored.codec, stored.data) == ("json", data)


def result(data: bytes) -> Outcome:
    return Outcome(1, 1, EndKind.COMPLETED, "json", data, None, 0.1)


def test_parts_of_one_try_are_not_mixed_with_another(hive: Hive) -> None:
    """Two executions may write the same job's large result at once: each reads back its own parts."""
    hive.add(1)
    bees = [hive.bee("a"), hive.bee("b")]
    first, second = (b'"%s"' % (letter * 1_100_000) for letter in (b"a", b"b"))
    bees[0].take()
    bees[0].complete([result(first)], [], hint=None)
    bees[1].complete([result(second)], [], hint=None)
    assert next(hive.client.finished([1]))[0].data == first


@pytest.mark.parametrize("unique", ["digest", "key"])
def test_overlapping_submitters_do_not_deadlock(hive: Hive, connect: Callable[[], Connection], unique: str) -> None:
    """Two clients that insert the same calls in different orders take turns."""
    marks = [b"a", b"b"]

    def job(number: int, mark: bytes) -> NewJob:
        # By key: the digests run against the keys.
        other = b"%d" % (9 - number)
        return new_job(number, digest=mark) if unique == "digest" else new_job(number, digest=other, key=mark)

    one, other = (ClientStore(connect(), hive.jobset, hive.jobset.uuid) for _ in range(2))
    one.connection.run("BEGIN")
    one.add([job(1, marks[0])])
    outcome: list[object] = []

    def add_both() -> None:
        try:
            outcome.append(other.add([job(3, marks[1]), job(4, marks[0])]))
        except BaseException as error:  # noqa: BLE001
            outcome.append(error)

    thread = threading.Thread(target=add_both)
    thread.start()
    eventually(lambda: hive.run("SELECT 1 FROM pg_locks WHERE NOT granted"), what="the second client waiting")
    assert one.add([job(2, marks[1])]) == {2}
    one.connection.run("COMMIT")
    thread.join(10)
    assert outcome == [set()]


def test_batches_wait_in_the_order_of_what_they_bring(hive: Hive) -> None:
    """A call that is there already leaves its batch, and no place in front of the others."""
    hive.client.add([new_job(1, digest=b"there")])
    hive.bee("a").take()
    known, new = new_job(2, digest=b"there", timeout=1.0), new_job(4, timeout=1.0)
    assert hive.client.add([known, new_job(3), new]) == {3, 4}
    assert [ids_of(b) for b in hive.bee("b").claim(9, 9, ANY)] == [[3], [4]]


def test_reserved_ids_are_never_given_twice(hive: Hive) -> None:
    """Each block follows the one before; a dropped jobset has none to give."""
    catalogue = hive.catalogue
    assert [catalogue.reserve_jobs(hive.jobset, n) for n in (10, 5, 1)] == [1, 11, 16]
    hive.run("UPDATE {jobset} SET dropped_at = now() WHERE number = {number}")  # its tables are in use
    assert catalogue.reserve_jobs(hive.jobset, 1) is None


def test_delayed_jobs_wait_for_their_time(hive: Hive) -> None:
    """``run_at`` is kept by the database's clock."""
    [(now,)] = hive.run("SELECT extract(epoch FROM now())::double precision")
    hive.add(1, due=now + 3600)
    hive.add(1, due=now - 1)
    assert ids_of(hive.bee().take(5)) == [2]


def test_a_function_that_another_client_is_storing_is_one(hive: Hive, connect: Callable[[], Connection]) -> None:
    """What the other one commits meanwhile can't be seen in the snapshot of the statement that waited for it."""
    function = FunctionRow(0, b"digest", "f", "pickle", b"body", "3.12", b"mac")
    other = ClientStore(connect(), hive.jobset, uuid4())
    other.connection.run("BEGIN")
    numbers = [other.put_function(function, b"identity")]
    until_waiting(
        lambda: numbers.append(hive.client.put_function(function, b"identity")),
        connect(),
        what="the second client",
        then=other.connection,
    )
    assert numbers == [1, 1]
