"""PgBouncer in transaction mode before a throw-away server."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import Server, free_port
from tests.waiting import eventually


def program() -> str | None:
    """Where it is installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextmanager
def pgbouncer(server: Server, *, auth: str = "auth_type = any", behind: int | None = None) -> Iterator[int]:
    """Its port; skips the test where the program isn't installed. ``behind`` is the port of a proxy of the server."""
    if (found := program()) is None:
        pytest.skip("pgbouncer isn't installed")
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir=server.directory))
    folder.chmod(0o755)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={behind or server.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n{auth}\n"
        "pool_mode = transaction\ndefault_pool_size = 2\nignore_startup_parameters = extra_float_digits\n"
        "server_login_retry = 0\n"
    )
    owner = pwd.getpwuid((server.directory / "data").stat().st_uid)
    process = subprocess.Popen(
        [found, folder / "pgbouncer.ini"],
        user=owner.pw_name if os.geteuid() == 0 else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: answers(port))
        yield port
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
