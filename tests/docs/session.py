"""Runs the snippets of one page, from top to bottom, as its reader would. A program of its own.

    python session.py BLOCKS.json REPORT.json

Python with a guard (``if __name__ == "__main__":``) is a script of its own; other Python goes on where the last
block stopped, as in a notebook. ``sh`` and ``console`` are typed into a shell; but what is one call of ``workerbee``
or of a script is run in this process, where everything is loaded already.
"""

from __future__ import annotations

import json
import linecache
import os
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from workerbee.cli import main as workerbee

#: The server that pages call so is one of the tests'.
STAND_IN = "db.example.org"
GUARD = '__name__ == "__main__"'
#: What only a shell understands.
SHELL = "|&;<>$`*\n\\"


def main(blocks: Path, report: Path) -> None:
    tempfile.tempdir = tempfile.mkdtemp(dir=Path.cwd())  # so that nothing of a page stays in the machine's
    notebook = module(None)
    done = []
    for n, block in enumerate(json.loads(blocks.read_text("utf-8"))):
        done.append(RUN[block["language"]](block, n, notebook))
        report.write_text(json.dumps(done), "utf-8")


def python(block: dict[str, Any], n: int, notebook: ModuleType) -> dict[str, Any]:
    if GUARD in block["code"]:
        file = Path(f"snippet_{n}.py")
        file.write_text(block["code"], "utf-8")
        return script(file)
    name = f"<cell {n}>"
    linecache.cache[name] = (len(block["code"]), None, block["code"].splitlines(keepends=True), name)
    return run(lambda: exec(compile(block["code"], name, "exec"), vars(notebook)), notebook)


def script(file: Path) -> dict[str, Any]:
    main = module(str(file.absolute()))
    return run(lambda: exec(compile(file.read_text("utf-8"), str(file.absolute()), "exec"), vars(main)), main)


def run(act: Callable[[], Any], main: ModuleType) -> dict[str, Any]:
    """What it prints; a status that isn't 0, or an exception, is a failure."""
    sys.modules["__main__"] = main
    with captured() as said:
        try:
            act()
        except SystemExit as leaving:
            said["failed"] = bool(leaving.code)
        except BaseException:  # noqa: BLE001 (whoever runs this wants to see it)
            traceback.print_exc()
            said["failed"] = True
    return said


def module(file: str | None) -> ModuleType:
    made = ModuleType("__main__")
    if file is not None:
        made.__file__ = file
    return made


@contextmanager
def captured() -> Iterator[dict[str, Any]]:
    """What is written to the descriptors 1 and 2, by whatever process."""
    said: dict[str, Any] = {"failed": False}
    kept = {number: os.dup(number) for number in (1, 2)}
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{name}.txt", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    yield said
    sys.stdout.flush()
    sys.stderr.flush()
    for number, old in kept.items():
        os.dup2(old, number)
        os.close(old)
    said |= {name: Path(f"{name}.txt").read_text("utf-8", "replace") for name in ("out", "err")}


def shell(block: dict[str, Any], _: int, __: ModuleType) -> dict[str, Any]:
    if block["language"] == "sh":
        return typed(block["code"])
    done = [typed(command) | {"expected": expected} for command, expected in dialogue(block["code"])]
    return {"failed": False, "out": "", "err": "", "commands": done}


def typed(command: str) -> dict[str, Any]:
    before = dict(os.environ)
    if STAND_IN in command:
        os.environ.update(PGHOSTADDR="127.0.0.1", PGUSER="postgres", PGPORT=os.environ["DOCS_PORT"])
    try:
        return answered(command)
    finally:
        os.environ.clear()
        os.environ.update(before)


def answered(command: str) -> dict[str, Any]:
    words = shlex.split(command)
    is_simple = not set(command) & set(SHELL)
    if is_simple and words[0] == "workerbee":
        said = run(lambda: workerbee(words[1:], prog_name="workerbee"), module(None))
    elif is_simple and words[0] == "python" and words[1].endswith(".py"):
        said = script(Path(words[1]))
    else:
        return in_shell(command)
    return said | {"out": said["out"] + said["err"], "err": "", "command": command}


def in_shell(command: str) -> dict[str, Any]:
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return {"failed": done.returncode != 0, "out": done.stdout, "err": "", "command": command}


def dialogue(text: str) -> list[tuple[str, str]]:
    """The commands of a dialogue, each with what is shown as its answer."""
    parts: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            parts.append((line[2:], ""))
        elif parts[-1][0].endswith("\\"):
            parts[-1] = (f"{parts[-1][0]}\n{line}", "")
        else:
            parts[-1] = (parts[-1][0], f"{parts[-1][1]}{line}\n")
    return parts


RUN = {"python": python, "sh": shell, "console": shell}

if __name__ == "__main__":
    here = sys.argv
    sys.argv = [""]
    main(Path(here[1]), Path(here[2]))
