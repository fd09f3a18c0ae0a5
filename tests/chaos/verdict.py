"""The judge: what was executed, what is stored and what clients were told must be one story."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import workerbee
from tests.chaos.client import digest
from tests.chaos.hive import BEES, HOSTILE, JOBSET, Storm
from tests.chaos.jobs import FILES, kind_of, may_be_cancelled, result_of
from workerbee.errors import LostValueError
from workerbee.wire import codec, lending, values

CRIMES = (
    "lost jobs",
    "lost results",
    "doubled jobs",
    "second results",
    "changed results",
    "wrong results",
    "results without an execution",
    "jobs blamed for an outage",
    "hung futures",
    "broken clients",
    "lost or changed files",
    "files left over",
    "stranded batches",
    "bees that didn't go home",
    "stage failures",
    "tracebacks",
)


class Verdict:
    """Counts of what was done to the run, and of each kind of crime, with some examples."""

    def __init__(self, hive: Storm) -> None:
        self._hive = hive
        self.crimes: Counter[str] = Counter(dict.fromkeys(CRIMES, 0))
        self.examples: dict[str, list[Any]] = defaultdict(list)
        self.facts: Counter[str] = Counter()
        self._number = hive.number
        hive.look()
        self._read_executions()
        self._read_tables()
        self._judge_rows()
        self._judge_clients()
        self._judge_order()
        if FILES in os.environ:
            self._judge_files(Path(os.environ[FILES]))

    @property
    def innocent(self) -> bool:
        return not any(self.crimes.values())

    def __str__(self) -> str:
        lines = [f"{name:32} {n}" for name, n in sorted(self._hive.counts.items())]
        lines += ["", *(f"{name:32} {n}" for name, n in self.facts.items()), ""]
        lines += [f"{name:32} {self.crimes[name]}" for name in CRIMES]
        lines += [f"  {name}: {examples[:8]}" for name, examples in self.examples.items()]
        lines.append("VERDICT: " + ("nothing lost, nothing doubled, nothing changed" if self.innocent else "GUILTY"))
        return "\n".join(lines)

    def _accuse(self, crime: str, example: Any) -> None:
        self.crimes[crime] += 1
        self.examples[crime].append(example)

    def _read_executions(self) -> None:
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        for line in self._hive.record.read_text().splitlines():
            what, key, _ = line.split()
            (self.begun if what == "begin" else self.ended)[int(key)] += 1
        self.facts["jobs"] = self._hive.n_jobs
        self.facts["executions"] = self.begun.total()
        self.facts["executions beyond the first"] = self.begun.total() - len(self.begun)

    def _read_tables(self) -> None:
        execute, n = self._hive.database.execute, self._number
        self.jobs: dict[int, list[int]] = defaultdict(list)
        for job, how, text, payload in execute(
            f'SELECT id, codec, input::text, payload FROM workerbee."job${n}" WHERE id < {HOSTILE}'
        ):
            arrays = [memoryview(bytearray(taken.size)) for taken in values.taken(how)]  # of which runners judge
            try:
                args, _ = codec.decode_call(how, text.encode() if text is not None else bytes(payload), arrays)
            except LostValueError as error:
                self._accuse("lost or changed files", (job, str(error)))
                continue
            self.jobs[args[0][0] if isinstance(args[0], tuple) else args[0]].append(job)
        self.outcomes: dict[int, list[tuple[int, str, Any]]] = defaultdict(list)
        rows = execute(
            f'SELECT job, run, status, codec, output::text, payload FROM workerbee."outcome${n}" WHERE job < {HOSTILE}'
        )
        for job, run, status, how, text, payload in rows:
            self.outcomes[job].append((run, status, self._value(job, run, how, text, payload)))
        self.facts["job rows"] = sum(map(len, self.jobs.values()))
        self.facts["outcome rows"] = len(rows)
        kinds = execute(f'SELECT kind, count(*) FROM workerbee."attempt${n}" GROUP BY 1 ORDER BY 1')
        self.facts |= Counter({f"attempts noted as {kind}": count for kind, count in kinds})
        [(batches,)] = execute('SELECT count(*) FROM workerbee."batch$"')
        if batches:
            self.crimes["stranded batches"] += batches
            self.examples["stranded batches"] += execute('SELECT * FROM workerbee."batch$" LIMIT 3')

    def _value(self, job: int, run: int, how: str, text: str | None, payload: Any) -> Any:
        data = text.encode() if text is not None else bytes(payload or b"")
        if how in lending.CODECS:
            try:
                return codec.decode(how, data)
            except LostValueError as error:
                self._accuse("lost or changed files", (job, run, str(error)))
                return None
        if how == "parts":
            token = json.loads(data) if text is not None else None
            chunks = self._hive.database.execute(
                f'SELECT token::text, data FROM workerbee."part${self._number}" WHERE job = %s AND run = %s'
                " ORDER BY token, seq",
                job,
                run,
            )
            by_token: dict[str, bytes] = defaultdict(bytes)
            for t, chunk in chunks:
                by_token[t] += bytes(chunk)
            name = next(t for t in by_token if t in data.decode() or (token and t in str(token)))
            return json.loads(by_token[name])
        return json.loads(data) if data else None

    def _judge_rows(self) -> None:
        processes = {}
        for client in self._hive.clients:
            processes |= dict.fromkeys(range(client.first, client.first + client.n), len(client.records))
        for key in range(self._hive.n_jobs):
            jobs = self.jobs.get(key, [])
            if not jobs and key not in self._hive.lost:  # what a client was told of it is judged all the same
                self._accuse("lost jobs", key)
            if len(jobs) > (1 if key % 3 != 2 else processes[key]):
                self._accuse("doubled jobs", (key, jobs))
            for job in jobs:
                self._judge_row(key, job)

    def _judge_row(self, key: int, job: int) -> None:
        outcomes = self.outcomes[job]
        if not outcomes:
            self._accuse("lost results", (key, job))
            return
        if len({run for run, *_ in outcomes}) < len(outcomes):
            self._accuse("second results", (key, job))
        if may_be_cancelled(key):
            outcomes = [outcome for outcome in outcomes if outcome[1] != "cancelled"]
        # Where the run after the cancelled one is lost in a failover, nobody who was told its result submits it anew.
        if not outcomes and key not in self._hive.told:
            self._accuse("lost results", (key, job, "cancelled for good"))
        # Only what failed may be run anew; but a failover may take a cancellation back, while the run after it goes on.
        was_taken_back = may_be_cancelled(key) and self._hive.counts["fail_over"] > 0
        if len(outcomes) > 1 and kind_of(key) != "error" and not was_taken_back:
            self._accuse("second results", (key, job, outcomes))
        for _, status, value in outcomes:
            self._judge_outcome(key, job, status, value)

    def _judge_outcome(self, key: int, job: int, status: str, value: Any) -> None:
        if kind_of(key) == "error":
            if status != "failed" or value["type"] != "ValueError" or value["message"] != str(key):
                self._accuse("wrong results", (key, job, status, str(value)[:300]))
        elif status == "failed":
            self._accuse("jobs blamed for an outage", (key, kind_of(key), str(value)[:600]))
        elif value != result_of(key):
            self._accuse("wrong results", (key, job, status, str(value)[:300]))
        if (self.begun if kind_of(key) == "error" else self.ended)[key] < 1:
            self._accuse("results without an execution", (key, job))

    def _judge_clients(self) -> None:
        told: dict[int, set[str]] = defaultdict(set)
        for client in self._hive.clients:
            lines = client.told()
            for what, *rest in lines:
                if what in ("result", "error"):
                    told[int(rest[0])].add(rest[1])
                elif what == "hung":
                    self._accuse("hung futures", int(rest[0]))
                elif what == "lost" and not self._hive.counts["fail_over"]:
                    self._accuse("lost jobs", ("by nobody's fault", int(rest[0])))
                elif what == "broke":
                    self._accuse("broken clients", rest)
            if ["done"] not in lines:
                self._accuse("broken clients", f"client {client.first} didn't get to its end")
        for key in range(self._hive.n_jobs):
            right = f"ValueError '{key}'" if kind_of(key) == "error" else digest(result_of(key))
            if not told[key]:
                self._accuse("lost results", ("never told", key))
            elif told[key] != {right}:
                self._accuse("wrong results", ("told", key, kind_of(key), told[key]))
        self.facts["keys that a client heard of"] = sum(map(bool, told.values()))

    def _judge_order(self) -> None:
        for key in self._hive.changed:
            self._accuse("changed results", key)
        for key in self._hive.vanished_rows:
            self._accuse("lost jobs", ("stored, then gone", key))
        self.crimes["bees that didn't go home"] = len(BEES) - self._hive.counts["bees that went home"]
        for crime in ("stage failures", "tracebacks"):
            self.crimes[crime] = self._hive.counts[crime]

    def _judge_files(self, place: Path) -> None:
        """Drop the jobset: its files go with it, what killed bees have left too."""
        self.facts["files"] = sum(path.is_file() for path in place.rglob("*"))
        workerbee.open(JOBSET, dsn=self._hive.database.dsn).drop()
        for left in place.rglob("*"):
            self._accuse("files left over", left.name)
