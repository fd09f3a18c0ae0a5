"""The house rules that no linter knows: who imports whom, where SQL stands, what a file may name."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "workerbee"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: Folders whose modules are rooms of their own.
FOLDERS = {"wire", "server", "bee", "client"}
#: The table of rooms in ARCHITECTURE.md, a set for each line; the package itself and its name come last.
ROOMS = [
    set(re.findall(r"`([\w/]+)`", row.split("|")[1]))
    for row in (ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("| room |")[2].partition("\n\n")[0].splitlines()
    if row.startswith("| `")
]
FACES = next(n for n, rooms in enumerate(ROOMS) if "executor" in rooms)
ROOMS[FACES + 1 : FACES + 1] = [{"__init__"}]
ROOMS += [{"__main__"}]
RANKS = {"_version": -1} | {room: n for n, rooms in enumerate(ROOMS) for room in rooms}
#: Queries that are steps of a verb which takes several: the method that uses each.
STEPS = {
    "add": "_insert",
    "claim": "_claim_from",
    "dropped_jobsets": "sweep",
    "ended_badly_after": "_ended_badly",
    "failed_of": "_failed_of",
    "tried_of": "_tried_of",
    "seek": "_seek",
    "forget_bees": "sweep",
    "forget_jobset": "_drop_tables",
    "get_parts": "_get_each",
    "values_stored": "put_values",
    "hold_jobset": "_drop_tables",
    "functions_stored": "put_functions",
    "late": "complete",
    "jobs": "_rows",
    "make_tables": "make",
    "add_columns": "run",
    "count_revived": "run",
    "drop_view": "make",
    "add_tables": "_finish",
    "make_view": "_finish",
    "name_taken": "make",
    "former_words": "_move_words",
    "grant_text": "run",
    "hold_outdated": "_is_held",
    "is_upgraded": "run",
    "keep_words": "_move_words",
    "outdated_jobsets": "_outdated",
    "set_causes": "_find_causes",
    "uncaused": "_find_causes",
    "note_maker": "_note_maker",
    "vacancy": "become_maker",
    "open_after": "_open",
    "be_patient": "_drop_tables",
    "put_parts": "_put_all",
    "schema_version": "_present",
    "server_facts": "_present",
    "headers": "_read",
}
#: The names under which SQL reaches the database.
SINKS = {"SQL", "execute", "executemany", "copy_expert", "mogrify", "run"}


def room_of(path: Path) -> str:
    return room_named(path.relative_to(PACKAGE).with_suffix("").parts)


def room_named(parts: Sequence[str]) -> str:
    """The room that a module is in, or a name out of it."""
    if parts[0] in FOLDERS and "/".join(parts[:2]) in RANKS:
        return "/".join(parts[:2])
    return parts[0]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of what a module imports, wherever in it and under whatever name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a module imports; what the package itself gives is ``__init__``."""
    names = (name.split(".")[1:] for name in imported(parsed(path)) if f"{name}.".startswith("workerbee."))
    rooms = (room_named(name) if name else "__init__" for name in names)
    return {room if room in RANKS else "__init__" for room in rooms} - {room_of(path)}


# Imports


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """Inner rooms don't know outer ones, and rooms side by side don't know each other."""
    room = room_of(path)
    if room in FOLDERS - RANKS.keys():
        assert not imported_rooms(path), "a folder's own file only says what the folder is for"
        return
    assert room in RANKS, f"give the new room {room!r} its line in ARCHITECTURE.md"
    wrong = {other for other in imported_rooms(path) if RANKS[other] >= RANKS[room]}
    assert not wrong, f"{room} (rank {RANKS[room]}) imports {wrong}"


def test_only_the_store_imports_the_driver() -> None:
    """One room speaks SQL."""
    drivers = {"psycopg2", "psycopg", "pg8000", "asyncpg"}
    users = {room_of(path) for path in MODULES if drivers & {n.split(".")[0] for n in imported(parsed(path))}}
    assert users == {"store"}


def test_outer_rooms_read_and_change_through_their_faces() -> None:
    """What handles, commands and pages need of the database is in these few, so that it stands once."""
    users = {room_of(path) for path in MODULES if "store" in imported_rooms(path)} - {"store"}
    assert {room.partition("/")[0] for room in users} == {
        "bee",
        "client",
        "server",
        "rows",
        "reading",
        "changing",
        "keeping",
        "following",
    }
    assert "bee/__main__" not in users


def test_nothing_imports_the_command() -> None:
    """``python -m workerbee.bee`` would load a module twice that the package imports."""
    assert [path.name for path in MODULES if "bee/__main__" in imported_rooms(path)] == []


# Names


def public_types(tree: ast.Module) -> Iterator[str]:
    """The classes of a module, and its names for types."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.value, (ast.Subscript, ast.BinOp)):
            yield from (name.id for name in node.targets if isinstance(name, ast.Name) and not name.id.isupper())


def test_no_two_types_have_one_name() -> None:
    """A name that is read means one thing, wherever it is read."""
    homes = defaultdict(set)
    for path in MODULES:
        for name in public_types(parsed(path)):
            if not name.startswith("_"):
                homes[name].add(str(path.relative_to(PACKAGE)))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_a_docstring_says_what_is_done() -> None:
    """Or what a thing is: a verb, or a noun, and not a question."""
    asks = re.compile(r"(What|Whether|How|Which|Who|Whose|Where|When)\b")
    asked = [
        f"{path.relative_to(PACKAGE)}: {node.name}: {text.splitlines()[0]}"
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and asks.match(text := ast.get_docstring(node) or "")
    ]
    assert asked == []


def test_a_query_says_what_it_does() -> None:
    """The comment above it begins with a verb, as docstrings do."""
    asks = re.compile(r"-- name: (\w+)\n-- (What|Whether|How|Which|Who|Whose|Where|When|Those|By)\b")
    found = {path.name: asks.findall(path.read_text("utf-8")) for path in (PACKAGE / "store").glob("*.sql")}
    assert {name: names for name, names in found.items() if names} == {}


# Sizes


def sizes(kind: type[ast.AST]) -> Iterator[tuple[str, int]]:
    """The lines of each class or function of the package."""
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, kind):
                assert isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
                assert node.end_lineno is not None
                yield f"{path.relative_to(PACKAGE)}: {node.name}", node.end_lineno - node.lineno + 1


def test_no_file_class_or_function_is_too_long() -> None:
    """What doesn't fit has two subjects: it is divided."""
    files = ((str(path.relative_to(PACKAGE)), len(path.read_text("utf-8").splitlines())) for path in MODULES)
    assert {name: lines for name, lines in files if lines > 400} == {}
    assert {name: lines for name, lines in sizes(ast.ClassDef) if lines > 320} == {}
    assert {name: lines for name, lines in sizes(ast.FunctionDef) if lines > 60} == {}


# SQL


def built(tree: ast.AST) -> list[int]:
    """The lines on which text that was put together goes to the database."""
    spoiled = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AugAssign)) and puts_together(node)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and called(node.func) in SINKS and node.args
        if puts_together(node.args[0]) or (isinstance(node.args[0], ast.Name) and node.args[0].id in spoiled)
    ]


def puts_together(node: ast.AST) -> bool:
    """Whether text is made in ``node`` from parts: by f"", +, %, format or join (psycopg2's own are fine)."""
    if isinstance(node, ast.AugAssign) and isinstance(node.value, (ast.Constant, ast.JoinedStr)):
        return isinstance(node.value, ast.JoinedStr) or isinstance(node.value.value, str)
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
        return any(is_text(side) for side in (node.left, node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        of_text = is_text(node.func.value) or isinstance(node.func.value, (ast.Name, ast.Subscript))
        if node.func.attr in ("format", "join") and of_text:
            return True
    return any(puts_together(child) for child in ast.iter_child_nodes(node))


def is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return is_text(node.left) or is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) == "store"], ids=lambda path: path.name)
def test_sql_is_not_built_from_strings(path: Path) -> None:
    """Values travel as parameters and identifiers through `psycopg2.sql`, so that no input is ever SQL."""
    assert built(parsed(path)) == []


def test_sql_stays_in_the_store() -> None:
    """No other room hands a query to a cursor."""
    outside = [
        f"{path.name}:{node.lineno}"
        for path in MODULES
        if room_of(path) != "store"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and called(node.func) in SINKS - {"run"}
    ]
    assert outside == []


@pytest.mark.parametrize(
    "code",
    [
        "cursor.execute(f'SELECT {x}')",
        "cursor.execute('SELECT ' + x)",
        "cursor.execute('SELECT %s' % x)",
        "cursor.execute('SELECT {}'.format(x))",
        "cursor.execute(template.format(x))",
        "connection.run(sql.SQL('SELECT ' + x))",
        "sql.SQL(', '.join(names))",
        "query = f'SELECT {x}'\ncursor.execute(query)",
        "query = 'SELECT 1'\nquery += ' FROM t'\ncursor.execute(query)",
    ],
)
def test_built_sql_is_noticed(code: str) -> None:
    """The check above sees each way of building a string."""
    assert built(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "cursor.execute('SELECT %s', (x,))",
        "cursor.execute(self._queries[name], params | more)",
        "sql.SQL('LISTEN {}').format(sql.Identifier(channel))",
        "connection.run(sql.SQL('SELECT {}').format(name), {'n': 1 + n})",
        "sql.SQL(', ').join(names)",
    ],
)
def test_composed_sql_is_fine(code: str) -> None:
    """Constants, names and `psycopg2.sql` pass."""
    assert not built(ast.parse(code))


def test_each_query_is_one_verb_of_the_store() -> None:
    """Each named query is used by exactly one method: the one of its name, or the one whose step it is."""
    text = "\n".join(path.read_text("utf-8") for path in sorted((PACKAGE / "store").glob("*.sql")))
    named = re.findall(r"^-- name: (.*)$", text, flags=re.MULTILINE)
    assert named, "there are no queries"
    assert len(named) == len(set(named)), "two queries have the same name"
    users = defaultdict(set)
    for path in (PACKAGE / "store").glob("*.py"):
        for function in ast.walk(parsed(path)):
            if isinstance(function, ast.FunctionDef):
                for name in named_queries(function) & set(named):
                    users[name].add(function.name)
    assert {name: users[name] for name in named if users[name] != {STEPS.get(name, name)}} == {}
    assert STEPS.keys() <= set(named), "STEPS names a query that isn't there"


def named_queries(function: ast.FunctionDef) -> set[object]:
    """The texts that may name a query: first arguments and keys."""
    calls = [node.args[0] for node in ast.walk(function) if isinstance(node, ast.Call) and node.args]
    keys = [node.slice for node in ast.walk(function) if isinstance(node, ast.Subscript)]
    return {node.value for node in [*calls, *keys] if isinstance(node, ast.Constant)}


# Files


def files() -> list[Path]:
    """Every file that is or would be in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        ignored = {".git", "__pycache__", ".venv", "build", "dist", ".hypothesis"}
        return [p for p in ROOT.rglob("*") if p.is_file() and not ignored & {*p.relative_to(ROOT).parts}]
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_registry() -> None:
    """The project is at home anywhere: no path of one machine, and no host that packages come from."""
    # In pieces, or this file would name them.
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))]
    needles = re.compile(
        "|".join([r"(?<![\w.~}-])/" + "work/", r"\.\./" + "shared", "/" + r"root/", *map(re.escape, hosts)])
    )
    found = []
    for path in files():
        text = path.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            if match := needles.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert found == []


def test_the_architecture_stays_readable() -> None:
    """ARCHITECTURE.md is read in one sitting."""
    path = ROOT / "ARCHITECTURE.md"
    if path.exists():
        assert len(path.read_text("utf-8").splitlines()) <= 200
