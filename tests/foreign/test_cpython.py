"""CPython's own tests of concurrent.futures pass with our executor; what is left out is named in cpython.py."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn

from tests.foreign import cpython
from tests.foreign.suite import run
from tests.servers import Database

PROJECT = Path(__file__).parents[2]
#: Where Debian puts the suite that it leaves out of its Python.
DEBIAN = Path(f"/usr/lib/python3.{sys.version_info.minor}/test")

pytestmark = pytest.mark.foreign


@pytest.fixture
def suite(tmp_path: Path) -> list[str]:
    """The directories from which the suite can be imported."""
    if importlib.util.find_spec("test.test_concurrent_futures") is not None:
        return []
    if not list(DEBIAN.glob("test_concurrent_futures*")):
        pytest.skip("CPython's tests aren't here; Debian has them in libpython3.11-testsuite")
    (tmp_path / "test").symlink_to(DEBIAN)
    return [str(tmp_path)]


@pytest.mark.parametrize("name", cpython.CLASSES)
def test_the_standard_library_suite(name: str, suite: list[str], database: Database) -> None:
    """Each class passes, in a process of its own, so that one that hangs is cut."""
    server = {f"PG{part.upper()}": value for part, value in parse_dsn(database.dsn).items()}
    server["PGDATABASE"] = server.pop("PGDBNAME")
    server["PYTHONPATH"] = os.pathsep.join([str(PROJECT), *suite])
    ended = run([sys.executable, cpython.__file__, name], 200, server)
    assert ended.status == 0, ended.output
