"""All commands by one table: their JSON, exit statuses, and what they say of mistakes; and that none is left out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import click.testing
import psutil
import pytest
from psycopg2.extensions import parse_dsn
from pyarrow import parquet

from tests.bees import PROJECT
from tests.servers import Database
from tests.store.hive import Hive, make_study
from workerbee import JobSet, WorkerbeeExecutor, server
from workerbee.cli import main
from workerbee.store import Connection
from workerbee.wire.signing import Key

NOWHERE = "host=127.0.0.1 port=1"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
MOMENTS = {"at", "made", "active", "paused", "ended", "first", "last", "started", "ends"}

JOBSET = "jobset made active paused paused_by paused_why percent bees runners events"
JOB = "job status run function input output duration_seconds ended bee host"
#: What reads: how it is called, the name in its document's schema (None: one object a line), and some of its keys.
READING: dict[str, tuple[str, str | None, str]] = {
    "status": ("status", None, JOBSET),
    "status JOBSET": (
        "status survey",
        "status",
        f"{JOBSET} jobs rate_per_second seconds_left sentence next",
    ),
    "status --size": ("status survey --size", None, f"{JOBSET} bytes text_bytes file_bytes"),
    "jobs list": ("jobs list survey", None, JOB),
    "jobs show": ("jobs show survey 5", "job", f"{JOB} output_trouble events"),
    "jobs find": ('jobs find survey {"n":2}', None, JOB),
    "failures": ("failures survey", None, "group cause jobs type message frame functions hosts first last example"),
    "results": ("results survey --all", None, "job_id status n"),
    "bees": ("bees survey", None, "bee state host pid jobset runners begun started silent_seconds python version ends"),
    "wait": ("wait survey --timeout 0", "wait", "jobset completed ended_badly open time_is_up"),
    "doctor": ("doctor", "doctor", "ok checks"),
    "server status": ("server status", "server", "running pid state data bytes exists users others key"),
    "server path": ("server path", "server_path", "data exists"),
    "key show": ("key show", "key", "fingerprint path files"),
    "schema show": ("schema show", "schema", "present needed"),
}
STATUSES = {"wait": 124, "server status": 1}
#: What has no answer to be read by a program: it changes something, is a screen, or is text for another program.
OTHERS = {
    "top", "dashboard", "help", "report", "retry", "cancel", "pause", "resume", "drop", "bee", "demo", "psql",
    "completion", "key renew", "key rotate", "schema install", "schema upgrade", "schema sql", "server stop",
    "jobs logs", "jobs stack",
}  # fmt: skip
OF_A_JOBSET = (
    "status studie", "top studie", "jobs list studie", "jobs show studie 1", "jobs find studie 1", "failures studie",
    "results studie", "report studie -o studie.html", "bees studie", "wait studie", "retry studie", "cancel studie",
    "pause studie", "resume studie", "drop studie --yes",
)  # fmt: skip
#: What is likely to be typed, and a part of the answer: what to type instead.
MISTAKES = {
    "statsu": "did you mean 'status'?",
    "rm survey": "did you mean 'drop'?",
    "start survey": "did you mean 'bee'?",
    "frobnicate survey": "workerbee --help lists them",
    "failures": "failures [OPTIONS] JOBSET; workerbee status lists the jobsets",
    "jobs survey": "jobs list survey",
    "jobs show survey": "jobs show [OPTIONS] JOBSET ID; workerbee jobs list JOBSET lists the jobs",
    "jobs show survey 999": "there is no job 999 in survey: workerbee jobs list survey --after 998",
    "jobs find survey {n:2}": """put it into single quotes, and names and texts in it into double ones: '{"n": 2}'""",
    "jobs find survey seed=a,n=1": """'{"seed": "a", "n": 1}'""",
    "jobs find survey seven": """'{"input": "seven"}'""",
    "jobs list survey --status done": "done: there are waiting, retrying, running, completed, failed, cancelled",
    "jobs list survey --function simulate": "survey has no jobs of 'simulate'; its functions are",
    "jobs show 5 survey": "'survey' is no job's number: ",
    "jobs show survey 99999999999999999999": "'99999999999999999999' is no job's number: ",
    "jobs logs survey 0": "'0' is no job's number: ",
    "jobs stack survey one": "'one' is no job's number: ",
    "retry survey 9999999999 --yes": "there is no job 9999999999 in survey: workerbee jobs list survey --after 9",
    "cancel survey 1 999 --yes": "there is no job 999 in survey: workerbee jobs list survey --after 998",
    "survey status": "the command comes first: workerbee status survey",
    "--json status": "--json goes behind the command: workerbee status --json …",
    "server start": "there is no command 'start', there are path, status, stop",
    "schema drop": "there is no command 'drop', there are install, show, sql, upgrade",
    "results survey -o nowhere/survey.csv": "nowhere/.survey.csv.part can't be written or read: No such file",
    "report survey -o nowhere/survey.html": "can't be written or read: No such file or directory",
    "retry survey": "say --yes to do it",
    "retry survey --group 9": "there is 1 group of failures now, and none of them is '9': workerbee failures survey",
    "drop": "say which jobsets: by their names, or by --older-than",
    "drop --older-than 30": "such are 90min, 12h, 30d and 4w",
    "results survey --format parquet": "name a file by -o FILE",
    "report survey": "'-o' / '--output' is missing",
    "status --dsn host": "write it as 'host=… port=… user=… dbname=…'",
}


@pytest.fixture(scope="module")
def survey(shared: Database) -> Iterator[Hive]:
    """The jobset ``survey``: four completed jobs, two that failed for one cause, one that runs and one that waits."""
    connection = Connection(shared.dsn)
    hive = make_study(connection, "survey", "node-18", 4)
    yield hive
    connection.close()


def say(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [*arguments])


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, (*path, name))


def test_each_command_is_in_one_of_the_tables_and_has_json_if_it_reads() -> None:
    """A new one is tested like the others, or nothing is."""
    commands = dict(leaves(main))
    reading = {name.removesuffix(" JOBSET").removesuffix(" --size") for name in READING}
    assert reading | (OTHERS & set(commands)) == set(commands)
    assert not reading & OTHERS
    for name in reading:
        assert any("--json" in option.opts for option in commands[name].params), name
    for name, command in commands.items():
        assert command.help, name
        assert "\\" not in command.help, f"{name} shows how its help is written"
        assert command.callback is not None
        module = command.callback.__module__.removeprefix("workerbee.cli.")
        assert name.split()[0] == module.split(".")[0], f"{name} is looked for in a file of its name"


@pytest.mark.parametrize("name", list(READING))
def test_json_is_one_document_or_an_object_a_line(shared: Database, survey: Hive, name: str) -> None:
    """Times are UTC in ISO 8601, durations in seconds, names in one manner; and nothing else is on stdout."""
    Key.load_or_make()
    typed, schema, keys = READING[name]
    needs_dsn = not typed.startswith(("server", "key"))
    result = say(*typed.split(" "), "--json", *(["--dsn", shared.dsn] if needs_dsn else []))
    assert result.exit_code == STATUSES.get(name, 0), result.output
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert documents
    if schema is not None:
        [document] = documents
        assert document["schema"] == f"workerbee.{schema}/1"
        assert MOMENT.fullmatch(document["at"])
    for document in documents:
        missing = set(keys.split()) - document.keys()
        assert not missing
        check_values(document)


def check_values(value: Any, name: str = "") -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            assert re.fullmatch(r"[a-z_]+", key) or name in ("files", "refuses", "error"), key
            check_values(item, key)
    elif isinstance(value, list):
        for item in value:
            check_values(item, name)
    elif name in MOMENTS:
        assert value is None or MOMENT.fullmatch(value), (name, value)
    elif "seconds" in name:
        assert value is None or isinstance(value, (int, float)), (name, value)


@pytest.mark.parametrize("typed", OF_A_JOBSET)
def test_an_unknown_jobset_is_a_mistake_and_the_nearest_is_named(
    shared: Database, survey: Hive, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2, nothing on stdout, and no file."""
    monkeypatch.chdir(tmp_path)
    result = say(*typed.replace("studie", "survei").split(" "), "--dsn", shared.dsn)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "did you mean 'survey'?" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("typed", [*OF_A_JOBSET, "status", "bees", "schema show", "schema install", "doctor"])
def test_without_a_database_the_status_is_69(typed: str) -> None:
    """The doctor's answer is no."""
    result = say(*typed.split(" "), "--dsn", NOWHERE)
    assert result.exit_code == (1 if typed == "doctor" else 69)
    assert "can't connect to PostgreSQL at 127.0.0.1 port 1" in result.output
    assert "Traceback" not in result.output
    if typed != "doctor":
        assert result.stdout == ""
        assert result.stderr.endswith("workerbee doctor says where it fails\n")


@pytest.mark.parametrize("typed", list(MISTAKES))
def test_a_mistake_is_answered_by_what_to_type(
    shared: Database, survey: Hive, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2, on stderr, in few words."""
    monkeypatch.setenv("COLUMNS", "1000")
    arguments = typed.split(" ")
    is_elsewhere = "--dsn" in arguments or arguments[0] in ("survey", "--json", "server", "schema")
    result = say(*arguments, *([] if is_elsewhere or len(arguments) == 1 else ["--dsn", shared.dsn]))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert MISTAKES[typed] in result.stderr
    assert len(result.stderr) < 700


def test_a_closed_pipe_is_no_error_for_any_command(shared: Database, survey: Hive) -> None:
    """``workerbee … | head -0`` says nothing on stderr; the answer is the command's."""
    script = """
import json, os, sys
from workerbee.cli import main
for arguments in map(json.loads, sys.stdin):
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    os.close(writer)
    sys.stdout = open(1, "w", closefd=False)
    try:
        main(arguments, prog_name="workerbee")
    except SystemExit as end:
        if end.code:
            print(arguments, "ended with", end.code, file=sys.stderr)
    try:
        sys.stdout.close()  # now, as the next command has another pipe
    except OSError:
        pass
"""
    typed = [
        [*typed.split(" "), *as_json, *([] if typed.startswith(("server", "key")) else ["--dsn", shared.dsn])]
        for name, (typed, _, _) in READING.items()
        if name not in STATUSES
        for as_json in ([], ["--json"])
    ]
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(map(json.dumps, typed)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_jobs_are_found_by_their_input_or_a_part_of_it(database: Database) -> None:
    """A whole call by the index, of any function and of add_jobs; a part by looking, and what wasn't seen is said."""
    executor = WorkerbeeExecutor(0, jobset_id="found", dsn=database.dsn)
    for arguments in ([{"n": 1, "where": {"x": [1, 2]}}], [{"n": 2, "where": {"x": []}}], [7, True], [b"bytes"]):
        executor.submit(print, *arguments)
    executor.submit(max, {"n": 1, "where": {"x": [1, 2]}})
    executor.submit(print, sep="honey")
    executor.flush()
    executor.shutdown(wait=False)
    parts = parse_dsn(database.dsn)
    jobset = JobSet(
        "found", host=parts["host"], port=parts["port"], user="postgres", dbname=parts["dbname"], logger_name="other"
    )
    jobset.setup_jobset(ignore_existing_jobset=True)
    jobset.add_jobs([{"id": "a", "n": 1}, {"id": 8, "n": 3}])
    jobset.close()

    def ids(text: str, *options: str) -> list[int]:
        result = say("jobs", "find", "found", text, "--json", *options, "--dsn", database.dsn)
        found = [json.loads(line)["job"] for line in result.stdout.splitlines()]
        assert result.exit_code == (not found), result.output
        return found

    assert ids('{"where": {"x": [1, 2]}, "n": 1}') == [5, 1], "the very call, in any order of its names"
    [first] = ids('{"id": "a"}')
    assert ids('{"id": "a", "n": 1}') == [first]
    assert ids('{"id": 8}') == [first + 1], "by the index of ids"
    assert ids('{"n": 1}') == [first, 5, 1]
    assert ids('{"n": 1}', "--limit", "2") == [first, 5]
    assert ids('{"n": 1}', "--before", "5") == [1]
    assert ids('{"where": {"x": [2]}}') == [5, 1]
    assert ids('{"args": [7, true], "kwargs": {}}') == [3]
    assert ids("7") == [3]
    assert ids("true") == [3], "which isn't 1"
    assert ids('{"sep": "honey"}') == [6]
    assert ids('{"n": 1.0}') == [first, 5, 1], "as PostgreSQL has it"
    assert ids('{"n": "1"}') == []
    said = say("jobs", "find", "found", '{"n": 9}', "--dsn", database.dsn)
    assert (said.exit_code, said.stdout) == (1, "")
    assert "no job has that in its input" in said.stderr
    assert "1 of them can't be searched" in said.stderr


def mixed(job: dict[str, int]) -> dict[str, Any]:
    """Values that change their kind from row to row."""
    n = job["n"]
    kinds: list[Any] = [True, n, n / 2, f"n{n}", [n], None, 2**70]
    return {"same": n / 4, "kind": kinds[n % len(kinds)], **({"late": n} if n > 10 else {})}


def test_results_are_written_as_parquet(database: Database, tmp_path: Path) -> None:
    """Each column has one type that fits; rows that come late may have more columns; or the file isn't there."""
    with WorkerbeeExecutor(1, jobset_id="mixed", dsn=database.dsn) as executor:
        list(executor.map(mixed, [{"n": n} for n in range(14)]))
    file = tmp_path / "mixed.parquet"
    assert say("results", "mixed", "--format", "parquet", "-o", str(file), "--dsn", database.dsn).exit_code == 0
    table = parquet.read_table(file)
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "job_id": "int64", "status": "string", "n": "int64", "same": "double", "kind": "string", "late": "int64"
    }  # fmt: skip
    rows = table.to_pylist()
    assert [row["kind"] for row in rows[:7]] == ["true", "1", "1.0", "n3", "[4]", None, str(2**70)]
    assert [row["late"] for row in rows[10:]] == [None, 11, 12, 13]
    assert [path.name for path in tmp_path.iterdir()] == ["mixed.parquet"]


def test_without_pyarrow_parquet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sentence, before anything is connected."""
    monkeypatch.setattr("workerbee.cli.formats.find_spec", lambda _: None)
    said = say("results", "survey", "--format", "parquet", "-o", "x", "--dsn", NOWHERE)
    assert (said.exit_code, said.stdout) == (1, "")
    assert "pip install pyarrow" in said.stderr


def test_a_report_is_one_file_with_all_of_it(shared: Database, survey: Hive, tmp_path: Path) -> None:
    """The sentence, figures, three plots, causes with a traceback, jobs, bees; no script, and no way out."""
    file = tmp_path / "survey.html"
    stranger = survey.bee("<script>alert('host')</script>")
    assert say("report", "survey", "-o", str(file), "--dsn", shared.dsn).exit_code == 0
    survey.catalogue.leave(stranger.incarnation)
    text = file.read_text("utf-8")
    assert len(text) < 60_000
    for part in ("Under way: 75 % of 8 jobs", "ValueError: unlucky #", "File a.py, line 1", "node-18", "running"):
        assert part in text, part
    assert text.count("<svg") == 3
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"\b(src|href)=|url\(", text)
    assert "default-src 'none'" in text
    said = say("report", "survey", "-o", "-", "--dsn", shared.dsn)
    assert said.stdout.startswith("<!doctype html>")


def test_the_doctor_names_what_is_bad(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict a line, and status 1 if one is bad; what is only unusual is a remark."""

    def verdicts(dsn: str) -> dict[str, str]:
        result = say("doctor", "--json", "--dsn", dsn)
        checks = json.loads(result.stdout)["checks"]
        assert result.exit_code == any(check["verdict"] == "bad" for check in checks)
        return {check["what"]: check["verdict"] for check in checks}

    well = verdicts(database.dsn)
    assert "bad" not in well.values()
    assert {"python", "packages", "key", "name", "port", "tls", "pooler", "latency", "clock"} < well.keys()
    assert well["schema"] == "remark", "nobody has made one yet"
    assert verdicts("host=nowhere.invalid port=1 connect_timeout=2")["name"] == "bad"
    away = verdicts(NOWHERE)
    assert (away["name"], away["port"], away["connection"]) == ("ok", "bad", "bad")
    assert verdicts(f"host={tmp_path} port=5432")["port"] == "bad"
    database.execute('CREATE SCHEMA workerbee; CREATE TABLE workerbee."version$" (number integer)')
    database.execute('INSERT INTO workerbee."version$" VALUES (1)')
    assert verdicts(database.dsn)["schema"] == "bad"
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        assert verdicts(database.dsn.replace("user=postgres", f"user={role}"))["privileges"] == "bad"
    finally:
        database.execute(f"DROP ROLE {role}")
    key = tmp_path / "key"
    key.write_text("no key")
    monkeypatch.setenv("WORKERBEE_KEY_FILE", str(key))
    assert verdicts(NOWHERE)["key"] == "bad"


def test_the_embedded_server_is_told_of_and_stopped_when_nobody_uses_it() -> None:
    """Whoever uses it is named; what its keeper leaves behind ends at a stop; and how to delete everything is said."""
    with server.of_command(None):
        seen = json.loads(say("server", "status", "--json").stdout)
        assert seen["running"]
        assert os.getpid() in [user["pid"] for user in seen["users"]]
        assert seen["bytes"] > 10_000_000
        refused = say("server", "stop")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert f"kill {os.getpid()}" in refused.stderr
        keeper = psutil.Process(seen["pid"]).parent()
        assert keeper is not None
        keeper.suspend()
    try:
        assert say("server", "stop").stdout == f"stopped; its data are in {seen['data']}\n"
        shown = say("server", "status")
        assert shown.exit_code == 1
        assert shown.stdout.startswith("not running\n")
        assert f"workerbee server stop && rm -r {seen['data']}" in shown.stdout
    finally:
        keeper.resume()
    assert say("server", "path").stdout == f"{seen['data']}\n"
    assert say("server", "stop").stdout == "it isn't running\n"
