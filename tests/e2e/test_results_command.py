"""``workerbee results``: what jobs returned, for other programs, with the key and without it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import click.testing
import numpy as np
import pytest

from tests.servers import Database
from workerbee import WorkerbeeExecutor
from workerbee.cli import main


def half(job: dict[str, int]) -> dict[str, object]:
    """What is JSON, what isn't quite, and what fails."""
    if job["n"] == 3:
        raise ValueError("no three")
    return {"half": job["n"] / 2, "list": np.arange(job["n"]) if job["n"] == 2 else [job["n"]]}


@pytest.fixture
def study(database: Database) -> Database:
    """Jobs 0 to 3 of `half`, of which the last one failed."""
    with WorkerbeeExecutor(1, jobset_id="study", dsn=database.dsn) as executor:
        for future in [executor.submit(half, {"n": n}) for n in range(4)]:
            future.exception()
    return database


def say(database: Database, *arguments: str) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(main, ["results", "study", *arguments, "--dsn", database.dsn])
    assert result.exit_code == 0, result.output
    return result


def test_results_are_rows(study: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON lines or CSV, on stdout or in a file; arrays as numbers, errors as text."""
    rows = [json.loads(line) for line in say(study).stdout.splitlines()]
    assert rows[1] == {"job_id": 2, "status": "completed", "n": 1, "half": 0.5, "list": [1]}
    assert (len(rows), rows[2]["list"]) == (3, [0, 1])
    failed = json.loads(say(study, "--failed").stdout.splitlines()[-1])
    assert (failed["status"], failed["error"]) == ("failed", "ValueError: no three")
    say(study, "--format", "csv", "-o", str(tmp_path / "study.csv"))
    table = list(csv.DictReader(io.StringIO((tmp_path / "study.csv").read_text())))
    assert table[1] == {"job_id": "2", "status": "completed", "n": "1", "half": "0.5", "list": "[1]"}
    assert [path.name for path in tmp_path.iterdir()] == ["study.csv"]
    monkeypatch.setenv("WORKERBEE_KEY_FILE", str(tmp_path / "no key"))
    unsigned = [json.loads(line) for line in say(study, "--failed").stdout.splitlines()]
    assert [row.get("half") for row in unsigned] == [0.0, 0.5, None, None]
    assert "SignatureError" in unsigned[2]["error"]
    assert "no three" in unsigned[3]["error"]
