"""The reference and the code have the same options, statuses, documents and columns."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from click.testing import CliRunner

import workerbee
from tests.docs import reference
from tests.docs.pages import ROOT, table
from tests.servers import Database
from workerbee import WorkerbeeExecutor, cli
from workerbee.orders import ExitStatus

TEXT = reference.PAGE.read_text("utf-8")


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def test_every_command_option_and_method_is_there() -> None:
    """And no other; what is said of them may have been said better since."""
    assert parts(reference.written()) == parts(TEXT), "python -m tests.docs.reference writes it anew"


def parts(text: str) -> list[str]:
    """The headings, the first cells of tables and the signatures of what comes from the code."""
    return re.findall(r"(?m)^(### .*|\| `-[^|]*|\*\*`.*?`\*\*)", text.partition("\n## Commands\n")[2])


@pytest.mark.parametrize("heading", reference.TABLES)
def test_every_parameter_has_its_row(heading: str) -> None:
    """With its default, and no row is of a parameter that isn't there."""
    shown = {row[0].strip("`"): row[1] for row in table(TEXT, heading)}
    plain = reference.PLAIN - ({"fn"} if heading == "results" else set())
    assert shown == reference.parameters(reference.TABLES[heading], plain=plain)


def test_every_variable_has_its_row() -> None:
    """Of our own variables; libpq's are libpq's."""
    shown = set().union(*(names(row[0]) for row in table(TEXT, "Environment")))
    assert {name for name in shown if name.startswith("WORKERBEE")} == reference.variables()


def test_every_status_has_its_row() -> None:
    """Those of bees, and of the commands."""
    shown = {int(row[0]) for row in table(TEXT, "Exit statuses")}
    assert shown == {*ExitStatus, 1, 124, 130}


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ((), "# The documentation of Workerbee"),
        (("start",), "# Start here"),
        (("jobs", "list"), "Usage: workerbee jobs list [OPTIONS] JOBSET"),
        (("PgBouncer",), "## PgBouncer"),
        (("jobs wait in roots and no bee is there to do them; start one with: python",), "### jobs wait in …"),
        (("the key file /home/ann/key is open to others; run: chmod 600 /home/ann/key",), "### the key file …"),
    ],
)
def test_help_prints_what_is_meant(topic: tuple[str, ...], said: str) -> None:
    """A page, a command, a section by its heading, or what to do about a message."""
    done = CliRunner().invoke(cli.main, ["help", *topic], prog_name="workerbee")
    assert (done.exit_code, done.stdout.startswith(said)) == (0, True), done.output


def test_help_says_which_pages_there_are() -> None:
    """Where nothing is meant."""
    done = CliRunner().invoke(cli.main, ["help", "sprats"])
    assert done.exit_code == 2
    assert "troubleshooting" in done.stderr


def test_the_citation_is_of_this_version() -> None:
    """CITATION.cff says which version it is, and the changelog has a section for what comes next."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == workerbee.__version__
    assert re.search(r"(?m)^## (Unreleased|\[?\d)", (ROOT / "CHANGELOG.md").read_text("utf-8"))


def halved(job: dict[str, int]) -> float:
    return 1 / job["n"]


def test_documents_and_columns_are_as_shown(database: Database) -> None:
    """The keys of every JSON document, and the columns of a jobset's view."""
    with WorkerbeeExecutor(1, jobset_id="study", dsn=database.dsn) as executor:
        for future in [executor.submit(halved, {"n": n}) for n in (0, 1)]:
            future.exception()
        documents = table(TEXT, "JSON documents")
        known: dict[str, set[str]] = {}
        for name, keys in documents:
            words = name.strip("`").replace("JOBSET", "study").replace("ID", "1").replace("JSON", '{"n":0}').split()
            server = [] if words[0] in ("key", "server") else ["--dsn", database.dsn]
            said = CliRunner().invoke(cli.main, [*words, "--json", *server]).stdout
            shown = set(keys.replace("also ", "").replace("as `status`, and ", "").split(", "))
            shown |= known.get(words[0], set()) if keys.startswith(("also", "as")) else set()
            known.setdefault(words[0], shown)
            assert set(json.loads(said.splitlines()[0])) == shown, name
        columns = database.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'workerbee.study'::regclass AND attnum > 0"
        )
    assert [row[0].strip("`") for row in table(TEXT, "Columns in psql")] == [name for (name,) in columns]
