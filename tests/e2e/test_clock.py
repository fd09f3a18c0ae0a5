"""A server whose clock is set while bees work: by libfaketime, where it is installed."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import jobs
from tests.bees import Bee
from tests.clocks import LIBRARIES, Clock
from tests.servers import Server
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor

pytestmark = pytest.mark.skipif(not LIBRARIES, reason="libfaketime isn't installed")


@pytest.fixture
def clock() -> Iterator[Clock]:
    directory = Path(tempfile.mkdtemp(prefix="workerbee-clock-"))
    yield Clock(directory)
    shutil.rmtree(directory)


@pytest.fixture
def server(clock: Clock) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in clock.environment.items():
            patch.setenv(name, value)
        running = Server()
    yield running
    running.close()


def test_steps_of_the_servers_clock(clock: Clock, server: Server, tmp_path: Path) -> None:
    """Forward: nothing is taken from bees that live. An hour back: who is killed then is missed as soon as ever."""
    record, gates = tmp_path / "record", [tmp_path / "gate", tmp_path / "other"]
    with (
        WorkerbeeExecutor(0, jobset_id="work", dsn=server.dsn) as executor,
        Bee(server.dsn, "work", "--busywait") as holder,
    ):
        once = executor.with_options(speculate=False)
        first = once.submit(jobs.gated, str(record), "first", str(gates[0]))
        eventually(lambda: jobs.noted(record))
        with Bee(server.dsn, "work", "--busywait") as other:
            other.says("serves")
            served = (
                "SELECT 1 FROM workerbee.\"bee$\" WHERE served_since < now() - interval '4.5 s' HAVING count(*) = 2"
            )
            eventually(lambda: server.execute(served))
            clock.set(5)
            for bee in (holder, other):
                bee.says(r"clock was set forward .* by [45]\.\d s")
            eventually(lambda: server.execute(served))
            assert server.execute('SELECT kind FROM workerbee."attempt$1"') == []
            gates[0].touch()
            assert first.result(30) == "first"

            second = once.submit(jobs.gated, str(record), "second", str(gates[1]))
            eventually(lambda: len(jobs.noted(record)) == 2)
            bees = {bee.process.pid: bee for bee in (holder, other)}
            gone = bees.pop(jobs.noted(record)[-1][1])
            [left] = bees.values()
            gone.process.send_signal(signal.SIGSTOP)
            clock.set(-3600)
            gone.kill()
            left.says(r"clock was set back by 360\d\.\d s")
            left.says("took back the work")
            gates[1].touch()
            assert second.result(30) == "second"
    assert server.execute('SELECT kind FROM workerbee."attempt$1"') == [("lost",)]
    assert [key for key, _ in jobs.noted(record)] == ["first", "second", "second"]
