"""Running programs as an ordinary user, where the tests are root's."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

import pytest


def identity(user: int, group: int) -> dict[str, Any]:
    """The arguments that make `subprocess` run a program as this user."""
    return {"user": user, "group": group, "extra_groups": []}


def interpreter_for(user: dict[str, Any]) -> str:
    """A Python that this user can run; ours may be in root's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([python, "-c", "import sys; assert sys.version_info >= (3, 10)"], check=True, **user)
            return python
    pytest.skip("no interpreter that another user can run")
