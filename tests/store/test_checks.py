"""Rows that can't be: the tables of the tests' databases refuse them, whoever writes (`tests/impossible.sql`)."""

from __future__ import annotations

import pytest
from psycopg2 import errors

from tests.store.hive import Hive

BATCH = (
    "INSERT INTO {batch} (jobset, function, run, jobs, bee, claim, claimed_at, started, copy_of, timeout, max_attempts)"
)
UUID = "'00000000-0000-0000-0000-000000000001'"


@pytest.mark.parametrize(
    "values",
    [
        f"0, '{{{{1}}}}', {UUID}, NULL, NULL, 0, NULL, NULL, NULL",
        f"1, '{{{{1}}}}', {UUID}, NULL, NULL, 0, NULL, NULL, NULL",
        f"1, '{{{{1}}}}', {UUID}, {UUID}, NULL, 0, NULL, NULL, NULL",
        f"1, '{{{{1}}}}', {UUID}, {UUID}, now(), 2, NULL, NULL, NULL",
        f"1, '{{{{1}}}}', {UUID}, {UUID}, now(), -1, NULL, NULL, NULL",
        "1, '{{1}}', NULL, NULL, NULL, 1, NULL, NULL, NULL",
        "1, '{{1}}', NULL, NULL, NULL, 0, 5, NULL, NULL",
        "1, '{{}}', NULL, NULL, NULL, 0, NULL, NULL, NULL",
        "1, '{{1}}', NULL, NULL, NULL, 0, NULL, 0, NULL",
        "1, '{{1}}', NULL, NULL, NULL, 0, NULL, NULL, 0",
    ],
    ids=[
        "run 0",
        "a holder without a claim",
        "a claim without its time",
        "more begun than there is",
        "less than nothing begun",
        "begun and held by nobody",
        "a copy held by nobody",
        "nothing waits",
        "no time at all",
        "no attempt at all",
    ],
)
def test_impossible_batches_are_refused(hive: Hive, values: str) -> None:
    """What no edge of a batch's life leads to can't be written."""
    with pytest.raises(errors.CheckViolation):
        hive.run(f"{BATCH} SELECT {{number}}, 0, {values}")


@pytest.mark.parametrize(
    "row",
    [
        "{outcome} (job, run, status) VALUES (1, 1, 'completed')",
        "{outcome} (job, run, status, codec) VALUES (1, 1, 'cancelled', 'json')",
        "{run} (job, run) VALUES (1, 1)",
        "{job} (id, codec) VALUES (1, 'xml')",
        "{attempt} (job, run, kind, bee, host) VALUES (1, 1, 'bored', " + UUID + ", 'h')",
    ],
)
def test_impossible_rows_of_a_jobset_are_refused(hive: Hive, row: str) -> None:
    """An outcome has a value only if it is one; runs beyond the first are rows."""
    with pytest.raises(errors.CheckViolation):
        hive.run("INSERT INTO " + row)


@pytest.mark.parametrize(
    "values",
    [
        f"'Capital', {UUID}, NULL, NULL",
        f"'', {UUID}, NULL, NULL",
        f"'{'x' * 49}', {UUID}, NULL, NULL",
        f"'named', {UUID}, {UUID}, now()",
        f"NULL, {UUID}, NULL, NULL",
        f"NULL, {UUID}, {UUID}, NULL",
    ],
    ids=["capital", "empty", "49", "named and temporary", "neither", "never seen"],
)
def test_impossible_jobsets_are_refused(hive: Hive, values: str) -> None:
    """An id that could not name a view, and a temporary jobset without its client."""
    with pytest.raises(errors.CheckViolation):
        hive.run("INSERT INTO {jobset} (id, uuid, client, seen_at, speculate) SELECT " + values + ", true")


def test_an_outcome_is_one_of_three(hive: Hive) -> None:
    """What isn't terminal is no outcome."""
    with pytest.raises(errors.InvalidTextRepresentation):
        hive.run("INSERT INTO {outcome} (job, run, status) VALUES (1, 1, 'running')")


def test_a_second_outcome_of_a_run_is_refused(hive: Hive) -> None:
    """One outcome a (job, run)."""
    hive.run("INSERT INTO {outcome} (job, run, status) VALUES (1, 1, 'cancelled')")
    with pytest.raises(errors.UniqueViolation):
        hive.run("INSERT INTO {outcome} (job, run, status, codec) VALUES (1, 1, 'completed', 'json')")
