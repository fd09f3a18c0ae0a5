"""What a crew wants to have, from a real runner's jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import UUID

import pytest

from tests import poison
from workerbee import codec, functions
from workerbee.crew import Appetite, Crew, Held, portion
from workerbee.job import Batch, Function, Job, Jobset
from workerbee.signing import Key, Signer
from workerbee.store import Wake

JOBSET = Jobset(1, "jobs", UUID(int=7), None, True, None)
FUNCTION = 3


@pytest.fixture
def crew() -> Iterator[Crew]:
    wake = Wake()
    crew = Crew(1, bee="b", wake=wake, environment=dict(os.environ), max_payload=1000, forward=lambda _: None)
    yield crew
    crew.dismiss()
    wake.close()


def test_how_fast_jobs_end_counts_with_how_they_end(crew: Crew) -> None:
    """Else a bee on which all fails at once would claim much in the moment before it hears of the first failure."""
    signer = Signer(Key.load_or_make(), JOBSET.uuid)
    made = functions.Cache().describe(poison.fail_everywhere)
    mac = signer.sign("function", 0, 0, made.codec, made.digest, made.body)
    crew.know(JOBSET, Function(FUNCTION, made.digest, made.name, made.codec, made.body, made.python, mac))
    call = codec.encode_call((1,), {})
    job = Job(1, 1, call.codec, call.data, signer.sign("call", 1, 0, call.codec, made.digest, call.data))
    held = Held(JOBSET, Batch(1, UUID(int=1), FUNCTION, 1, None, None, False, 1, [job]), {1: job})

    crew.give(held, [job])
    assert crew.appetite() == Appetite(0, 0)
    while not crew.idle:
        crew.serve(60, -1)
    assert crew.appetite() == Appetite(1, 1)
    assert [end.kind for end in crew.collect()] == ["error"]
    assert crew.appetite().claim > 100


@pytest.mark.parametrize(
    ("n_ready", "pace", "expected"),
    [
        (100, None, 1),
        (100, 1.0, 1),
        (100, 0.001, 25),
        (8, 0.001, 4),
        (7, 0.001, 4),
        (20, 0.00001, 50),
        (10_000, 0.0, 250),
    ],
    ids=["unknown", "long", "a moment's work", "a fair share", "rounded up", "not worth dividing", "never more"],
)
def test_a_message_brings_a_moments_work(n_ready: int, pace: float | None, expected: int) -> None:
    """Divided among two runners, unless the messages would cost more than the work."""
    assert portion(n_ready, 2, pace) == expected
