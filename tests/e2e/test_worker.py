"""A runner is a worker of the program that submits: one script, started in many ways, beside a process pool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipapp
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Database

PROJECT = Path(__file__).parents[2]

#: What all ways have in common. ``HERE`` is looked up through the module alone, ``Later`` named in an annotation.
BODY = """
import os, sys

HERE = "of the script"

class Later:
    pass

def add(x: "Later") -> int:
    return x + 1

def twice(x):
    return x * FACTOR

FACTOR = 2

def in_a_pool():
    import multiprocessing
    with multiprocessing.Pool(2) as pool:
        return pool.map(add, [1, 2])

def facts(proxy):
    import __main__, multiprocessing, pickle, signal, subprocess, typing, warnings
    import helpers
    parent, me = multiprocessing.parent_process(), multiprocessing.current_process()
    print("to stdout")
    print("to stderr", file=sys.stderr)
    return {
        "argv": sys.argv,
        "path": [str(p) for p in sys.path],
        "cwd": os.getcwd(),
        "set before": os.environ.get("SET_BEFORE"),
        "environment": sorted(name for name in os.environ if name.startswith("PYTHON")),
        "flags": [str(sys.flags), sys.warnoptions, sorted(sys._xoptions)],
        "parent": [parent.name, parent.pid, parent.is_alive()],
        "identity": [len(me._identity), type(me._identity[-1]).__name__],
        "daemon": me.daemon,
        "authkey": proxy[:] == [1, 2] and bytes(me.authkey).hex(),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "child": subprocess.run(["false"]).returncode,
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "by name": [pickle.loads(pickle.dumps(add))(1), __main__.add(1), __main__.HERE, __main__.__name__],
        "looked up": [globals()["tw" + "ice"](1), eval("twice(FACTOR)"), vars(sys.modules[__name__])["tw" + "ice"](3)],
        "hints": repr(typing.get_type_hints(add)),
        "pool": in_a_pool(),
        "helpers": helpers.WHOSE,
        "later": __import__("later").WHOSE,
        "method": multiprocessing.get_start_method(allow_none=True),
    }

def compare():
    import json, multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from workerbee import WorkerbeeExecutor
    os.environ["SET_BEFORE"] = "yes"
    sys.path.insert(1, os.environ["LATER"])
    sys.path.append(__import__("pathlib").Path("odd"))
    multiprocessing.set_start_method("fork", force=True)
    with multiprocessing.Manager() as manager:
        proxy = manager.list([1, 2])
        with ProcessPoolExecutor(1) as pool:
            expected = pool.submit(facts, proxy).result()
        with WorkerbeeExecutor(1, dsn=os.environ["DSN"]) as executor:
            found = executor.submit(facts, proxy).result(60)
        spawned = None
        if "SPAWN" in os.environ:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                try:
                    spawned = pool.submit(facts, proxy).result()
                except Exception as error:
                    spawned = type(error).__name__
    print("FOUND" + json.dumps([expected, json.loads(json.dumps(found)), spawned]))
"""
GUARD = "\nif __name__ == '__main__':\n    compare()\n"


class Place:
    """Directories of one script: its own, another one's with modules that must not be taken for it, and ``later``."""

    def __init__(self, root: Path, dsn: str) -> None:
        self.own, self.elsewhere, self.later = root / "own", root / "elsewhere", root / "later"
        for directory in (self.own, self.elsewhere, self.later):
            directory.mkdir()
        (self.own / "helpers.py").write_text("WHOSE = 'the script'")
        (self.later / "later.py").write_text("WHOSE = 'later'")
        for name in ("helpers", "select", "queue", "workerbee", "click", "json"):
            (self.elsewhere / f"{name}.py").write_text("raise SystemExit('this is not the script')")
        self.script = self.own / "script.py"
        self.script.write_text(BODY + GUARD)
        self.environment = {**os.environ, "PYTHONPATH": str(PROJECT), "DSN": dsn, "LATER": str(self.later)}

    def run(self, *arguments: object, cwd: Path | None = None, text: str | None = None, **options: Any) -> Any:
        """What the script says on its stdout and stderr."""
        command = [sys.executable, *map(str, arguments)]
        said = subprocess.run(
            command,
            cwd=cwd or self.elsewhere,
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            **options,
        )
        assert "FOUND" in said.stdout, said.stderr
        return said


def by_file(place: Place) -> Any:
    return place.run("-O", "-W", "error::ImportWarning", "-X", "dev", "-X", "mine=1", place.script, "a", "b c")


def by_file_from_its_place(place: Place) -> Any:
    return place.run(place.script, "a", cwd=place.own)


def without_a_guard(place: Place) -> Any:
    place.script.write_text(BODY + "\ncompare()\n")
    return place.run(place.script)


def by_module(place: Place) -> Any:
    return place.run("-m", "script", "a", cwd=place.own)


def by_command(place: Place) -> Any:
    return place.run("-c", BODY + "\ncompare()\n", "a", cwd=place.own)


def by_stdin(place: Place) -> Any:
    return place.run("-", "a", cwd=place.own, text=BODY + "\ncompare()\n")


def by_zipapp(place: Place) -> Any:
    place.script.rename(place.own / "__main__.py")
    zipapp.create_archive(place.own, place.own.with_suffix(".pyz"))
    return place.run(place.own.with_suffix(".pyz"), "a")


def isolated(place: Place) -> Any:
    """Neither an environment nor site-packages: the script finds everything itself."""
    path = [str(PROJECT), *(p for p in sys.path if "site-packages" in p)]
    place.script.write_text(f"import sys\nsys.path += {[str(place.own), *path]!r}\n" + BODY + GUARD)
    return place.run("-I", "-S", place.script)


def by_ipython(place: Place) -> Any:
    pytest.importorskip("IPython")
    return place.run("-m", "IPython", "--no-banner", place.script, cwd=place.own)


def by_kernel(place: Place) -> Any:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = [nbformat.v4.new_code_cell(BODY), nbformat.v4.new_code_cell("compare()")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in place.environment.items():
            patch.setenv(name, value)
        nbclient.NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(place.own)}}).execute()
    said = "".join(o.get("text", "") for o in notebook.cells[1].outputs if o.get("name") == "stdout")
    return subprocess.CompletedProcess([], 0, said, None)


def by_pytest(mode: str) -> Callable[[Place], Any]:
    def run(place: Place) -> Any:
        test = place.own / "test_script.py"
        test.write_text(BODY.replace("__main__.", "sys.modules[add.__module__].") + "\ndef test():\n    compare()\n")
        options = ("-q", "-s", "-p", "no:cacheprovider", f"--import-mode={mode}", "-o", "pythonpath=.")
        return place.run("-m", "pytest", *options, test, cwd=place.own)

    run.__name__ = f"by_pytest_{mode}"
    return run


BROKEN = "BrokenProcessPool"
#: The ways, and in what a runner differs from a worker of a pool that spawns, or how such a pool fails: it finds only
#: what a file has at its top, and looks for modules in the cwd first. None: it would start pools without an end.
WAYS: dict[Callable[[Place], Any], set[str] | str | None] = {
    by_file: BROKEN,
    by_file_from_its_place: {"method"},
    without_a_guard: None,
    by_module: {"method"},
    by_command: BROKEN,
    by_stdin: BROKEN,
    by_zipapp: BROKEN,
    isolated: {"method", "path"},  # each worker runs the script, which adds to the path once more
    by_ipython: {"method", "path"},
    by_kernel: BROKEN,
    by_pytest("prepend"): {"method"},
    by_pytest("append"): {"method"},
    by_pytest("importlib"): {"method"},
}


@pytest.mark.parametrize("start", WAYS, ids=lambda way: way.__name__)
def test_a_runner_is_a_worker_of_its_program(start: Callable[[Place], Any], database: Database, tmp_path: Path) -> None:
    """What a job finds, and where its output goes, is what a worker of a pool finds that forks, or that spawns."""
    place, differs = Place(tmp_path, database.dsn), WAYS[start]
    if differs is not None:
        place.environment["SPAWN"] = "yes"
    said = start(place)
    [line] = [line for line in said.stdout.splitlines() if "FOUND" in line]
    expected, found, spawned = json.loads(line.partition("FOUND")[2])
    assert found == expected
    if isinstance(spawned, dict):  # whose workers call the script and their own children something else
        spawned = json.loads(json.dumps(spawned).replace("__mp_main__", "__main__"))
        assert {name for name in found if found[name] != spawned[name]} == differs
    else:
        assert spawned == differs
    if said.stderr is not None:
        n = 3 if isinstance(spawned, dict) else 2
        assert (said.stdout.count("to stdout"), said.stderr.count("to stderr")) == (n, n)
        assert "to stderr" not in said.stdout
