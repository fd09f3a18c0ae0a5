"""What the pages say is so: their snippets run and print what is shown, their links lead somewhere."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from psycopg2.extensions import make_dsn

from tests.docs.pages import PAGES, ROOT, Block, anchor, blocks, differences, headings, links, prose
from tests.servers import Database, Server
from workerbee import JobSet, cli
from workerbee.server import embedded
from workerbee.store import Connection, schema

SESSION = Path(__file__).with_name("session.py")
#: What is run. Everything else is only read: batch scripts by bash, YAML by its parser, and text is text.
RUN = {"python", "sh", "console"}
READ = {"bash", "yaml", "ini", "text", "sql"}


@pytest.fixture(scope="module")
def home(run_directory: Path, server: Server) -> Iterator[Path]:
    """The home of a reader, whose embedded server runs all the time, and who has a database elsewhere, too."""
    home = run_directory / "reader"
    home.mkdir()
    home.chmod(0o711)
    server.execute("CREATE DATABASE science")
    held = embedded.start(home / "workerbee")
    for dsn in (held.dsn, server.dsn_of("science")):  # each page stands for itself, and on both somebody was before
        with closing(Connection(dsn)) as connection:
            schema.ensure(connection)
    yield home
    held.close()
    server.execute("DROP DATABASE science WITH (FORCE)")


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_what_a_page_shows_happens(page: Path, home: Path, server: Server) -> None:
    """Every snippet and command runs, in the page's order, warns of nothing unsaid, and prints what is shown."""
    shown = blocks(page.read_text("utf-8"))
    assert {block.language for block in shown} <= RUN | READ, "a block of a language that nobody checks"
    work = home / title(page).replace("/", "_")
    work.mkdir()
    run = written(shown, work)
    if not run:
        return
    (work / "blocks.json").write_text(json.dumps([block._asdict() for block in run]), "utf-8")
    environment = {
        **os.environ,
        "HOME": str(home),
        "WORKERBEE_HOME": str(home / "workerbee"),
        "WORKERBEE_KEY_FILE": str(home / "key"),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DOCS_PORT": str(server.port),
        "COLUMNS": "100",
    }
    command = [sys.executable, str(SESSION), "blocks.json", "report.json"]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=250, check=False)
    report = json.loads((work / "report.json").read_text("utf-8"))
    troubles = [f"{title(page)}:{b.line}: {t}" for b, r in zip(run, report, strict=False) if (t := trouble(b, r))]
    assert not troubles, "\n\n".join(troubles)
    assert (done.returncode, len(report)) == (0, len(run)), done.stderr


def written(shown: list[Block], work: Path) -> list[Block]:
    """The blocks that are to be run; scripts with a name are files, which commands run."""
    commands = "\n".join(block.code for block in shown if block.language in ("sh", "console"))
    run = []
    for block in shown:
        if block.file is None:
            run += [block] * (block.language in RUN)
        else:
            assert Path(block.file).stem in commands, f"nobody runs {block.file}"
            (work / block.file).write_text(block.code, "utf-8")
    return run


def trouble(block: Block, said: dict[str, Any]) -> str | None:
    """What is wrong with what a block printed."""
    for command in said.get("commands", ()):
        if wrong := differences(command["expected"], command["out"]):
            return f"$ {command['command']}\n{wrong}"
    if said["failed"]:
        return said["out"] + said["err"]
    if block.expected is not None:
        return differences(block.expected, said["out"] + said["err"])
    if block.language == "python" and said["err"]:
        return f"it warns of what the page doesn't say:\n{said['err']}"
    printed = re.findall(r"(?m)^\s*print\(.*\)\s+# (.+)$", block.code) if block.language == "python" else []
    left = iter(said["out"].splitlines())
    missing = [line for line in printed if not any(differences(line, other) is None for other in left)]
    return f"it doesn't print {missing[0]!r}, but:\n{said['out']}" if missing else None


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_what_is_only_read_can_be_read(page: Path) -> None:
    """Batch scripts are bash, manifests are YAML, and settings have a name and a value in each line."""
    for block in blocks(page.read_text("utf-8")):
        if block.language == "bash":
            done = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True, check=False)
            assert not done.stderr, f"{title(page)}:{block.line}: {done.stderr}"
        elif block.language == "yaml":
            assert list(yaml.safe_load_all(block.code))
        elif block.language == "ini":
            lines = [line for line in block.code.splitlines() if line]
            assert all(re.fullmatch(r"\[\w+\]|\w+ *= *\S.*|queue \d+", line) for line in lines), lines


def test_colleagues_share_by_the_rights_that_the_page_names(server: Server) -> None:
    """Ann makes a jobset and Bob goes on with it; Eve looks, and may change nothing."""
    server.execute("CREATE DATABASE shared")
    database = Database(server, "shared")
    made = [
        block.code for block in blocks((ROOT / "docs" / "sharing.md").read_text("utf-8")) if block.language == "sql"
    ]
    colleagues, observers = (code.replace("science", "shared") for code in made)
    try:
        database.execute(colleagues)
        ann, eve = (make_dsn(database.dsn, user=name) for name in ("ann", "eve"))
        place = {"host": "127.0.0.1", "port": server.port, "dbname": "shared"}
        JobSet("words", user="ann", **place).setup_jobset()
        database.execute(observers)
        jobset = JobSet("words", user="bob", **place)
        jobset.add_jobs([{"word": "honey"}])
        jobset.run(len)
        JobSet("later", user="bob", **place).setup_jobset()
        said = CliRunner().invoke(cli.main, ["status", "words", "--dsn", eve])
        assert "Done: 1 completed." in said.stdout, said.output
        assert CliRunner().invoke(cli.main, ["status", "later", "--dsn", eve]).exit_code == 0
        assert CliRunner().invoke(cli.main, ["drop", "words", "--yes", "--dsn", eve]).exit_code == 2
        done = CliRunner().invoke(cli.main, ["drop", "words", "later", "--yes", "--dsn", ann])
        assert done.exit_code == 0, done.output
    finally:
        database.drop()
        server.execute("DROP ROLE IF EXISTS ann, bob, eve, hive")


def test_links_lead_somewhere() -> None:
    """To files and headings that are there; of the web only to addresses by https."""
    anchors = {page: {anchor(heading) for heading in headings(page.read_text("utf-8"))} for page in PAGES}
    for page in PAGES:
        for target in links(page.read_text("utf-8")):
            if "://" in target:
                assert target.startswith("https://"), f"{title(page)}: {target}"
                continue
            path, _, part = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{title(page)}: there is no {target}"
            assert not part or part in anchors.get(file, {part}), f"{title(page)}: there is no heading for {target}"


def test_every_page_is_in_the_index() -> None:
    """Whoever looks for it finds it from docs/README.md, and README leads there."""
    index = ROOT / "docs" / "README.md"
    linked = {link.partition("#")[0] for link in links(index.read_text("utf-8"))}
    assert linked >= {page.name for page in PAGES if page.parent == index.parent and page != index}
    assert "docs/README.md" in links(PAGES[0].read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_a_page_can_be_read_at_one_sitting(page: Path) -> None:
    """README has 200 lines at the most and a page 250, but for the reference; no line is too long to read in a file."""
    lines = page.read_text("utf-8").splitlines()
    most = {"README.md": 200, "docs/reference.md": 2000}.get(title(page), 250)
    assert len(lines) <= most
    assert lines[0].startswith("# ")
    assert lines[1] == "" != lines[2], "after the title, what the reader comes for"
    long = [line for line in prose(page.read_text("utf-8")).splitlines() if len(line) > 130 and line[0] not in "|!"]
    assert not long or page.name in ("benchmarks.md", "reference.md"), long  # which are written by programs


def test_troubles_are_headed_by_what_the_code_says() -> None:
    """Each heading of the pages on troubles is made of what the code says, word by word; … stands for what differs."""
    messages = "\n".join(" ".join(text.split()) for file in (ROOT / "workerbee").rglob("*.py") for text in texts(file))
    wanted = troubles()
    assert len(wanted) > 50
    pieces = {piece.strip() for heading in wanted for piece in heading.split("…") if len(piece.strip()) > 2}
    unknown = [piece for piece in pieces if piece not in messages]
    assert not unknown, f"nothing in the code says: {unknown}"


def troubles() -> list[str]:
    pages = [(ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("troubleshooting", "messages")]
    return [heading for page in pages for heading in re.findall(r"(?m)^### (.+)$", page)]


def test_each_error_of_the_code_is_among_the_troubles() -> None:
    """By words of what it says, if its class composes that of facts."""
    headings = " ".join(troubles())
    for node in ast.parse((ROOT / "workerbee" / "errors.py").read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name != "RemoteError":
            said = [words for part in node.body if isinstance(part, ast.FunctionDef) for words in said_by(part)]
            assert not said or any(words in headings for words in said), node.name


def said_by(function: ast.FunctionDef) -> Iterator[str]:
    """The first words of each longer text in a function's body."""
    for statement in function.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(" ") > 2:
                yield " ".join(node.value.split()[:3])


def texts(file: Path) -> Iterator[str]:
    """The texts in a module, with … for what is put into them."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%(\.\d)?[sdf]", "…", node.value)
