"""An installation as the former version left it, and what a bee and a client of that version still say.

Its statements (version_1.sql) are copies, so that they stay as they were.
"""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg2
from psycopg2 import sql

from workerbee.store import Connection, queries, schema

_TEXT = Path(__file__).with_name("version_1.sql").read_text("utf-8").replace("{durably}", queries._DURABLY)
QUERIES = dict(re.findall(r"^-- name: (\w+)\n(.*?)\n(?=\n-- name: |\Z)", _TEXT, flags=re.DOTALL | re.MULTILINE))

#: What was in the jobset: jobs 1 to 12. The first 4 are completed, 5 and 6 failed for one cause, 7 for another, 8 was
#: cancelled and 9 was cancelled and waits again, 10 is with a bee, 11 and 12 wait.
FILL = """
INSERT INTO {job} (id, codec, input) SELECT n, 'json', json_build_object('n', n) FROM generate_series(1, 12) n;
INSERT INTO {outcome} (job, run, status, codec, output, bee, duration)
SELECT n, 1, 'completed', 'json', '{{"done": true}}', %(bee)s, 0.1 FROM generate_series(1, 4) n;
INSERT INTO {outcome} (job, run, status, codec, output, bee, duration)
SELECT n, 1, 'failed', 'error', json_build_object('type', 'ValueError', 'message', CASE n WHEN 7 THEN 'no disk'
       ELSE 'unlucky ' || n END, 'traceback', '  File "a.py", line 1, in f'), %(bee)s, 0.1 FROM generate_series(5, 7) n;
INSERT INTO {attempt} (job, run, kind, bee, host, error)
SELECT n, 1, 'error', %(bee)s, 'node-1', '{{"type": "ValueError"}}' FROM generate_series(5, 7) n;
INSERT INTO {outcome} (job, run, status) VALUES (8, 1, 'cancelled'), (9, 1, 'cancelled');
INSERT INTO {run} (job, run) VALUES (9, 2);
INSERT INTO workerbee."batch$" (jobset, function, run, jobs) VALUES ({number}, 0, 2, '{{9}}'),
       ({number}, 0, 1, '{{11,12}}');
INSERT INTO workerbee."batch$" (jobset, function, run, jobs, bee, claim, claimed_at, started)
VALUES ({number}, 0, 1, '{{10}}', %(other)s, %(other)s, now(), 1);
INSERT INTO workerbee."counter$" (jobset, writer, added, reopened, completed, failed, cancelled)
VALUES ({number}, %(bee)s, 12, 1, 4, 3, 2);
INSERT INTO {part} (job, run, token, seq, data) VALUES (0, 0, %(bee)s, 0, 'node-1'), (0, 1, %(bee)s, 3, %(refusal)s),
       (0, 2, %(bee)s, 4, ''), (0, 1, %(other)s, 3, '\\xff00'), (0, 0, %(token)s, 0, decode(repeat('00', 2000), 'hex'));
INSERT INTO workerbee."bee$" (incarnation, jobset, host, pid, python, runners, lease_until)
VALUES (%(other)s, {number}, 'node-2', 1, '3.11', 1, now() - interval '1 second');
UPDATE workerbee."jobset$" SET next_job = 13 WHERE number = {number};
"""


class Former:
    """The jobset ``study`` of version 1, with some others beside it, and its programs."""

    def __init__(self, dsn: str, *, others: int = 3) -> None:
        self.connection = Connection(dsn)
        self.incarnation, self.other = uuid4(), uuid4()
        self.connection.run(schema.script(1))
        for n in range(others):
            self._make(f"other_{n}", uuid4())
        self.uuid = uuid4()
        self.number = self._make("study", self.uuid)
        self.names = queries.identifiers(self.number, "study", self.uuid)
        refusal = json.dumps({"host": "node-1", "reason": "no key"}).encode()
        self.run(FILL, bee=str(self.incarnation), other=str(self.other), refusal=refusal, token=str(UUID(int=9)))
        # The maker of a jobset was a bee without runners.
        facts = "(incarnation, jobset, host, pid, python, runners, lease_until)"
        self.run(
            f"""INSERT INTO workerbee."bee$" {facts} VALUES (%(u)s, {{number}}, 'node-9', 7, '3.11', 0, now())""",
            u=str(self.uuid),
        )

    def _make(self, jobset_id: str, uuid: UUID) -> int:
        facts = {"id": jobset_id, "uuid": str(uuid), "key": None, "speculate": True, "client": None}
        [(number,)] = self.connection.run(_composed(QUERIES["create_jobset"], {}), facts)
        names = queries.identifiers(number, jobset_id, uuid)
        for name in ("make_tables", "make_view"):
            self.connection.run(_composed(QUERIES[name], names))
        return int(number)

    def run(self, text: str, **params: object) -> list[tuple[Any, ...]]:
        """A query, in which ``{job}``, ``{number}`` … are those of the jobset."""
        return self.connection.run(_composed(text, self.names), params)

    def beat(self) -> None:
        """A heartbeat of version 1."""
        facts = {"host": "node-1", "pid": 1, "python": "3.11", "runners": 1, "lease": 60, "backend": None}
        self.run(QUERIES["beat"], bee=str(self.incarnation), jobset=self.number, resting=False, **facts)

    def work(self) -> None:
        """Claim one job of version 1, and complete it."""
        scope = {"only": None, "refused": "{}", "functions": "{}", "costs": "{}", "budget": 1.0}
        claim = str(uuid4())
        rows = self.run(QUERIES["claim"], bee=str(self.incarnation), claim=claim, n=1, start=1, headers=1, **scope)
        for batch, _, run, *_, job, _, _, _, _, _, _, _ in rows:
            columns = {"codec": "json", "output": "1", "payload": "", "mac": "", "duration": "0.1"}
            closed = {"closed": f"{{{batch}}}", "claims": f"{{{claim}}}", "hint": None}
            self.run(QUERIES["complete"], bee=str(self.incarnation), job=str(job), run=str(run), **columns, **closed)

    def reserve(self) -> None:
        """Take ids for new jobs as version 1 does."""
        self.run(QUERIES["reserve_jobs"], n=1, number=self.number, uuid=str(self.uuid))

    def live(self) -> Life:
        """Be a bee of version 1 in a thread of its own, until it meets an error."""
        return Life(self)


class Life(threading.Thread):
    """What a bee of version 1 does; ``error`` is what has ended it."""

    def __init__(self, former: Former) -> None:
        super().__init__(daemon=True)
        self._former = former
        self.error: psycopg2.Error | None = None
        self.start()

    def run(self) -> None:
        try:
            while True:
                self._former.beat()
                self._former.work()
        except psycopg2.Error as error:
            self.error = error


def _composed(text: str, names: dict[str, sql.Composable]) -> sql.Composed:
    return sql.SQL(text).format(**names)
