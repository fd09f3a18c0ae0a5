"""The stage of a chaos run: a server behind a fault proxy, bees and clients, and the faults that befall them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from uuid import UUID

import psutil
import psycopg2
import psycopg2.errors

from tests.bees import PROJECT, Bee
from tests.chaos.client import BURST
from tests.chaos.plan import Fault
from tests.clocks import Clock
from tests.faultproxy import FaultProxy, Trap
from tests.servers import Database, Server
from tests.waiting import eventually
from workerbee.store import queries
from workerbee.store.statement import Statement

JOBSET = "chaos"
#: Arguments of each bee: some serve one jobset, some all of them.
BEES = (["--busywait", JOBSET], ["--busywait", JOBSET], ["--busywait", JOBSET], [], [])
#: The statements whose COMMIT is worth a cut.
COMMITS = (("client.sql", "add"), ("bee.sql", "complete"), ("bee.sql", "complete"), ("bee.sql", "fail"))
PATIENCE = 120.0
#: The least id of the jobs that somebody else has written: near the greatest that there can be.
HOSTILE = 2**63 - 10**10


class Client:
    """A process of tests.chaos.client, and those that take its place after it was killed."""

    def __init__(self, hive: Storm, first: int, n: int, seconds: float) -> None:
        self.first, self.n = first, n
        self.records: list[Path] = []
        self.lock = threading.Lock()
        self._hive = hive
        self._end = time.monotonic() + seconds
        self.start()

    def start(self) -> None:
        self.records.append(self._hive.directory / f"client-{self.first}-{len(self.records)}")
        left = max(1.0, self._end - time.monotonic())
        command = [sys.executable, "-m", "tests.chaos.client", self._hive.proxied, JOBSET]
        with (self._hive.directory / f"log-client-{self.first}-{len(self.records)}").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *map(str, (self.first, self.n, left, PATIENCE))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "CHAOS_CLIENT": str(self.records[-1])},
            )

    def told(self) -> list[list[str]]:
        """What it and its predecessors were told, in words, line by line."""
        texts = (record.read_text() for record in self.records if record.exists())
        return [line.split(" ", 2) for text in texts for line in text.splitlines()]


class Storm:
    """One run. `suffer` plays the faults; `settle` lets everything come to its end."""

    def __init__(
        self,
        directory: Path,
        server: Server,
        proxy: FaultProxy,
        clock: Clock | None,
        settings: dict[str, int],
        *,
        n_jobs: int,
        seconds: float,
    ) -> None:
        self.directory, self.server, self.proxy, self.clock = directory, server, proxy, clock
        self.settings = settings
        self._ahead = 0
        self.database = server.new_database()
        self.proxied = proxy.dsn(self.database.dsn)
        self.record = directory / "executions"
        self.counts: Counter[str] = Counter()
        self.seen: dict[tuple[int, int], list[str]] = {}
        self.changed: set[tuple[int, int]] = set()
        self.vanished_rows: list[int] = []
        self.lost: set[int] = set()  # keys whose jobs the server has acknowledged and lost
        self.told: set[int] = set()  # keys whose results clients had before a failover, which may lack them
        (directory / "marks").mkdir()
        os.environ |= {
            "CHAOS_RECORD": str(self.record),
            "CHAOS_MARKS": str(directory / "marks"),
            "WORKERBEE_KEY_FILE": str(directory / "key"),
            "WORKERBEE_HOME": str(directory / "home"),
            "PYTHONPATH": str(PROJECT),
        }
        self._lock = threading.Lock()
        self._server_lock = threading.Lock()
        self._looking = threading.Lock()
        self._frozen: set[Bee] = set()
        self._ended = threading.Event()
        n_clients = 3
        share = n_jobs // n_clients
        self.n_jobs = share * n_clients
        self.clients = [Client(self, i * share, share, seconds - 5) for i in range(n_clients)]
        self.bees = [self._new_bee(i) for i in range(len(BEES))]
        eventually(self._has_begun, 120, "the jobset")
        self._witness = threading.Thread(target=self._watch_rows, name="witness")
        self._witness.start()

    def _has_begun(self) -> bool:
        with suppress(psycopg2.errors.UndefinedTable):  # the schema is still to come
            return bool(self.database.execute('SELECT FROM workerbee."jobset$" WHERE id = %s', JOBSET))
        return False

    def _new_bee(self, place: int) -> Bee:
        return Bee(self.proxied, *BEES[place], workers=1 + place % 2)

    # Faults

    def suffer(self, faults: list[Fault], tell: Callable[[str], None]) -> None:
        """Play the faults at their times."""
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            for fault in faults:
                time.sleep(max(0.0, began + fault.at - time.monotonic()))
                tell(f"{time.monotonic() - began:6.1f} s  {fault.name}")
                pool.submit(self._strike, fault, tell)

    def _strike(self, fault: Fault, tell: Callable[[str], None]) -> None:
        try:
            if getattr(self, fault.name)(fault.dice) is not False:
                self.counts[fault.name] += 1
        except psycopg2.Error:
            pass  # the server is away anyway
        except Exception as error:  # noqa: BLE001 (a fault of the stage must be seen)
            tell(f"the stage itself failed in {fault.name}: {error!r}")
            self.counts["stage failures"] += 1

    def _some_bee(self, dice: float) -> int | None:
        places = [i for i, bee in enumerate(self.bees) if bee not in self._frozen]
        return places[int(dice * len(places))] if places else None

    def _replace(self, dice: float, end: Callable[[Bee], object]) -> bool:
        with self._lock:
            place = self._some_bee(dice)
            if place is None:
                return False
            bee, self.bees[place] = self.bees[place], self._new_bee(place)
        end(bee)
        self._keep_log(bee)
        return True

    def _keep_log(self, bee: Bee) -> None:
        (self.directory / f"log-bee-{bee.process.pid}").write_text(bee.output)
        if "Traceback" in bee.output:
            self.counts["tracebacks"] += 1

    def kill_bee(self, dice: float) -> bool:
        return self._replace(dice, lambda bee: bee.kill())

    def drain_bee(self, dice: float) -> bool:
        def drain(bee: Bee) -> None:
            bee.terminate()
            with suppress(AssertionError):
                bee.wait(30)
                self.counts["drained"] += 1
            bee.kill()

        return self._replace(dice, drain)

    def freeze_bee(self, dice: float) -> bool:
        """Longer than its lease, so that it comes back as a zombie."""
        with self._lock:
            place = self._some_bee(dice)
            if place is None:
                return False
            bee = self.bees[place]
            self._frozen.add(bee)
        if dice < 0.5:
            bee.freeze()
        else:
            os.kill(bee.process.pid, 19)  # the supervisor alone: its runners go on
        time.sleep(4 + 4 * dice)
        bee.thaw()
        self._frozen.discard(bee)
        return True

    def kill_client(self, dice: float) -> bool:
        client = self.clients[int(dice * len(self.clients))]
        with client.lock:
            if client.process.poll() is not None:
                return False
            client.process.kill()
            client.process.wait()
            self._check_stored(client)
            client.start()
        return True

    def _check_stored(self, client: Client) -> None:
        """What the dead client had been told is stored must be there now, before anybody submits it again."""
        stored = [int(words[1]) for words in client.told() if words[0] == "stored"]
        if stored:
            # Calls that aren't JSON can't be told apart from outside.
            keys = {key for key in range(client.first, max(stored) + 1) if key % 3 != 2}
            found = self._patiently(lambda: {key for key, _ in self.json_jobs()})
            with self._looking:  # who fails over says there what is lost
                self.vanished_rows += sorted(keys - found - self.lost)

    def json_jobs(self) -> list[tuple[int, int]]:
        """(key, job) of all calls in JSON."""
        rows = self.database.execute(
            f"SELECT input->'args'->>0, id FROM workerbee.\"job${self.number}\""
            f" WHERE codec = 'json_call' AND id < {HOSTILE}"
        )
        return [(int(key), job) for key, job in rows]

    @property
    def uuid(self) -> UUID:
        [(uuid,)] = self.database.execute('SELECT uuid::text FROM workerbee."jobset$" WHERE id = %s', JOBSET)
        return UUID(uuid)

    @property
    def number(self) -> int:
        [(number,)] = self.database.execute('SELECT number FROM workerbee."jobset$" WHERE id = %s', JOBSET)
        return int(number)

    def _patiently(self, action: Callable[[], set[int]]) -> set[int]:
        while True:
            try:
                return action()
            except psycopg2.Error:
                time.sleep(0.1)

    def restart(self, dice: float) -> None:
        self._restart(lambda: self.server.stop("immediate"), dice)

    def kill_postmaster(self, dice: float) -> None:
        self._restart(self.server.kill, dice)

    def _restart(self, stop: Callable[[], None], dice: float) -> None:
        with self._server_lock:
            stop()
            time.sleep(3 * dice * dice)
            self.server.start()

    def fail_over(self, dice: float) -> bool:
        """Promote a standby that lacks what the server has acknowledged last."""
        if self.server.version < 130000:
            return False  # a standby would have to be started anew to follow nobody
        with self._server_lock:
            standby = Server(standby_of=self.server, **self.settings)
            self._has_caught_up(standby)
            for statement in ("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"):
                standby.execute(statement)
            time.sleep(1 + dice)
            self.server.stop("immediate")
            standby.execute("SELECT pg_promote()")
            former = self.server
            with self._looking:
                self.server, self.database = standby, Database(standby, self.database.name)
                self._patiently(self._forgive)
            self.proxy.target = "127.0.0.1", standby.port
            self.proxy.cut()
            former.close()
        return True

    def _has_caught_up(self, standby: Server) -> None:
        [(position,)] = self.server.execute("SELECT pg_current_wal_insert_lsn()::text")
        eventually(lambda: standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", position) == [(True,)])

    def _forgive(self) -> set[int]:
        """What the server that was promoted lacks was lost by PostgreSQL, and by nobody else."""
        there = self._outcomes()
        self.seen = {key: before for key, before in self.seen.items() if key in there}
        stored = {key for key, _ in self.json_jobs()}
        for client in self.clients:
            told = [(words[0], int(words[1])) for words in client.told() if words[0] in ("stored", "result")]
            last = max((key for what, key in told if what == "stored"), default=client.first)
            self.lost |= {*range(client.first, last + 2 * BURST)} - stored
            self.told |= {key for what, key in told if what == "result"}
        return self.lost

    def cut_before_commit(self, dice: float) -> bool:
        return self._cut_commit(dice, "before")

    def cut_after_commit(self, dice: float) -> bool:
        return self._cut_commit(dice, "after")

    def _cut_commit(self, dice: float, when: str) -> bool:
        file, name = COMMITS[int(dice * len(COMMITS))]
        with self.database.connect() as connection:
            query = queries.bind(file, self.number, JOBSET, self.uuid)[name].as_string(connection)
        trap = self.proxy.cut_on(f"EXECUTE {Statement(query).name} ".encode(), when=when)
        return self._sprung(trap)

    def cut_at_byte(self, dice: float) -> bool:
        direction = "client" if dice < 0.5 else "server"
        return self._sprung(self.proxy.cut_after(int(dice * 50_000) + 1, direction=direction))

    def _sprung(self, trap: Trap) -> bool:
        if trap.sprung.wait(10):
            return True
        with suppress(ValueError):
            self.proxy.traps.remove(trap)
        return False

    def cut_all(self, dice: float) -> None:
        self.proxy.cut()

    def half_open(self, dice: float) -> None:
        self.proxy.cut("client" if dice < 0.5 else "server")
        time.sleep(3)

    def stall(self, dice: float) -> None:
        self.proxy.stall()
        time.sleep(1 + 4 * dice)
        self.proxy.resume()

    def refuse(self, dice: float) -> None:
        self.proxy.refuse()
        self.proxy.cut()
        time.sleep(1 + 3 * dice)
        self.proxy.accept()

    def terminate_backends(self, dice: float) -> None:
        for _ in range(5):
            self.database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            time.sleep(0.1)

    def latency(self, dice: float) -> None:
        self.proxy.latency(0.01 + 0.1 * dice)
        time.sleep(3)
        self.proxy.latency(0)

    def freeze_runner(self, dice: float) -> bool:
        """So that its bee lives, and its job doesn't come to its end."""
        runners = [runner for bee in self.bees for runner in bee.runners()]
        if not runners:
            return False
        runner = runners[int(dice * len(runners))]
        with suppress(psutil.NoSuchProcess):
            runner.suspend()
            time.sleep(4 + 4 * dice)
            runner.resume()
        return True

    def fill_queue(self, dice: float) -> bool:
        """Fill the server's queue of notifications, beside a session that reads none of it."""
        if self.server.version < 170000:
            return False  # it would take 8 GB
        with closing(self.database.connect()) as lazy, closing(self.database.connect()) as noisy:
            with lazy.cursor() as reading:
                for statement in ("LISTEN anything", "BEGIN", "SELECT 1"):
                    reading.execute(statement)
            with noisy.cursor() as filling, suppress(psycopg2.errors.ProgramLimitExceeded):
                while True:
                    filling.execute(
                        "SELECT pg_notify('anything', repeat('x', 7000) || n) FROM generate_series(1, 20) n"
                    )
            time.sleep(3 + 3 * dice)
        return True

    def step_clock(self, dice: float) -> bool:
        """Set the server's clock, by up to ten seconds."""
        if self.clock is None:
            return False
        with self._lock:
            self._ahead += round(20 * dice) - 10
            self.clock.set(self._ahead)
        return True

    def hostile_row(self, dice: float) -> bool:
        """Insert a job that nobody has signed, with a header that brings it."""
        job = HOSTILE + int(dice * 1e9)
        codec, text, payload = [("pickle", None, "x"), ("json_call", "[1]", None), ("parts", None, "{}")][job % 3]
        number = self.number
        functions = self.database.execute(f'SELECT function FROM workerbee."job${number}" LIMIT 1')
        if not functions:  # nobody's job is stored yet
            return False
        [(function,)] = functions
        self.database.execute(
            f'INSERT INTO workerbee."job${number}" (id, function, codec, input, payload, mac)'
            " VALUES (%s, %s, %s, %s, %s, decode(repeat('00', 16), 'hex'))",
            *(job, function, codec, text, payload),
        )
        self.database.execute(
            'INSERT INTO workerbee."batch$" (jobset, function, run, jobs) VALUES (%s, %s, 1, ARRAY[%s])',
            *(number, function, job),
        )
        return True

    # The witness

    def _watch_rows(self) -> None:
        """Look at every outcome again and again: once there, it must never change."""
        while not self._ended.wait(random.uniform(3, 6)):
            with suppress(psycopg2.Error):
                self.look()

    def look(self) -> None:
        with self._looking:
            outcomes = self._outcomes()
            self.changed |= {key for key, before in self.seen.items() if outcomes.get(key) != before}
            self.seen |= outcomes

    def _outcomes(self) -> dict[tuple[int, int], list[str]]:
        query = f'SELECT job, run, md5(o::text), xmin::text, ctid::text FROM workerbee."outcome${self.number}" o'
        return {(job, run): rest for job, run, *rest in self.database.execute(query)}

    # The end

    def settle(self) -> None:
        """Mend everything, let the clients come to their end, and send the bees home."""
        self.proxy.resume()
        self.proxy.accept()
        self.proxy.latency(0)
        for client in self.clients:
            with suppress(subprocess.TimeoutExpired):
                client.process.wait(PATIENCE + 30)
            if client.process.poll() is None:
                self.counts["clients that hang"] += 1
                client.process.kill()
                client.process.wait()
        self._ended.set()
        self._witness.join()
        with suppress(AssertionError):  # what a dead bee held is soon taken back
            eventually(lambda: self.database.execute('SELECT count(*) FROM workerbee."batch$"') == [(0,)])
        for bee in self.bees:
            with suppress(AssertionError):  # one that was started, and frozen, at the end hears no signal yet
                bee.says("serves ")
            bee.terminate()
        for bee in self.bees:
            with suppress(AssertionError):
                if bee.wait(20) == 0:
                    self.counts["bees that went home"] += 1
            self._keep_log(bee)
            bee.kill()

    def close(self) -> None:
        """End whatever is left."""
        self._ended.set()
        for bee in self.bees:
            bee.kill()
        for client in self.clients:
            client.process.kill()
            client.process.wait()
