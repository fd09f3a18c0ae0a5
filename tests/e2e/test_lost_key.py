"""A key file that is gone, beside an embedded server whose data stayed."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from tests.jobs import double
from tests.servers import Database
from workerbee import WorkerbeeExecutor
from workerbee.cli import main
from workerbee.errors import KeyMismatchError
from workerbee.wire.signing import Key, keep, whereabouts

LOST = "workerbee key renew study"


def told(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def study(*values: object) -> list[object]:
    """Double some values in the durable jobset, and see all that it holds."""
    with WorkerbeeExecutor(1, jobset_id="study") as executor:
        list(executor.map(double, values))
        assert executor.progress().failed == 0
        return [row["result"] for row in executor.results()]


def bees() -> set[psutil.Process]:
    """Return the bees that are children of this process."""
    return {child for child in psutil.Process().children() if "workerbee.bee.child" in child.cmdline()}


@pytest.fixture
def key_file() -> Path:
    return Path(os.environ["WORKERBEE_KEY_FILE"])


@pytest.fixture
def kept() -> Path:
    return Path(os.environ["WORKERBEE_HOME"]) / "key"


def test_lost_file_comes_back(key_file: Path, kept: Path, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was signed is found again, by the named file or in another home, and so is a copy that was lost."""
    assert study(1) == [2]
    made = key_file.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    key_file.unlink()
    assert study(1, 2) == [2, 4]
    assert key_file.read_text() == made
    kept.unlink()
    monkeypatch.delenv("WORKERBEE_KEY_FILE")
    for name in ("DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(environment / "another" / name))
    shutil.copy(key_file, kept)
    assert study(3) == [2, 4, 6]
    assert Key.load() is not None
    assert (environment / "another/CONFIG/workerbee/key").read_text() == made


def test_key_that_is_elsewhere(key_file: Path, kept: Path) -> None:
    """Where there is another key by now, both the error and the command say where theirs is; no bee is left."""
    study(1)
    others = bees()  # of executors that live as long as a whole package of tests
    key_file.write_text("ab" * 32)
    here = rf"theirs is in {kept}, go on with it by WORKERBEE_KEY_FILE={kept}"
    with pytest.raises(KeyMismatchError, match=here):
        study(1)
    assert bees() <= others
    assert [line.split(" in ")[1] for line in told("key", "show").stdout.splitlines()] == [str(key_file), str(kept)]
    said = told("key", "renew", "study", "--yes")
    assert said.exit_code == 1
    assert f"WORKERBEE_KEY_FILE={kept}" in said.output


def test_lost_key(key_file: Path, kept: Path) -> None:
    """What can be read without it is said and stays, and the jobset begins anew."""
    study(1, (2,))
    old = Key.load()
    assert old is not None
    key_file.unlink()
    kept.unlink()
    with pytest.raises(KeyMismatchError, match=LOST):
        study(1)
    asked = told("key", "renew", "study")
    assert (asked.exit_code, "1 of 2 inputs and 1 of 2 results" in asked.output) == (1, True)
    assert "1 inputs and 1 results, which are pickles" in asked.output
    with pytest.raises(KeyMismatchError):
        study(1)
    said = told("key", "renew", "study", "--yes")
    aside = f"study_{old.fingerprint[:8]}"
    assert (said.exit_code, f"is now {aside}" in said.output) == (0, True)
    assert study(3) == [6]
    assert "completed" in told("jobs", "list", aside).output
    assert told("key", "renew", "study").exit_code == 0


def test_demo_with_a_lost_key(key_file: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo goes on in a jobset of its own."""
    monkeypatch.setattr(
        importlib.import_module("workerbee.cli.demo"), "GRID", {"C": [1, 2, 3, 4], "gamma": [0.02], "kernel": ["rbf"]}
    )
    command = ("demo", "--workers", "1")
    for n_computed in (4, 0):
        assert f"{n_computed} computed now" in told(*command).output
    key_file.unlink()
    kept.unlink()
    for n_computed in (4, 0):
        said = told(*command)
        assert said.exit_code == 0
        assert f"{n_computed} computed now" in said.output


@pytest.fixture
def owned(database: Database) -> Callable[[], WorkerbeeExecutor]:
    """A jobset with a result; each call is another client of it."""

    def opened() -> WorkerbeeExecutor:
        return WorkerbeeExecutor(0, jobset_id="owned", dsn=database.dsn)

    executor = opened()
    executor.submit(double, 1)
    executor.flush()
    executor.shutdown(wait=False)
    return opened


def test_nobody_locks_out_an_owner_by_changing_a_row(
    database: Database, owned: Callable[[], WorkerbeeExecutor], caplog: pytest.LogCaptureFixture
) -> None:
    """Whose functions are stored here can be told by their signatures."""
    key = Key.load()
    assert key is not None
    database.execute("UPDATE workerbee.\"jobset$\" SET key = 'abababababababab'")
    owned().shutdown(wait=False)
    assert "somebody has changed the row" in caplog.text
    assert database.execute('SELECT key FROM workerbee."jobset$"') == [(key.fingerprint,)]


def test_nobody_becomes_an_owner_by_changing_a_row(
    database: Database, owned: Callable[[], WorkerbeeExecutor], key_file: Path
) -> None:
    """Neither by functions with another's signatures, nor with none that holds."""
    key_file.write_text("ab" * 32)
    database.execute(
        'INSERT INTO workerbee."function$1" (digest, identity, name, codec, body, python, mac)'
        " SELECT 'x' || digest, identity, name, codec, body, python, mac FROM workerbee.\"function$1\""
    )
    with pytest.raises(KeyMismatchError):
        owned()


def test_a_rotated_key_leaves_the_old_one_where_it_is_found(key_file: Path, kept: Path) -> None:
    """In a file of its own, private, by which what it has signed goes on; without somebody to ask it wants --yes."""
    assert told("key", "rotate", "--yes").exit_code == 2, "there is none yet"
    old = Key.load_or_make()
    keep()
    assert told("key", "rotate").exit_code == 2
    assert Key.load().fingerprint == old.fingerprint  # type: ignore[union-attr]
    done = told("key", "rotate", "--yes")
    new = Key.load()
    assert new is not None
    assert new.fingerprint != old.fingerprint
    aside = key_file.with_name(f"{key_file.name}.{old.fingerprint}")
    assert f"export WORKERBEE_KEY_FILE={aside}\n" in done.output
    assert aside.stat().st_mode & 0o777 == 0o600
    assert whereabouts(old.fingerprint) == aside
    assert kept.read_text() == key_file.read_text()
