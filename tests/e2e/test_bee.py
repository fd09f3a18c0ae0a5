"""Bees as processes: they come and go as they like, by order or by accident, and the work gets done."""

from __future__ import annotations

import logging
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests import jobs
from tests.bees import PROJECT, Bee
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee._version import __version__
from workerbee.client import watcher
from workerbee.errors import RunnerDiedError

NewBee = Callable[..., Bee]
NewClient = Callable[..., WorkerbeeExecutor]


@pytest.fixture
def bee(database: Database) -> Iterator[NewBee]:
    """Starts bees, which end with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Bee(database.dsn, *arguments, **options))


@pytest.fixture
def client(database: Database) -> Iterator[NewClient]:
    """Makes executors of the durable jobset ``work`` (or another) without bees of their own."""
    made = []

    def new(jobset_id: str | None = "work", max_workers: int = 0) -> WorkerbeeExecutor:
        made.append(WorkerbeeExecutor(max_workers, jobset_id=jobset_id, dsn=database.dsn))
        return made[-1]

    yield new
    for executor in made:
        executor.shutdown(wait=False)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Where jobs note that they were run, and by which bee."""
    return tmp_path / "record"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The file that gated jobs wait for."""
    return tmp_path / "gate"


def attempts(database: Database, number: int = 1) -> Counter[str]:
    return Counter(kind for (kind,) in database.execute(f'SELECT kind FROM workerbee."attempt${number}"'))


def statuses(database: Database, jobset: str = "work") -> Counter[str]:
    return Counter(status for (status,) in database.execute(f"SELECT status FROM workerbee.{jobset}"))


# Coming and going


def test_bees_started_before_during_and_after_the_jobs_join_in(bee: NewBee, client: NewClient, record: Path) -> None:
    """A bee that was there before the jobset works with one that came later, and the last one finds nothing to do."""
    before = bee("work")
    before.says("waiting")
    executor = client()
    during, futures = None, []
    for _ in range(60):  # a bee takes a moment to start
        futures += [executor.submit(jobs.slowly, str(record), n, 0.02) for n in range(len(futures), len(futures) + 50)]
        eventually(lambda: jobs.noted(record))
        during = during or bee("work")
        wait(futures, 60)
        if len(workers := {pid for _, pid in jobs.noted(record)}) > 1:
            break
    assert [f.result(0) for f in futures] == list(range(len(futures)))
    assert during is not None
    assert workers == {before.process.pid, during.process.pid}
    after = bee("work")
    assert [b.wait() for b in (before, during, after)] == [0, 0, 0]


def test_a_bee_without_an_id_serves_every_jobset(bee: NewBee, client: NewClient) -> None:
    """It runs what is in any jobset, those included that are made while it runs."""
    first = client("first").submit(jobs.double, 1)
    everyone = bee()
    assert first.result(30) == 2
    assert client("second").submit(jobs.double, 2).result(30) == 4
    assert client(None).submit(jobs.double, 3).result(30) == 6
    everyone.terminate()
    assert everyone.wait() == 0


def test_four_bees_and_a_client_agree_in_all_counts(
    bee: NewBee, client: NewClient, database: Database, record: Path, gate: Path
) -> None:
    """Each of many jobs is run once, by all the bees together, and the tables say the same."""
    bees = {bee("work", "--busywait").process.pid for _ in range(4)}
    n = 8000
    with client() as executor:
        once = executor.with_options(speculate=False)
        first = [once.submit(jobs.gated, str(record), i, str(gate)) for i in range(4)]
        eventually(lambda: {pid for _, pid in jobs.noted(record)} == bees)  # none starts when all is done
        gate.touch()
        assert [future.result(30) for future in first] == list(range(4))
        assert list(once.map(jobs.note, [str(record)] * (n - 4), range(4, n))) == list(range(4, n))
        counts = executor.progress()
    executions = jobs.noted(record)
    assert sorted(int(key) for key, _ in executions) == list(range(n))
    assert {pid for _, pid in executions} == bees
    assert (counts.added, counts.completed, counts.open) == (n, n, 0)
    [row] = database.execute(
        "SELECT count(*), count(DISTINCT id), sum(n_claims), sum(n_failed_attempts),"
        " count(*) FILTER (WHERE status = 'completed' AND output_data::text::int = (input_data->'args'->>1)::int)"
        " FROM workerbee.work"
    )
    assert row == (n, n, n, 0, n)


def test_a_bee_says_by_what_batch_job_it_was_started(bee: NewBee, client: NewClient, database: Database) -> None:
    """And when that ends, if it does before the bee's own lifetime is over; with its processors and version."""
    client()
    task = {
        "SLURM_ARRAY_JOB_ID": "4700",
        "SLURM_ARRAY_TASK_ID": "11",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 3600),
    }
    query = """
        SELECT launch, place, round(extract(epoch FROM ends_at - now()) / 600), cpus > 0, version, python
          FROM workerbee."bee$" WHERE pid = %s"""
    facts = (True, __version__, platform.python_version())
    for lifetime, tens_of_minutes in (("1000000", 6), ("1200", 2)):
        started = bee("--lifetime", lifetime, environment=task)
        [row] = eventually(partial(database.execute, query, started.process.pid))
        assert row == ("slurm 4700", 11, tens_of_minutes, *facts)


def test_a_bee_ends_when_its_jobset_is_exhausted(bee: NewBee, client: NewClient) -> None:
    """All jobs done: exit 0, and its row among the bees is gone."""
    executor = client()
    future = executor.submit(jobs.double, 4)
    executor.flush()
    assert bee("work").wait() == 0
    assert future.result(30) == 8


def test_a_bee_says_what_it_did(bee: NewBee, client: NewClient) -> None:
    """Of a failure what it was, of which input and where; at the end how many there were."""
    executor = client()
    executor.submit(int, "13 {}")
    executor.submit(jobs.double, 1)
    executor.flush()
    worker = bee("work")
    assert worker.process.wait(60) == 0
    worker.says(r"job 1 of work: ValueError: invalid literal .*'13 \{\}' .*13 \{\}.* \(failed, on .+\)")
    worker.says("all jobs of work are done: 1 failed, 0 cancelled")
    worker.says(r"ends: done 1, failed 1, busy \d+ s")


def test_jobs_whose_batch_is_gone_are_not_done(bee: NewBee, client: NewClient, database: Database) -> None:
    """A table of ours that somebody has emptied isn't the end of the work."""
    executor = client()
    futures = [executor.submit(jobs.double, n) for n in range(3)]
    executor.flush()
    database.execute('TRUNCATE workerbee."batch$"')
    worker = bee("work")
    assert worker.process.wait(60) == 70
    worker.says("3 jobs of work have not ended, and no batch of them is left")
    executor.cancel_running(futures)


def test_a_missing_jobset_is_named_with_those_that_exist(bee: NewBee, client: NewClient) -> None:
    """A bee for a jobset that isn't there says what there is, waits, and then fails."""
    client("existing")
    lost = bee("mistyped", "--wait", 1)
    assert lost.wait() == 70
    assert "'mistyped' doesn't exist (jobsets here: existing)" in lost.output


def test_an_empty_jobset_is_not_exhausted(bee: NewBee, client: NewClient) -> None:
    """A jobset that never had a job is waited for, and its end is a failure."""
    client("empty")
    idle = bee("empty", "--wait", 1)
    assert idle.wait() == 70
    assert "never had a job" in idle.output


def test_delayed_jobs_are_waited_for(bee: NewBee, client: NewClient, database: Database) -> None:
    """A job whose time has not come keeps a bee from being exhausted."""
    executor = client()
    [(later,)] = database.execute("SELECT extract(epoch FROM now() + interval '2 s')::float")
    future = executor.with_options(run_at=later).submit(jobs.double, 5)
    executor.flush()
    assert bee("work").wait() == 0
    assert future.result(5) == 10


# Leaving in order


def test_sigterm_finishes_what_runs_and_gives_the_rest_back(
    bee: NewBee, client: NewClient, database: Database, record: Path, gate: Path
) -> None:
    """A drained bee claims nothing more, completes its running job, and exits 0."""
    executor = client()
    futures = [executor.submit(jobs.gated, str(record), n, str(gate)) for n in range(3)]
    drained = bee("work")
    eventually(lambda: jobs.noted(record))
    drained.terminate()
    eventually(lambda: database.execute('SELECT FROM workerbee."batch$" WHERE claim IS NULL'))
    gate.touch()
    assert drained.wait() == 0
    assert futures[0].result(30) == 0
    assert statuses(database) == {"completed": 1, "waiting": 2}
    assert [key for key, _ in jobs.noted(record)] == ["0"]


def test_what_outlasts_the_grace_period_runs_elsewhere(
    bee: NewBee, client: NewClient, database: Database, record: Path, gate: Path
) -> None:
    """When the grace period is over, the running job is given back uncharged."""
    future = client().submit(jobs.gated, str(record), 0, str(gate))
    hurried = bee("work", "--grace", 0.3)
    eventually(lambda: jobs.noted(record))
    hurried.terminate()
    assert hurried.wait() == 0
    gate.touch()
    bee("work")
    assert future.result(30) == 0
    assert len(jobs.noted(record)) == 2
    assert not attempts(database)


def test_a_second_signal_gives_everything_back_at_once(
    bee: NewBee, client: NewClient, database: Database, record: Path, gate: Path
) -> None:
    """Two SIGTERMs end a bee whatever its grace period, and its job waits again, uncharged."""
    executor = client()
    executor.submit(jobs.gated, str(record), 0, str(gate))
    impatient = bee("work", "--grace", 600)
    eventually(lambda: jobs.noted(record))
    impatient.terminate()
    impatient.says("claiming nothing more")
    impatient.terminate()
    assert impatient.wait() == 0
    assert statuses(database) == {"waiting": 1}
    assert not attempts(database)
    assert database.execute('SELECT FROM workerbee."bee$"') == []


def test_a_warning_of_a_batch_system_drains_a_bee(bee: NewBee, client: NewClient, record: Path, gate: Path) -> None:
    """It finishes what it runs, however often it is warned; under nohup a hangup means nothing."""
    warnings = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup themselves
    bees = [bee("work", "--busywait") for _ in warnings]
    executor = client().with_options(speculate=False)
    futures = [executor.submit(jobs.gated, str(record), n, str(gate)) for n in range(len(bees))]
    eventually(lambda: len(jobs.noted(record)) == len(bees))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        immune = bee("work", "--busywait")
    finally:
        signal.signal(signal.SIGHUP, before)
    immune.says("serves")
    immune.process.send_signal(signal.SIGHUP)
    for one, warning in zip(bees, warnings, strict=True):
        one.process.send_signal(warning)
        one.says("claiming nothing more")
        one.process.send_signal(warning)
    gate.touch()
    assert [future.result(30) for future in futures] == [0, 1, 2, 3]
    assert [one.wait() for one in bees] == [0, 0, 0, 0]
    assert len(jobs.noted(record)) == len(bees)
    assert "claiming nothing more" not in immune.output
    immune.terminate()
    assert immune.wait() == 0


def test_the_end_of_its_lifetime_drains_a_bee(bee: NewBee, client: NewClient, record: Path) -> None:
    """--lifetime: the running job is finished, and the exit status is 75."""
    executor = client()
    futures = [executor.submit(jobs.slowly, str(record), n, 0.2) for n in range(50)]
    assert bee("work", "--lifetime", 1).wait() == 75
    done = [f for f in futures if f.done() or f.running()]
    assert 0 < len(done) < 50


def test_the_end_of_its_lifetime_ends_a_wait(bee: NewBee) -> None:
    """Also while there is no jobset yet."""
    assert bee("to_come", "--lifetime", 1).wait() == 75


def test_a_drain_at_the_end_of_its_lifetime_leaves_the_cpu_to_the_job(
    bee: NewBee, client: NewClient, record: Path, gate: Path
) -> None:
    """Which may need it: until the grace period ends, a bee has nothing to do."""
    client().submit(jobs.gated, str(record), 0, str(gate))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert bee("work", "--lifetime", 1, "--grace", 4).wait() == 75
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


def test_a_bee_of_an_impossible_id_is_told_so(bee: NewBee) -> None:
    """At once: no such jobset will ever be."""
    wrong = bee("No-Such-Id")
    assert wrong.wait() == 2
    assert "'No-Such-Id' can't name a jobset" in wrong.output


def test_max_jobs_drains_a_bee_after_so_many(bee: NewBee, client: NewClient, database: Database, record: Path) -> None:
    """--max-jobs 3: three jobs are run, the rest waits, and the exit status is 75."""
    executor = client()
    for n in range(200):
        executor.submit(jobs.note, str(record), n)
    executor.flush()
    assert bee("work", "--max-jobs", 3).wait() == 75
    assert len(jobs.noted(record)) == 3
    assert statuses(database) == {"completed": 3, "waiting": 197}


def test_in_a_crowd_a_bee_with_enough_to_do_hears_no_hints(
    bee: NewBee, client: NewClient, database: Database, record: Path
) -> None:
    """Each hint wakes every session that listens to any; when it lacks work it listens again, and hears the next."""
    executor = client()
    database.execute(
        """INSERT INTO workerbee."bee$" (incarnation, host, pid, python, version, runners, lease_until)
           SELECT md5(n::text)::uuid, 'here', n, '3', '1', 1, now() + interval '1 hour' FROM generate_series(1, 20) n"""
    )
    database.server.execute(f"ALTER DATABASE {database.name} SET log_statement = 'all'")
    one = bee("work", "--busywait")
    name = one.says(r"bee (\w+) serves")[1]
    executor.submit(jobs.double, 1).result(30)

    def heard() -> list[str]:
        return re.findall(rf"workerbee bee {name} LOG:  statement: (UNLISTEN|LISTEN)", database.server.log)

    wait([executor.submit(jobs.slowly, str(record), n, 0.02) for n in range(50)])
    eventually(lambda: heard() == ["LISTEN", "UNLISTEN", "LISTEN"])
    assert executor.submit(jobs.double, 2).result(30) == 4


# Accidents


def test_the_jobs_of_a_killed_bee_run_elsewhere(
    bee: NewBee, client: NewClient, database: Database, record: Path, gate: Path
) -> None:
    """After a kill -9 its runner dies too, another bee runs the job, and the loss isn't the job's failure."""
    victim = bee("work", "--busywait")
    future = client().submit(jobs.gated, str(record), 0, str(gate))
    eventually(lambda: jobs.noted(record))
    runners = victim.runners()
    victim.kill()
    assert not psutil.wait_procs(runners, 5)[1]
    heir = bee("work", "--busywait")
    eventually(lambda: (str(0), heir.process.pid) in jobs.noted(record))
    gate.touch()
    assert future.result(30) == 0
    assert attempts(database) == {"lost": 1}
    assert database.execute("SELECT n_claims, n_failed_attempts, status FROM workerbee.work") == [(2, 0, "completed")]


def test_the_jobs_of_a_killed_bee_run_before_the_work_is_over(
    bee: NewBee, client: NewClient, database: Database, record: Path, gate: Path
) -> None:
    """Also a bee that always finds enough to claim looks after others, or a loss is hidden by a stream of jobs."""
    victim = bee("work", "--busywait")
    executor = client()
    future = executor.submit(jobs.gated, str(record), "lost", str(gate))
    eventually(lambda: jobs.noted(record))
    heir = bee("work", "--busywait")
    stream = [executor.submit(jobs.slowly, str(record), n, 0.02) for n in range(3000)]
    eventually(stream[0].done)
    victim.kill()
    eventually(lambda: ("lost", heir.process.pid) in jobs.noted(record))
    assert not stream[-1].done()
    gate.touch()
    assert future.result(30) == "lost"


def test_a_zombies_success_changes_nothing(
    bee: NewBee, client: NewClient, database: Database, record: Path, gate: Path
) -> None:
    """A bee frozen past its lease comes back with a result after another's: the row stays, and nothing was lost."""
    zombie = bee("work", "--busywait")
    future = client().submit(jobs.gated_and_noted, str(record), 0, str(gate))
    eventually(lambda: jobs.noted(record))
    zombie.freeze()
    bee("work", "--busywait")
    eventually(lambda: len(jobs.noted(record)) == 2)
    gate.touch()
    assert future.result(30) == 0
    for runner in zombie.runners():  # it ends first, or its bee may hear that it runs in vain, and stop it
        runner.resume()
    eventually(lambda: len(jobs.noted(record)) == 4)
    row = 'SELECT o.*, xmin::text, ctid::text FROM workerbee."outcome$1" o'
    before = database.execute(row)
    zombie.thaw()
    eventually(lambda: not database.execute('SELECT FROM workerbee."batch$"'))
    eventually(lambda: attempts(database) == {"away": 1, "late": 1})
    assert database.execute(row) == before


def test_a_zombies_failure_is_ignored(
    bee: NewBee, client: NewClient, database: Database, record: Path, gate: Path
) -> None:
    """A failure of one who lost the claim is no attempt, and schedules no retry."""
    zombie = bee("work", "--busywait")
    client().submit(jobs.gated_failure, str(record), 0, str(gate))
    eventually(lambda: jobs.noted(record))
    zombie.freeze()
    heir = bee("work", "--busywait")
    eventually(lambda: len(jobs.noted(record)) == 2)
    heir.freeze()  # it still holds the job, for the time of its lease
    gate.touch()
    zombie.thaw()
    zombie.says(r"\(ignored, on ")
    assert attempts(database) in ({"lost": 1}, {"away": 1})  # the same, told before or after it came back
    heir.thaw()


def test_a_client_is_killed_and_another_gets_everything(
    bee: NewBee, client: NewClient, record: Path, database: Database
) -> None:
    """The jobs of a dead client go on; the same calls from another process attach to them."""
    script = (
        "import os, signal, sys\n"
        "from tests import jobs\n"
        "from workerbee import WorkerbeeExecutor\n"
        f"executor = WorkerbeeExecutor(0, jobset_id='work', dsn={database.dsn!r})\n"
        f"for n in range(40): executor.submit(jobs.note, {str(record)!r}, n)\n"
        "executor.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == -9
    bee("work")
    futures = [client().submit(jobs.note, str(record), n) for n in range(40)]
    assert [f.result(30) for f in futures] == list(range(40))
    assert len(jobs.noted(record)) == 40


def test_a_killed_local_bee_is_replaced(client: NewClient, record: Path, gate: Path) -> None:
    """An executor whose own bee is killed starts another one, and no future hangs."""
    executor = client(None, max_workers=1)
    future = executor.submit(jobs.gated, str(record), 0, str(gate))
    [(_, pid)] = eventually(lambda: jobs.noted(record))
    psutil.Process(pid).kill()
    eventually(lambda: len(jobs.noted(record)) == 2)
    gate.touch()
    assert future.result(30) == 0


# Where it runs


def test_a_bee_may_be_the_first_process_of_a_container(client: NewClient, database: Database) -> None:
    """Its runners know it, and don't take it for the one that adopts orphans."""
    user = ["--user", "--map-root-user"] if os.geteuid() else []
    container = ["unshare", *user, "--pid", "--fork", "--kill-child"]
    if subprocess.run([*container, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no namespaces may be made here")
    executor = client()
    future = executor.submit(jobs.double, 2)
    executor.flush()
    command = [*container, sys.executable, "-m", "workerbee.bee", "work", "--dsn", database.dsn, "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert future.result(30) == 4


def test_a_python_that_was_built_for_an_old_system(bee: NewBee, client: NewClient, tmp_path: Path) -> None:
    """Without memfd and pidfd, which conda's and uv's may lack, jobs run, and a runner's death is noticed."""
    lacking = "import os\nfor name in ('memfd_create', 'pidfd_open'):\n    delattr(os, name)\n"
    (tmp_path / "sitecustomize.py").write_text(lacking)
    bee("work", "--busywait", environment={"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"})
    executor = client()
    assert executor.submit(eval, "hasattr(__import__('os'), 'memfd_create')").result(30) is False
    with pytest.raises(RunnerDiedError, match="exited with status 3"):
        executor.submit(os._exit, 3).result(30)
    assert executor.submit(jobs.double, 2).result(30) == 4


# What a bee can't do


def test_a_bee_that_cant_load_a_function_names_it_and_leaves_its_jobs(
    bee: NewBee, client: NewClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing module is one bee's trouble: it says so, runs what it can, and another bee does the rest."""
    (tmp_path / "only_at_the_client.py").write_text("def triple(x):\n    return 3 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_at_the_client  # type: ignore[import-not-found]  # noqa: PLC0415

    without = bee("work", "--busywait")
    executor = client()
    special = executor.submit(only_at_the_client.triple, 2)
    assert executor.submit(jobs.double, 2).result(30) == 4
    assert "only_at_the_client" in without.says("leaves some jobs of .*")[0]
    assert not special.done()
    bee("work", environment={"PYTHONPATH": os.pathsep.join([str(PROJECT), str(tmp_path)])})
    assert special.result(30) == 6


def test_waiting_without_a_bee_is_warned_of_once(
    client: NewClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no live bee could run what is pending, one warning has the command that starts one."""
    monkeypatch.setattr(watcher, "NO_BEES_SECONDS", 0.1)
    client().submit(jobs.double, 1)

    def warnings() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    eventually(warnings)
    assert f"{sys.executable} -m workerbee.bee work" in warnings()[0]
    client().submit(jobs.double, 2)
    assert len(warnings()) == 1
