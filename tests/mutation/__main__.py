"""``python -m tests.mutation [WORD ...]`` runs the mutants whose names hold a word, else all, and prints a table.

Each mutant is a change of text in a copy of the package. It is killed if the tests that are named for its
guard pass without it and fail with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutation.mutants import MUTANTS, Mutant
from tests.mutation.page import PAGE

PROJECT = Path(__file__).parents[2]


def main(words: list[str]) -> int:
    chosen = [m for m in (*MUTANTS, *PAGE) if not words or any(word in m.guard for word in words)]
    with tempfile.TemporaryDirectory(prefix="workerbee-mutation-") as place:
        copy = Path(place)
        copy.chmod(0o711)
        for name in ("workerbee", "tests"):
            shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "pyproject.toml", copy)
        healthy = run(copy, sorted({test for mutant in chosen for test in mutant.tests}))
        if healthy != 0:
            print("the tests fail without any mutant")
            return 1
        survivors = [mutant.guard for mutant in chosen if not killed(copy, mutant)]
    print(f"killed {len(chosen) - len(survivors)} of {len(chosen)}")
    return 1 if survivors else 0


def killed(copy: Path, mutant: Mutant) -> bool:
    """Whether the mutant's tests notice it; prints its line of the table."""
    path = copy / "workerbee" / mutant.file
    original = path.read_text("utf-8")
    path.write_text(mutant.applied(original), "utf-8")
    began = time.monotonic()
    try:
        status = run(copy, mutant.tests)
    finally:
        path.write_text(original, "utf-8")
    verdict = {0: "SURVIVED", 1: "killed"}.get(status, f"BROKEN ({status})")
    print(f"{verdict:10} {mutant.guard:62} {mutant.file:20} {time.monotonic() - began:4.0f} s", flush=True)
    return status == 1


def run(copy: Path, tests: tuple[str, ...] | list[str]) -> int:
    """Pytest's exit status for these tests, over the copy."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-n0",
        "-p",
        "no:cacheprovider",
        *(f"tests/{t}" for t in tests),
    ]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, stdout=subprocess.DEVNULL, check=False).returncode


sys.exit(main(sys.argv[1:]))
