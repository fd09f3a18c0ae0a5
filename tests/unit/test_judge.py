"""What each kind of end is recorded as, and how many of them end the run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest

from workerbee.bee.crew import DEATHS
from workerbee.bee.holdings import Held, Served
from workerbee.bee.judge import UNLIMITED, Judge
from workerbee.bee.tasks import End, Task
from workerbee.store import Limits
from workerbee.wire.failures import decode_error
from workerbee.wire.job import ATTEMPTS, NO_FUNCTION, Batch, EndKind, Job
from workerbee.wire.signing import Key, Signer

ATTEMPTS_IN_ALL = 7
UUID_OF_ALL = UUID(int=7)


def ended(kind: EndKind, *, function: int = 3) -> End:
    job = Job(1, 1, "json", b"{}", None, n_attempts=2)
    batch = Batch(9, UUID(int=1), function, 1, 2.5, None, False, 1, [job])
    served = cast("Served", SimpleNamespace(jobset=SimpleNamespace(uuid=UUID_OF_ALL)))
    held = Held((1, function), batch.timeout, None, served, batch, {1: job})
    return End(Task(held, job), kind, "error", b'{"type": "E"}', b"mac", 0.5, "killed by SIGKILL")


def judge() -> Judge:
    return Judge(bee="b", host="h", limits=Limits(ATTEMPTS_IN_ALL))


@pytest.mark.parametrize(
    ("kind", "recorded", "limit", "said"),
    [
        (EndKind.FAILED, EndKind.FAILED, ATTEMPTS_IN_ALL, None),
        (EndKind.ERROR, EndKind.ERROR, 1, None),
        (EndKind.TIMEOUT, EndKind.ERROR, 1, "TimeoutError: job 1 ran longer than its timeout of 2.5 s"),
        (EndKind.REFUSED, EndKind.ERROR, 1, "workerbee.errors.FunctionUnavailable: killed by SIGKILL"),
        (EndKind.DIED, EndKind.DIED, DEATHS, "workerbee.errors.RunnerDiedError: job 1 ended its runner"),
        (EndKind.LOST, EndKind.LOST, 1, "workerbee.errors.RunnerDiedError: job 1 was lost with its bee"),
        (
            EndKind.ORPHANED,
            EndKind.LOST,
            UNLIMITED,
            "workerbee.errors.RunnerDiedError: job 1 was lost with the process",
        ),
    ],
)
def test_what_is_charged(kind: EndKind, recorded: EndKind, limit: int, said: str | None) -> None:
    """A runner's own error as it is; what it couldn't say itself is said for it."""
    outcome, limits = judge().charge(ended(kind))
    assert (outcome.kind, limits.attempts) == (recorded, limit)
    assert recorded in ATTEMPTS
    if said is None:
        assert (outcome.data, outcome.mac) == (b'{"type": "E"}', b"mac")
    else:
        record = json.loads(outcome.data)
        assert f"{record['type']}: {record['message']}".startswith(said)
        assert record["notes"] == ["job 1, attempt 3, bee b, host h"]


@pytest.mark.parametrize("function", [3, NO_FUNCTION])
def test_what_is_said_for_a_job_is_signed_as_its_own_would_be(function: int) -> None:
    """Jobs without a function are nobody's, and their ends text."""
    deciding = judge()
    deciding.key = key = Key(bytes(32))
    outcome, _ = deciding.charge(ended(EndKind.DIED, function=function))
    signer = Signer(key, UUID_OF_ALL)
    is_signed = signer.verify_end(outcome.mac, 1, 1, "error", outcome.data, is_value=False)
    assert is_signed == (function != NO_FUNCTION)
    assert "job 1 ended its runner" in str(decode_error(outcome.data, trusted=is_signed))


def test_a_result_that_postgresql_refuses_is_an_error() -> None:
    end = judge().unstored(ended(EndKind.COMPLETED), ValueError("no"))
    assert end.kind is EndKind.ERROR
    assert json.loads(end.data)["type"] == "workerbee.errors.EncodingError"


def test_the_tables_know_the_kinds_of_attempts() -> None:
    """And no others."""
    made = resources.files("workerbee.store").joinpath("jobset.sql").read_text("utf-8")
    [checked] = re.findall(r"CHECK \(kind IN \(([^)]*)\)\)", made)
    assert {word.strip(" '\n") for word in checked.split(",")} == {str(kind) for kind in ATTEMPTS}


def rows_of_the_architecture() -> Iterator[tuple[EndKind, str]]:
    """The kinds of ends in its table, and as what each is recorded."""
    text = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text("utf-8")
    for row in text.partition("(`EndKind`):")[2].partition("\n\n## ")[0].splitlines()[4:]:
        _, kinds, _, _, recorded, _ = row.split("|")
        yield from ((EndKind(kind.strip()), recorded.strip()) for kind in kinds.split(","))


def test_the_architecture_names_each_kind_of_end_once() -> None:
    assert sorted(kind for kind, _ in rows_of_the_architecture()) == sorted(EndKind)


def test_an_end_is_charged_as_the_architecture_says() -> None:
    """What ends no run there is recorded as nothing, or by the database alone."""
    ways = {
        "at once": 1,
        "at the third": DEATHS,
        "at the limit of attempts": ATTEMPTS_IN_ALL,
        "never by itself": UNLIMITED,
    }
    charged = {kind: said.split(": ") for kind, said in rows_of_the_architecture() if ": " in said}
    assert charged.keys() >= {EndKind.FAILED, EndKind.ERROR, EndKind.TIMEOUT, EndKind.DIED, EndKind.ORPHANED}
    for kind, (recorded, ends) in charged.items():
        outcome, limits = judge().charge(ended(kind))
        assert outcome.kind == recorded, kind
        assert limits.attempts == ways.get(ends, 1), kind
