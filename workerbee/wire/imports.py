"""Imports: which objects another process gets by importing their names."""

from __future__ import annotations

import abc
import functools
import sys
import weakref
from contextlib import suppress
from functools import partial
from itertools import filterfalse
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

#: What `functools.cache` and `lru_cache` make.
CachedFunction: type[Any] = type(functools.cache(len))


class Bound:
    """A base of things that are of use only in their own process; elsewhere a `pickling.Stub` stands for them."""

    __slots__ = ()

    def _stands_for(self) -> tuple[str, str]:
        """Say what it is, and what to do elsewhere."""
        raise NotImplementedError

    def __reduce__(self) -> Any:
        raise TypeError("{} can't be pickled; {}".format(*self._stands_for()))


def stands_for(thing: Bound) -> tuple[str, str]:
    """Say what a thing is, and what to do where it isn't."""
    return thing._stands_for()  # noqa: SLF001 (public, it would be a method of every executor and future)


def name_of(fn: Any) -> str:
    """Give ``module:qualname`` of a callable; of a partial's function, and of an object's class."""
    if isinstance(fn, partial):
        return name_of(fn.func)
    named = fn if isinstance(getattr(fn, "__qualname__", None), str) else type(fn)
    return f"{getattr(named, '__module__', None) or '?'}:{named.__qualname__}"


#: Things of which each process has its own, as its jobs change it: their modules and names.
_EACH_HAS = (
    *(("sys", name) for name in ("path", "modules", "stdin", "stdout", "stderr")),
    *(("os", name) for name in ("environ", "environb")),
    ("random", "_inst"),
    ("numpy.random.mtrand", "_rand"),
)


def own_things() -> dict[int, tuple[str, str]]:
    """Give the names of those things that this process has, by their ids.

    A function finds them where it runs. What it names may hold one of them, as `random.randint` and SciPy's
    distributions do: a copy would be what `random.seed` in a job doesn't reach, and another one in each process.
    """
    return {id(thing): names for names in _EACH_HAS if (thing := named(*names)) is not None}


def found_in(thing: Any) -> tuple[str, str] | None:
    """Find a module that other processes import too, and its name for this very thing; None if there is none."""
    for module in list(sys.modules.values()):
        if not issubclass(type(module), ModuleType) or module.__name__ == "builtins":  # in which a prompt has its `_`
            continue
        for name, value in list(vars(module).items()):
            if value is thing and is_shared(module):
                return module.__name__, name
    return None


#: Where libraries are installed, as it was when this process began.
_INSTALLED = tuple(
    Path(place)
    for place in map(str, sys.path)
    if place.endswith(("-packages", "lib-dynload")) or Path(place) == Path(functools.__file__).parent
)
#: For each module that was looked for: the module, the path that was searched, and whether it was found there.
_looked: dict[str, tuple[ModuleType, list[str], bool]] = {}


def importable(thing: Any) -> bool:
    """Tell whether another process gets this very object by importing its name."""
    module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or module == "__main__":
        return False
    return named(module, qualname) is thing and not by_value(module)


def named(module: str, qualname: str) -> Any:
    """Find what this process has under the name; None if there is nothing, or the name is local to a function."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def is_shared(module: ModuleType) -> bool:
    """Tell whether another process gets a module by importing its name."""
    return sys.modules.get(module.__name__) is module and not by_value(module.__name__)


def by_value(module: str) -> bool:
    """Tell whether what a module defines is to travel by value.

    So it is if the user has asked for it, for the module or a package it is in; or if no other process finds it by
    its name, because it was loaded from its file (by ``spec_from_file_location``, by pytest's importlib mode).
    """
    if module == "__main__":
        return True
    chosen = cloudpickle.list_registry_pickle_by_value()
    if chosen and any(module == name or module.startswith(name + ".") for name in chosen):
        return True
    return not _found_again(module)


def _found_again(name: str) -> bool:
    """Tell whether the import system, asked anew, finds the file that a module came from."""
    module = sys.modules.get(name)
    if module is None or not getattr(getattr(module, "__spec__", None), "has_location", False):
        return True  # it is built in, or made by another module, which another process imports too
    known = _looked.get(name)
    if known is None or known[0] is not module or known[1] != sys.path:
        known = _looked[name] = (module, list(sys.path), _find_again(name, module))
    return known[2]


def _find_again(name: str, module: ModuleType) -> bool:
    package = name.rpartition(".")[0]
    path = None
    if package:
        path = getattr(sys.modules.get(package), "__path__", None)
        if path is None or not _found_again(package):
            return False
    try:
        specs = (finder.find_spec(name, path, None) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
    except Exception:  # noqa: BLE001 (finders may be anybody's)
        return True
    origin = getattr(module.__spec__, "origin", None)
    return _is_installed(name, origin) if spec is None else _same_file(spec.origin, origin)


def _is_installed(name: str, origin: str | None) -> bool:
    """Tell whether every process of this Python finds a module, whatever has been done to ``sys.path`` here."""
    if name.partition(".")[0] in ("workerbee", "cloudpickle"):  # runners and clients always have both
        return True
    file = Path(origin or "")
    place = file.parent if file.name == "__init__.py" else file.with_name(file.name.partition(".")[0] or "?")
    return any(root.joinpath(*name.split(".")) == place for root in _INSTALLED)


def _same_file(one: str | None, other: str | None) -> bool:
    if one == other:
        return True
    try:
        return one is not None and other is not None and Path(one).samefile(other)
    except OSError:
        return False


# What abstract classes were told of


def registered(cls: type) -> tuple[type, ...]:
    """List the classes that an abstract one was told of by ``register``, by their names, and those told of this one."""
    known = _told_of(cls) if issubclass(type(cls), abc.ABCMeta) else ()
    return *sorted(known, key=lambda one: (one.__module__, one.__qualname__)), *telling(cls)


def _told_of(cls: type) -> list[type]:
    found = (reference() for reference in abc._get_dump(cls)[0])  # type: ignore[attr-defined]  # noqa: SLF001
    return [subclass for subclass in found if subclass is not None]


def same_registered(cls: type, was: tuple[type, ...], missing: Any) -> Any:
    return was if registered(cls) == was else missing


def telling(cls: type) -> tuple[type, ...]:
    """List the abstract classes, of modules that every process imports, that were told of a class that isn't there."""
    global _tellings  # noqa: PLW0603 (a process has one record of what abstract classes were told)
    now = abc.get_cache_token()
    if _tellings[0] != now:
        _tellings = now, _find_tellings()
    reference, found = _tellings[1].get(id(cls), (None, ()))
    return found if reference is not None and reference() is cls else ()


_Telling = tuple["weakref.ref[type] | None", tuple[type, ...]]
_tellings: tuple[object, dict[int, _Telling]] = None, {}


def _find_tellings() -> dict[int, _Telling]:
    found: dict[int, _Telling] = {}
    todo: list[type] = [object]
    for cls in todo:
        if cls is type:
            continue
        under: list[type] = type.__subclasses__(cls)
        todo += [subclass for subclass in under if type.__getattribute__(subclass, "__bases__")[0] is cls]
        if issubclass(type(cls), abc.ABCMeta):
            with suppress(Exception):  # its metaclass may be anybody's
                for subclass in filterfalse(importable, _told_of(cls) if importable(cls) else ()):
                    _, before = found.get(id(subclass), (None, ()))
                    found[id(subclass)] = weakref.ref(subclass), (*before, cls)
    return found
