"""The examples that the project began with, unchanged, against a server on localhost:5432.

Where somebody else has that port, or the files in /tmp that they make, only these are changed in them.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.servers import Reachable, Server
from workerbee.store import Catalogue, Connection

PROJECT = Path(__file__).parents[2]
TEXT = Path(__file__).with_name("origin_examples.md").read_text()
EXAMPLES = dict(re.findall(r"(?ms)^## ([^\n]*)\n```py\n(.*?)^```", TEXT))
N_RACERS = 16


class Postgres(Reachable):
    """The database ``postgres`` of the server."""

    def __init__(self, server: Server) -> None:
        self.port = server.port
        self.dsn = server.dsn_of("postgres")

    def rows(self, jobset_id: str) -> list[dict[str, Any]]:
        """What psql shows, by the columns' names."""
        columns = (
            "id, input_data, output_data, n_claims, n_failed_attempts, time_last_claimed, time_last_completed, "
            "job_duration"
        )
        found = self.execute(f"SELECT {columns} FROM workerbee.{jobset_id} ORDER BY id")
        return [dict(zip(columns.split(", "), row, strict=True)) for row in found]

    def drop(self, jobset_id: str) -> None:
        connection = Connection(self.dsn, application="test")
        catalogue = Catalogue(connection)
        jobset = catalogue.find_jobset(jobset_id)
        assert jobset is not None
        assert catalogue.drop_jobset(jobset)
        connection.close()


@pytest.fixture(scope="module")
def postgres_server(run_directory: Path) -> Iterator[Server]:
    with servers.server(port=5432 if _is_free(5432) else None) as running:
        yield running


def _is_free(port: int) -> bool:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with closing(socket.socket(family)) as probe, suppress(OSError):
            probe.connect((address, port))
            return False
    return True


@pytest.fixture
def postgres(postgres_server: Server) -> Iterator[Postgres]:
    """A database without any jobset."""
    yield (found := Postgres(postgres_server))
    found.execute("DROP SCHEMA IF EXISTS workerbee CASCADE")


@pytest.fixture
def files_of_tmp(tmp_path: Path) -> Iterator[list[Path]]:
    """The files that an example makes in /tmp, or elsewhere where these are somebody else's."""
    files = [Path("/tmp/0"), Path("/tmp/1")]
    if any(file.exists() or file.is_symlink() for file in files):
        files = [tmp_path / "0", tmp_path / "1"]
    yield files
    for file in files:
        file.unlink(missing_ok=True)


@pytest.fixture
def start(
    tmp_path: Path, postgres: Postgres, files_of_tmp: list[Path]
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts an example as a script of its own."""
    for name, example in EXAMPLES.items():
        at_server = example.replace('port="5432"', f'port="{postgres.port}"')
        (tmp_path / f"{name}.py").write_text(at_server.replace('"/tmp/', f'"{files_of_tmp[0].parent}/'))
    started = []

    def start(name: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, tmp_path / f"{name}.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_there_are_four() -> None:
    """None of the examples is missed."""
    assert list(EXAMPLES) == ["A single node", "Many nodes", "Logging", "Handling failures"]


def test_single_node(postgres: Postgres, start: Callable[..., subprocess.Popen[str]]) -> None:
    """Each job is run once, and the table says when; a second run is refused, and changes nothing."""
    first = start("A single node")
    out, err = first.communicate(timeout=60)
    assert (first.returncode, err) == (0, "")
    inputs = [{"id": 0, "data": "test"}, {"id": 1, "data": "test2"}]
    said = re.findall("Processing job with data: {.*?}", out)  # a line may have a message of the log's in it
    assert sorted(said) == [f"Processing job with data: {data}" for data in inputs]
    rows = postgres.rows("a_valid_id_01")
    assert [row["input_data"] for row in rows] == inputs
    for row in rows:
        assert (row["output_data"], row["n_claims"], row["n_failed_attempts"]) == (None, 1, 0)
        assert row["time_last_claimed"] < row["time_last_completed"]
        assert 1 <= row["job_duration"].total_seconds() < 10

    second = start("A single node")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 1
    assert err.splitlines()[-1] == (
        "workerbee.errors.JobsetExistsError: the jobset 'a_valid_id_01' exists already; "
        "pass ignore_existing_jobset=True to go on with it, or choose another id"
    )
    assert postgres.rows("a_valid_id_01") == rows


@pytest.mark.parametrize("n_rounds", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_many_nodes(postgres: Postgres, start: Callable[..., subprocess.Popen[str]], n_rounds: int) -> None:
    """However many processes race, one creates the jobset, none adds a job again, and none is lost."""
    for _ in range(n_rounds):
        nodes = [start("Many nodes") for _ in range(N_RACERS)]
        ends = [(*node.communicate(timeout=120), node.returncode) for node in nodes]
        assert [end[1:] for end in ends] == [("", 0)] * N_RACERS
        said = "".join(out for out, *_ in ends)
        assert said.count("created the jobset") == 1
        assert said.count("found the jobset") == N_RACERS - 1
        assert said.count("added 2 jobs") == 1
        rows = postgres.rows("a_valid_id_02")
        assert sorted(row["input_data"]["data"] for row in rows) == ["test", "test2"]
        assert all(row["time_last_completed"] is not None for row in rows)
        assert [row["n_failed_attempts"] for row in rows] == [0, 0]
        for data in ("test", "test2"):
            assert f"Processing job with data: {{'data': '{data}'}}" in said
        postgres.drop("a_valid_id_02")


def test_logging(postgres: Postgres, start: Callable[..., subprocess.Popen[str]]) -> None:
    """A logger of the user's is the only one: its warning of the failed attempt is all that is said."""
    process = start("Logging")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert sorted(out.splitlines()) == [
        f"Processing job with data: {data}" for data in ({"id": 0, "data": "test"}, {"id": 1, "data": "test2"})
    ]
    assert re.fullmatch(r"\(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\): job \d+ of a_valid_id_03: failed.*\n", err)
    rows = postgres.rows("a_valid_id_03")
    assert sorted(row["n_failed_attempts"] for row in rows) == [0, 1]
    assert sorted(row["n_claims"] for row in rows) == [1, 2]
    assert all(row["time_last_completed"] is not None for row in rows)


def test_failures(postgres: Postgres, start: Callable[..., subprocess.Popen[str]], files_of_tmp: list[Path]) -> None:
    """A job that can't succeed is tried three times in all, and the other one is done."""
    process = start("Handling failures", preexec_fn=_mind_modes)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert [file.read_text() for file in files_of_tmp] == ["", "test"]
    failed, done = postgres.rows("a_valid_id_04")
    assert (failed["n_claims"], failed["n_failed_attempts"], failed["time_last_completed"]) == (3, 3, None)
    assert (done["n_claims"], done["n_failed_attempts"]) == (1, 0)
    assert done["time_last_completed"] is not None


def _mind_modes() -> None:
    """Take from root the right to write to what is read-only, and from whatever it starts."""
    if os.geteuid() == 0:
        PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # noqa: N806 (the kernel's names)
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)
