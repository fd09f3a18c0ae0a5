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
    """A Python of our version, for which our libraries are made, that this user can run; ours may be in root's home."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    check = f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != {ours!r})"
    for python in (sys.executable, f"/usr/bin/python{ours}", "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([python, "-c", check], check=True, **user)
            return python
    pytest.skip(f"no Python {ours} that another user can run")
