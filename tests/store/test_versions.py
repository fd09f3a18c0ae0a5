"""Functions and their versions: which code runs what, and which jobs go last."""

from __future__ import annotations

from tests.store.hive import ANY, Hive, new_job
from workerbee.wire.job import FunctionRow, Options


def batches(hive: Hive) -> list[tuple[int, int, list[int]]]:
    """(function, priority, jobs) of all headers."""
    return hive.run("SELECT function, priority, jobs FROM {batch} WHERE jobset = {number} ORDER BY id")


def add(hive: Hive, function: int, *ids: int, priority: int = 0) -> None:
    assert hive.client.add([new_job(i, function, priority=priority) for i in ids]) == set(ids)


def test_what_waits_is_handed_over(hive: Hive) -> None:
    """To the function that stands in for its own; what a bee has claimed and other functions' jobs stay as they are."""
    add(hive, 1, 1, 2)
    add(hive, 2, 3)
    add(hive, 1, 4, 5)
    held = hive.bee().take(1, start=1)
    assert hive.client.waiting_functions([1, 2, 9]) in ([1, 2], [2, 1])
    assert hive.client.hand_over({1: 7, 9: 8}) == 3
    assert (held.function, sorted(batches(hive))) == (1, [(1, 0, [1]), (2, 0, [3]), (7, 0, [2]), (7, 0, [4, 5])])
    assert hive.client.hand_over({}) == 0
    assert [b.function for b in hive.bee().claim(9, 9, ANY)] == [7, 2, 7]


def test_a_new_run_is_for_who_stands_in(hive: Hive) -> None:
    """And in batches of one function, also where two functions are run by one now."""
    add(hive, 1, 1, 2)
    add(hive, 2, 3)
    add(hive, 3, 4)
    runs = [(n, 1) for n in range(1, 5)]
    hive.client.cancel_waiting(runs)
    assert hive.client.reopen(runs, Options(), {1: 9, 2: 9}) == 4
    assert batches(hive) == [(9, 0, [1, 2, 3]), (3, 0, [4])]
    assert hive.client.ended_badly() == []


def test_superseded_jobs_go_last_and_come_back(hive: Hive) -> None:
    """In their order, by how much they were urgent; those that a bee has stay as they are."""
    add(hive, 1, 1, priority=5)
    add(hive, 1, 2, 3)
    hive.bee().take(1)
    add(hive, 1, 4, priority=-5)
    add(hive, 2, 5, priority=-9)
    assert hive.client.reprioritise([1], -1000, -5000) == 3
    assert hive.client.reprioritise([1], -1000, -5000) == 3  # told again
    assert hive.waiting() == [[5], [2, 3], [4]]
    assert hive.client.open_runs(below=-1000) == [(2, 1), (3, 1), (4, 1)]
    assert hive.client.open_runs([2]) == [(5, 1)]
    assert hive.client.reprioritise([1, 2], -1000, 5000) == 3
    assert hive.waiting() == [[2, 3], [4], [5]]


def test_what_a_function_counts_as_can_be_said_anew(hive: Hive) -> None:
    """It is the one row of a function that may change."""
    record = FunctionRow(0, b"digest", "f", "adopted", b"one", "3.12", b"mac")
    hive.client.put_adoption(record, b"one")
    hive.client.put_adoption(record._replace(body=b"two", mac=b"other"), b"two")
    [row] = hive.client.versions("f")
    assert (row.identity, row.codec) == (b"two", "adopted")
    found = hive.client.get_function(row.number)
    assert found is not None
    assert (found.body, found.mac) == (b"two", b"other")
