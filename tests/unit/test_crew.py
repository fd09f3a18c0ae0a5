"""What a crew wants to have, from a real runner's jobs."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from tests import jobs, poison
from workerbee.bee.crew import Crew, seconds_to_next
from workerbee.bee.pace import MOVED_SECONDS, SATED
from workerbee.bee.tasks import End, Lot, Record
from workerbee.orders import Orders
from workerbee.program import Program
from workerbee.wire import codec, functions
from workerbee.wire.job import FunctionRow, Job, Jobset
from workerbee.wire.signing import Key, Signer

JOBSET = Jobset(1, "jobs", UUID(int=7), None, True, None)
NUMBER = 3
FUNCTION = (JOBSET.number, NUMBER)


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew(Orders("", max_payload=1000), program=Program.here().dumps())
    yield crew
    crew.dismiss()


def teach(
    crew: Crew, fn: Callable[..., object], timeout: float | None = None
) -> Callable[[list[tuple[object, ...]]], None]:
    """Have the crew know the function; what gives it calls with these arguments, as jobs 1, 2, …."""
    signer = Signer(Key.load_or_make(), JOBSET.uuid)
    made = functions.Cache().describe(fn)
    mac = signer.sign_function(made.codec, made.digest, made.body)
    function = FunctionRow(NUMBER, made.digest, made.name, made.codec, made.body, made.python, mac)
    record = Record(str(JOBSET.uuid), tuple(function), 0.0)
    numbers = count(1)

    def give(calls: list[tuple[object, ...]]) -> None:
        batch = []
        for n, args in zip(numbers, calls, strict=False):
            call = codec.encode_call(args, {})
            mac = signer.sign_call(n, call.codec, made.digest, call.data)
            batch.append(Job(n, 1, call.codec, call.data, mac))
        crew.give(Lot(FUNCTION, timeout, record), batch)

    return give


def test_how_fast_jobs_end_counts_with_how_they_end(crew: Crew) -> None:
    """Else a bee on which all fails at once would claim much in the moment before it hears of the first failure."""
    teach(crew, poison.fail_everywhere)([(1,)])
    assert crew.appetite() == SATED
    while not crew.n_idle:
        crew.serve(60, -1)
    assert crew.pace.costs(JOBSET.number) == {}
    assert crew.room_for(FUNCTION) == 1
    assert [end.kind for end in crew.collect()] == ["error"]
    assert crew.room_for(FUNCTION) > 100


def test_results_wait_with_their_runners_while_there_is_no_room() -> None:
    """However many runners there are; nothing is lost meanwhile, and nobody is killed for having to wait."""
    crew = Crew(Orders("", workers=4, max_payload=10_000_000), program=Program.here().dumps())
    room = crew._hiring.room
    room.most = 7_000_000
    try:
        teach(crew, bytes, timeout=1.0)([(3_000_000,)] * 8)
        while not any(runner.channel.is_held_up for runner in crew._runners):
            crew.serve(60, -1)
        crew.serve(1.2, -1, only=True)
        n_ended = 0
        while n_ended < 8:
            assert room.held <= room.most
            ends = [end for end in crew.collect() if isinstance(end, End)]
            assert {(end.kind, len(end.data) > 3_000_000) for end in ends} <= {("completed", True)}
            n_ended += len(ends)
            del ends
            crew.serve(60 if n_ended < 8 else 0, -1)
        assert room.held == 0
    finally:
        crew.dismiss()


def test_what_waits_behind_a_long_job_runs_once(crew: Crew, tmp_path: Path) -> None:
    """It is taken back, again and again while the ends of the jobs before are still to come, and given out anew."""
    record = tmp_path / "record"
    give = teach(crew, jobs.slowly)

    def work(seconds: list[float]) -> None:
        give([(str(record), n, s) for n, s in enumerate(seconds)])
        while not crew.is_empty:
            crew.serve(60, -1)
            crew.collect()

    work([0.0] * 100)  # from then on many of them make one message
    record.unlink()
    work([0.0] * 10 + [0.5] + [0.0] * 10)
    assert Counter(key for key, _ in jobs.noted(record)) == {str(n): 1 for n in range(21)}


@pytest.mark.parametrize("pace", [0.0001, 0.01])
def test_an_idle_runner_gets_what_waits_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pace: float) -> None:
    """At once, and not only when that turns out to be long; however long such jobs have taken so far."""
    for module in ("crew", "runner_process"):
        monkeypatch.setattr(f"workerbee.bee.{module}.STUCK_SECONDS", 1000.0)
    record, gate, closed = tmp_path / "record", tmp_path / "gate", tmp_path / "closed"
    gate.touch()
    crew = Crew(Orders("", workers=2, max_payload=1000), program=Program.here().dumps())
    try:
        give = teach(crew, jobs.gated)
        for _ in range(100):
            crew.pace.learn(FUNCTION, pace)
        give([(str(record), n, str(gate if n else closed)) for n in range(4)])
        ended: list[int] = []
        deadline = time.monotonic() + 30
        while len(ended) < 3:
            assert time.monotonic() < deadline
            crew.serve(60, -1)
            ended += [end.task.job.id for end in crew.collect() if isinstance(end, End)]
        assert sorted(ended) == [2, 3, 4]
        closed.touch()
        while not crew.is_empty:
            crew.serve(60, -1)
            crew.collect()
    finally:
        crew.dismiss()


def test_what_was_not_begun_is_no_reason_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a moment: a bee doesn't look again and again at a runner that is late with all that it has got."""
    crew = Crew(Orders("", workers=2, max_payload=1000), program=Program.here().dumps())

    def work() -> None:
        while not crew.is_empty:
            crew.serve(60, -1)
            crew.collect()

    try:
        give = teach(crew, jobs.double)
        give([(1,), (2,)])
        work()
        late = crew._runners[0]
        assert late.process is not None
        for n, first_look in ((1, False), (2, True)):
            os.kill(late.process.pid, signal.SIGSTOP)
            for _ in range(100):
                crew.pace.learn(FUNCTION, 1e-5)
            give([(3,)] * n)
            assert len(late.in_hand) == n
            assert (seconds_to_next(crew._runners) == MOVED_SECONDS) is first_look
            with monkeypatch.context() as later:
                later.setattr("workerbee.bee.runner_process.STUCK_SECONDS", 0.0)
                assert not any(runner.has_waiting for runner in crew._runners)
            os.kill(late.process.pid, signal.SIGCONT)
            work()
    finally:
        crew.dismiss()


def test_what_has_not_begun_is_given_back_when_it_is_wanted(crew: Crew, tmp_path: Path) -> None:
    """Also what a runner has got already; and none is taken ahead then, until a job has ended."""
    record, gate = tmp_path / "record", tmp_path / "gate"
    give = teach(crew, jobs.gated)
    for _ in range(100):  # all known to be quick
        crew.pace.learn(FUNCTION, 1e-4)
    crew.pace.judge()
    give([(str(record), n, str(gate)) for n in range(100)])
    while not jobs.noted(record):
        crew.serve(0.05, -1)
    assert crew.appetite().jobs > 100
    assert crew.recall(JOBSET.number + 1) == []
    assert sorted(task.job.id for task in crew.recall(JOBSET.number)) == list(range(2, 101))
    assert (crew.appetite(), crew.room_for(FUNCTION)) == (SATED, 1)
    gate.touch()
    while not crew.is_empty:
        crew.serve(60, -1)
        crew.collect()
    assert crew.appetite().jobs > 100
    assert len(jobs.noted(record)) == 1


def test_preparing_has_a_limit(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that hangs ends as a job does that takes too long."""
    monkeypatch.setattr("workerbee.bee.runner_process.PREPARATION_SECONDS", 0.2)
    teach(crew, poison.HangWhenLoaded(), timeout=0.01)([()])
    ends = []
    while not ends:
        crew.serve(60, -1)
        ends = crew.collect()
    assert [end.kind for end in ends] == ["timeout"]
