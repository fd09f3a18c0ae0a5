"""The ``__main__`` of a program, in a process that runs its functions by value.

Functions of ``__main__`` travel by value, with the globals that they name. In a runner these are the globals of a
module that stands as ``__main__``, so that a job can import it, pickle by reference to it and start processes.
A name that no function has brought is looked for in the script itself: it is run once under the name
``__mp_main__``, as multiprocessing does, but only where a guard (``if __name__ == "__main__"``) makes that safe.
"""

from __future__ import annotations

import ast
import importlib
import os
import runpy
import sys
from contextlib import suppress
from functools import cached_property
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


class Script:
    """The origin of a program's ``__main__``: a module's name, a file, or, as in a notebook, neither."""

    def __init__(self, module: str | None, path: str | None) -> None:
        self.module = module
        self.path = path

    @classmethod
    def here(cls) -> Script:
        """Give the script of this process."""
        main = sys.modules.get("__main__")
        spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        return cls(getattr(spec, "name", None), os.path.abspath(path) if isinstance(path, str) else None)  # noqa: PTH100

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Script) and (self.module, self.path) == (other.module, other.path)

    def __hash__(self) -> int:
        return hash((self.module, self.path))

    def __reduce__(self) -> tuple[Any, ...]:
        return Script, (self.module, self.path)

    @cached_property
    def names(self) -> dict[str, Any]:
        """The globals of the script when it is run under another name; none where that isn't safe."""
        if not self._is_guarded():
            return {}
        from multiprocessing import process  # noqa: PLC0415 (seldom needed)

        me: Any = process.current_process()
        before = getattr(me, "_inheriting", False)
        me._inheriting = True  # starting processes outside of the guard then raises an error
        try:
            if self.module is not None:
                found = runpy.run_module(self.module, run_name="__mp_main__")
            else:
                found = runpy.run_path(self.path or "", run_name="__mp_main__")
        finally:
            me._inheriting = before
        for value in found.values():
            if getattr(value, "__module__", None) == "__mp_main__":
                with suppress(AttributeError, TypeError):
                    value.__module__ = "__main__"  # so that its instances are pickled as those of ``__main__``
        return found

    def _is_guarded(self) -> bool:
        """Tell whether some of the file is for ``__main__`` alone, so that the rest may be run elsewhere too."""
        if self.path is None or (self.module or "").split(".")[-1] == "__main__":
            return False
        try:
            tree = ast.parse(Path(self.path).read_bytes())
        except (OSError, SyntaxError, ValueError):
            return False
        tests = [node.test for node in tree.body if isinstance(node, ast.If)]
        return any(isinstance(part, ast.Name) and part.id == "__name__" for test in tests for part in ast.walk(test))


class Main(ModuleType):
    """A module that stands as ``__main__``; its attributes are the globals of functions by value."""

    __slots__ = ("_script",)

    def __init__(self, script: Script, found: dict[str, Any]) -> None:
        super().__init__("__main__")
        self._script = script
        space = vars(self)
        space.clear()
        space["__name__"] = "__main__"
        # Where multiprocessing looks for what its children are to import.
        space["__spec__"] = None if script.module is None else ModuleSpec(script.module, None)
        if script.path is not None:
            space["__file__"] = script.path
        space.update(found)

    def __getattr__(self, name: str) -> Any:
        """Look a name up in the script, if no function came with it."""
        if not name.startswith("__"):
            try:
                value = self._script.names[name]
            except KeyError:
                pass
            except Exception as error:
                raise AttributeError(f"__main__ has no attribute {name!r} here: its script raised {error!r}") from error
            else:
                vars(self)[name] = value
                return value
        raise AttributeError(
            f"__main__ has no attribute {name!r} here: no function of this runner names it, "
            "and only a script with a guard (if __name__ == '__main__') can be looked into"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("__main__",)


_script: Script | None = None


def adopt(script: Script) -> None:
    """Have this process run the functions of that script: from now on it has a ``__main__`` of theirs."""
    global _script  # noqa: PLW0603 (a process has one)
    if script != _script:
        _script = script
        use(Main(script, {}))


def main(found: dict[str, Any]) -> Main | None:
    """Make a ``__main__`` with these globals; None in a process that has one of its own."""
    return None if _script is None else Main(_script, found)


def use(module: ModuleType) -> None:
    """From now on ``__main__`` is this module."""
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
