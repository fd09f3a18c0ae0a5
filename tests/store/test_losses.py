"""Runs that nobody will ever end, as their rows were deleted."""

from __future__ import annotations

from tests.store.hive import Hive, failure


def lose(hive: Hive, job: int) -> None:
    """Delete the job's header."""
    hive.run("DELETE FROM {batch} WHERE jobset = {number} AND %(job)s = ANY (jobs)", job=job)


def record(hive: Hive, job: int, run: int = 1) -> int:
    return hive.client.losses.give_up([failure(job, run, "error")], b"cause")


def test_a_lost_run_ends_as_failed(hive: Hive) -> None:
    """Once, whoever notices it; then it can be run anew, and nothing is counted as waiting."""
    [lost, kept] = hive.add(1) + hive.add(1)
    lose(hive, lost)
    assert hive.client.losses.lost([(lost, 1), (kept, 1)]) == [(lost, 1)]
    assert (record(hive, lost), record(hive, lost)) == (1, 0)
    assert (hive.status(lost), hive.status(kept)) == ("failed", "waiting")
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.failed, counts.open) == (1, 1)
    assert hive.client.ended_badly() == [(lost, 1)]


def test_what_stands_in_a_header_is_not_lost(hive: Hive) -> None:
    """Whoever says so."""
    [waiting] = hive.add(1)
    assert record(hive, waiting) == 0
    hive.bee().take()
    assert (record(hive, waiting), hive.status(waiting)) == (0, "running")


def test_only_the_latest_run_of_a_job_that_is_there_ends_so(hive: Hive) -> None:
    """Of others the same call knows what to do."""
    [job] = hive.add(1)
    lose(hive, job)
    hive.run("INSERT INTO {run} (job, run) VALUES (%(job)s, 2)", job=job)
    assert (record(hive, job), record(hive, job, 3), record(hive, 99)) == (0, 0, 0)
    assert record(hive, job, 2) == 1
