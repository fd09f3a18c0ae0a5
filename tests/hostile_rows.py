"""Values that nobody would write, for each column of each table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.servers import Database

#: Values by the type of the column, as SQL; what the server refuses is left out.
VALUES = {
    "boolean": ("true", "false"),
    "integer": ("0", "-1", "77", "2147483647", "-2147483648"),
    "bigint": ("0", "-1", "77", "9223372036854775807", "-9223372036854775808"),
    "real": ("0", "-1", "'NaN'", "'Infinity'", "'-Infinity'", "3e38", "1e-38"),
    "double precision": ("0", "-1", "'NaN'", "'Infinity'", "'-Infinity'", "1.7e308", "5e-324"),
    "text": ("''", "'x'", r"E'\n\t%s{0}$1\\'", "U&'\\2603\\+01F600'", "repeat('long ', 50000)", "'json;parts=1'"),
    "bytea": ("''", "'x'", "decode(repeat('00', 100000), 'hex')", r"'\xff'", "convert_to('[1]', 'UTF8')"),
    "json": (
        "'null'",
        "'true'",
        "'1e400'",
        "'\"x\"'",
        "'[]'",
        "'{}'",
        r"""'"\u0000\ud800"'""",
        '\'{"a": 1, "a": [2]}\'',
        "(repeat('[', 3000) || repeat(']', 3000))::json",
        "repeat('9', 6000)::json",
        '\'{"type": 1, "message": [], "traceback": {}, "notes": 3, "args": "x", "cause": []}\'',
    ),
    "jsonb": ("'null'", "'[]'", "'1'", "'{\"x\": 1}'", "'{\"99999999999\": null}'", '\'{"1": {"a": []}}\''),
    "uuid": ("'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"),
    "timestamp with time zone": (
        "'infinity'",
        "'-infinity'",
        "'294276-12-31 23:59:59+00'",
        "'4713-01-01 00:00:00+00 BC'",
        "now() + interval '50 years'",
        "'1970-01-01'",
    ),
    "ARRAY": (
        "'{}'",
        "'{NULL}'",
        "'{{1,2},{3,4}}'",
        "'[0:1]={1,2}'",
        "'{-1,0,77}'",
        "'{5,5,4,4}'",
        "ARRAY(SELECT generate_series(1000000, 1002000))",
    ),
    "USER-DEFINED": ("'completed'", "'failed'", "'cancelled'"),
}


#: Tables of which a case changes a row that is there; its job is the case's.
CHANGED = ("job", "function", "batch$")
#: Rows to insert, of which a case changes a column; {n} is the case's number and {job} its job.
_BEE, _TOKEN = "md5('{n}')::uuid", "'00000000-0000-0000-0000-000000000007'"
_FACTS = {"incarnation": _BEE, "host": "'h'", "pid": "1", "python": "'3'", "runners": "1", "version": "'2'"}
_COUNTS = ("added", "reopened", "completed", "failed", "cancelled", "retried", "lost", "speculative", "late")
INSERTED = {
    "outcome": {"job": "{job}", "run": "1", "status": "'completed'", "codec": "'json'", "output": "'1'", "mac": "'x'"},
    "run": {"job": "{job}", "run": "2"},
    "attempt": {"job": "{job}", "run": "1", "kind": "'failed'", "bee": _BEE, "host": "'h'", "error": "'{{}}'"},
    "part": {"job": "{job}", "run": "0", "token": _TOKEN, "seq": "0", "data": "'x'"},
    "text": {"job": "{job}", "run": "1", "claim": _TOKEN, "bee": _BEE},
    "bee$": _FACTS | {"lease_until": "now() + interval '10 minutes'"},
    "departed$": _FACTS | {"started_at": "now()", "left_at": "now()"},
    "service$": {"jobset": "1", "bee": _BEE, "host": "'h'"},
    "counter$": {"jobset": "1", "writer": _BEE},
    "history$": {"jobset": "1", "minute": "now() - interval '{n} minutes'", "bees": "1", "runners": "1"}
    | dict.fromkeys(_COUNTS, "1"),
    "tail$": {"jobset": "1", "job": "{n}", "asked_by": "'x'", "asked_until": "now() + interval '1 minute'"},
}
#: Tables whose rows belong to a job.
OF_A_JOB = (*CHANGED, "outcome", "run", "attempt", "part", "text")


class Column(NamedTuple):
    """A column of one of our tables; ``table`` is without the number."""

    table: str
    name: str
    type: str


class Case(NamedTuple):
    """A value in a column."""

    column: Column
    value: str

    def __str__(self) -> str:
        return f"{self.column.table}.{self.column.name} = {self.value[:60]}"

    def statement(self, n: int, job: int | None) -> str:
        """SQL that writes it, in jobset 1; headers are of one job each."""
        kind, name, type_ = self.column
        table = f'workerbee."{kind}"' if kind.endswith("$") else f'workerbee."{kind}$1"'
        value = f"{self.value}::bigint[]" if type_ == "ARRAY" and kind == "batch$" else self.value
        if kind in CHANGED:
            function = f'(SELECT function FROM workerbee."job$1" WHERE id = {job})'
            where = {"job": f"id = {job}", "function": f"number = {function}", "batch$": f"jobs = '{{{job}}}'"}[kind]
            return f'UPDATE {table} SET "{name}" = {value} WHERE {where}'
        row = {column: text.format(n=n, job=job) for column, text in INSERTED[kind].items()} | {name: value}
        return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})"

    @property
    def waits(self) -> bool:
        """Whether it means that its job isn't due, or is of a function that no bee here can run."""
        later = ("'infinity'", "'294276-12-31 23:59:59+00'", "now() + interval '50 years'")
        kind, name, _ = self.column
        return "function" in (kind, name) or (name == "due_at" and self.value in later)


def columns(database: Database, number: int) -> Iterator[Column]:
    """All columns, of a jobset's own tables by their kind (``job``), of shared ones by their name (``batch$``)."""
    for table, name, kind in database.execute(
        "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns"
        " JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE table_schema = 'workerbee' AND table_type = 'BASE TABLE' ORDER BY table_name, ordinal_position"
    ):
        kind_of, _, of = table.partition("$")
        if not of or of == str(number):
            yield Column(kind_of if of else table, name, kind)


def cases(database: Database, number: int = 1) -> list[Case]:
    """Every column with every value of its type, and with NULL."""
    return [Case(column, value) for column in columns(database, number) for value in ("NULL", *VALUES[column.type])]
