"""What a crew wants to have, from a real runner's jobs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from tests import jobs, poison
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


def teach(crew: Crew, function: Callable[..., object]) -> Callable[[list[tuple[object, ...]]], Held]:
    """Have the crew know the function; what makes a held batch of calls with these arguments."""
    signer = Signer(Key.load_or_make(), JOBSET.uuid)
    made = functions.Cache().describe(function)
    mac = signer.sign("function", 0, 0, made.codec, made.digest, made.body)
    crew.know(JOBSET, Function(FUNCTION, made.digest, made.name, made.codec, made.body, made.python, mac))
    numbers = count(1)

    def hold(calls: list[tuple[object, ...]]) -> Held:
        batch = []
        for n, args in zip(numbers, calls, strict=False):
            call = codec.encode_call(args, {})
            mac = signer.sign("call", n, 0, call.codec, made.digest, call.data)
            batch.append(Job(n, 1, call.codec, call.data, mac))
        held = Batch(batch[0].id, UUID(int=1), FUNCTION, 1, None, None, False, len(batch), batch)
        return Held(JOBSET, held, {job.id: job for job in batch})

    return hold


def test_how_fast_jobs_end_counts_with_how_they_end(crew: Crew) -> None:
    """Else a bee on which all fails at once would claim much in the moment before it hears of the first failure."""
    held = teach(crew, poison.fail_everywhere)([(1,)])
    [job] = held.open.values()

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


def test_what_waits_behind_a_long_job_runs_once(crew: Crew, tmp_path: Path) -> None:
    """It is taken back, again and again while the ends of the jobs before are still to come, and given out anew."""
    record = tmp_path / "record"
    hold = teach(crew, jobs.slowly)

    def work(seconds: list[float]) -> None:
        held = hold([(str(record), n, s) for n, s in enumerate(seconds)])
        crew.give(held, list(held.open.values()))
        while not crew.empty:
            crew.serve(60, -1)
            crew.collect()

    work([0.0] * 100)  # from then on many of them make one message
    record.unlink()
    work([0.0] * 10 + [0.5] + [0.0] * 10)
    assert Counter(key for key, _ in jobs.noted(record)) == {str(n): 1 for n in range(21)}
