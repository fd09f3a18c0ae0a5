"""The page without a browser: each view is HTML and JSON, looks are shared, changes say before and after."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.resources import files
from typing import Any
from uuid import uuid4

import httpx
import pytest
from psycopg2.extensions import parse_dsn
from starlette.requests import Request
from starlette.responses import Response

from tests.bees import PROJECT
from tests.dashboard.stage import Page, local, make_study, page
from tests.faultproxy import FaultProxy
from tests.servers import Database
from tests.store.hive import Hive, Puppet
from tests.waiting import eventually
from workerbee import JobSet
from workerbee.dashboard import ticks
from workerbee.dashboard.sampler import NothingSeenError, Sampler
from workerbee.store import Connection, ShowRequest
from workerbee.store.reader import Reader
from workerbee.wire.job import EndKind, Outcome
from workerbee.wire.printed import Printed

VIEWS = ("", "jobset/study", "jobset/study/jobs", "jobset/study/jobs?status=failed", "jobset/study/job/41", "bees")
VIEWS += ("jobset/study/job/49", 'jobset/study/jobs?input={"x":1}', "launches", "launch?name=slurm+4711")


@pytest.fixture(scope="module")
def study(shared: Database) -> Iterator[tuple[Hive, Puppet]]:
    connection = Connection(shared.dsn)
    hive, bee = make_study(connection)
    launch(hive, bee, "slurm 4711", 3)
    yield hive, bee
    connection.close()


@pytest.fixture(scope="module")
def running(shared: Database, study: tuple[Hive, Puppet]) -> Iterator[Page]:
    with page(shared.dsn) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(running: Page) -> Iterator[httpx.Client]:
    with running.client() as opened:
        yield opened


def launch(hive: Hive, bee: Puppet, name: str, place: int) -> None:
    """Have a bee come by a launch, with an hour left."""
    query = (
        "UPDATE {bee} SET launch = %(l)s, place = %(p)s, ends_at = now() + interval '1 hour' WHERE incarnation = %(b)s"
    )
    hive.run(query, l=name, p=place, b=str(bee.incarnation))


def text_of(answer: httpx.Response) -> str:
    """What a reader sees of a page, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


@pytest.mark.parametrize("path", VIEWS)
def test_each_view_is_html_and_json(client: httpx.Client, path: str) -> None:
    """The same facts, for people and for programs; nothing in it that a strict policy forbids."""
    answer = client.get(f"/{path}")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"<script(?! src)|<style|\sstyle=|\son\w+=|javascript:", answer.text)
    assert not re.search(r'(href|src|action)="/', answer.text), "an address that isn't relative"
    path, _, query = path.partition("?")
    twin = client.get(f"/{path or 'index'}.json?{query}")
    assert twin.status_code == 200
    assert twin.json()["schema"].startswith("workerbee.page.")


def test_a_jobset_says_how_it_goes(client: httpx.Client) -> None:
    """A sentence, counts, causes, what runs, and bees; numbers in JSON are those of the page."""
    text, facts = text_of(client.get("/jobset/study")), client.get("/jobset/study.json").json()
    assert facts["jobs"] == {"waiting": 9, "running": 3, "completed": 40, "failed": 8, "cancelled": 0}
    assert "80 %" in text
    assert "On course: done" in text
    assert [(cause["jobs"], cause["type"]) for cause in facts["failures"]] == [
        (6, "ValueError"),
        (2, "FileNotFoundError"),
    ]
    assert "ValueError unlucky #" in text
    assert len(facts["longest"]) == 3
    assert facts["bee_rows"][0]["state"] == "working"


def test_a_failure_is_read_in_two_clicks(client: httpx.Client) -> None:
    """From the jobsets to the jobset, and to the traceback."""
    home = client.get("/")
    [jobset] = re.findall(r'<h2><a href="([^"]*study)">', home.text)
    page = client.get(home.url.join(jobset))
    job = re.findall(r'class="cause" href="([^"]*)"', page.text)[0]
    assert "raise ValueError(message)" in text_of(client.get(page.url.join(job)))


def test_of_a_result_in_a_file_it_is_said_who_looks_at_it(client: httpx.Client, shared: Database) -> None:
    """The page can't see whether the file is lost."""
    with closing(Connection(shared.dsn)) as connection:
        hive = Hive(connection, "large")
        [job, bee] = [*hive.add(), hive.bee()]
        end = Outcome(job, 1, EndKind.COMPLETED, "blob", b'{"folder": "file:///shared"}', None, 0.1)
        bee.complete([end], [bee.take()], hint=None)
        text = text_of(client.get(f"/jobset/large/job/{job}"))
        hive.catalogue.drop_jobset(hive.jobset)
    assert "file:///shared" in text
    assert f"workerbee jobs show large {job} says whether it is lost" in text


def test_jobs_come_in_pages_and_by_what_is_wanted(client: httpx.Client) -> None:
    """Fifty at a time; a filter goes with the link to the next page."""
    first = client.get("/jobset/study/jobs")
    [more] = re.findall(r'href="(\?after=\d+)" rel="next"', first.text)
    second = client.get(f"/jobset/study/jobs{more}")
    assert len(re.findall(r'<tr id="job-', first.text)) == 50
    assert len(re.findall(r'<tr id="job-', second.text)) == 10
    failed = client.get("/jobset/study/jobs.json?status=failed").json()["jobs"]
    assert [job["status"] for job in failed] == ["failed"] * 8
    [group] = {cause["group"] for cause in client.get("/jobset/study.json").json()["failures"] if cause["jobs"] == 2}
    assert len(client.get(f"/jobset/study/jobs.json?group={group}&status=failed").json()["jobs"]) == 2
    assert client.get("/jobset/study/jobs?find=7").headers["location"] == "job/7"


def test_jobs_are_found_by_their_input(client: httpx.Client, shared: Database) -> None:
    """The very call at once; a part of it by looking, and what was looked at is said."""
    where = parse_dsn(shared.dsn)
    name = f"own_{uuid4().hex[:8]}"
    jobset = JobSet(name, where["host"], where["port"], where["user"], None, where["dbname"])
    jobset.setup_jobset()
    jobset.add_jobs([{"star": n, "band": "HK"[n % 2]} for n in range(60)])

    def find(text: str, **more: int) -> tuple[dict[str, Any], str]:
        asked = {"input": text} | more
        facts = client.get(f"/jobset/{name}/jobs.json", params=asked).json()
        return facts, text_of(client.get(f"/jobset/{name}/jobs", params=asked))

    try:
        facts, text = find('{"star": 17, "band": "K"}')
        assert [json.loads(job["input"]) for job in facts["jobs"]] == [{"band": "K", "star": 17}]
        assert facts["found"]["is_same"]
        assert "1 job with the very input." in text
        facts, text = find('{"star": 17}')
        assert len(facts["jobs"]) == 1
        assert "all 60 of them" in text
        facts, text = find('{"band": "H"}')
        assert len(facts["jobs"]) == 30
        assert "Retry these" not in text
        facts, text = find('{"band": "H"}', before=facts["jobs"][9]["id"])
        assert len(facts["jobs"]) == 20
        assert "the next" in text
        assert "No job is like that" in find('{"band": "<J>"}')[1]
    finally:
        jobset.drop()
        jobset.close()


@pytest.mark.parametrize("text", ["{'star': 17}", "NaN", "[" * 1300, '{"a":', "\0"])
def test_an_input_is_json(client: httpx.Client, text: str) -> None:
    """Else it is said how to write one."""
    answer = client.get("/jobset/study/jobs", params={"input": text})
    assert answer.status_code == 400
    assert "an input is JSON" in text_of(answer)


# Launches


def test_launches_are_told_by_their_bees(client: httpx.Client, study: tuple[Hive, Puppet]) -> None:
    """How many were seen, live and are gone, what has ended there, and when their time is over."""
    hive, _ = study
    name, other, away = f"pbs <{uuid4().hex[:6]}>/[1] & more", hive.bee("node-18"), hive.bee("node-19")
    launch(hive, other, name, 2)
    launch(hive, away, name, 1)
    hive.catalogue.leave(away.incarnation, "its time was over")
    facts = eventually(lambda: _launched(client, name))
    assert (facts["n_bees"], facts["n_alive"], facts["n_gone"], facts["system"]) == (2, 1, 1, "pbs")
    text = text_of(client.get("/launches"))
    assert name.removeprefix("pbs ") in text
    launches = {one["launch"]: one for one in client.get("/launches.json").json()["launches"]}
    assert launches["slurm 4711"]["n_ended"] == 48
    [link] = [
        link for link in re.findall(r'href="([^"]*launch\?name=[^"]*)"', client.get("/launches").text) if "pbs" in link
    ]
    text = text_of(client.get(f"/{html.unescape(link).removeprefix('./')}"))
    assert "1 of 2 bees alive, until" in text
    assert "its time was over" in text
    assert "node-18" in text
    assert "node-17" not in text
    assert client.get("/launch?name=nobody").status_code == 404
    assert client.get("/launch?name=%00").status_code == 404
    assert 'launches" data-key="l"' in client.get("/").text


def _launched(client: httpx.Client, name: str) -> dict[str, Any] | None:
    found = [one for one in client.get("/launches.json").json()["launches"] if one["launch"] == name]
    return found[0] if found and found[0]["n_gone"] else None


# What runs


def test_what_a_job_prints_is_asked_for_while_it_is_looked_at(client: httpx.Client, study: tuple[Hive, Puppet]) -> None:
    """A bee shows it when it sees that somebody asks, and what another one showed before isn't it."""
    hive, bee = study
    job = 49
    text = text_of(client.get(f"/jobset/study/job/{job}"))
    assert "Its bee has been asked" in text
    [(until,)] = hive.run("SELECT asked_until > now() FROM {tail} WHERE jobset = {number} AND job = %(job)s", job=job)
    assert until
    bee.show(ShowRequest(job, is_stack=False), 1, Printed(0, b"", b"step 1 <b>\n", 0, 11))
    eventually(lambda: "step 1 <b>" in text_of(client.get(f"/jobset/study/job/{job}")))
    assert client.get(f"/jobset/study/job/{job}.json").json()["printing"]["stderr"] == "step 1 <b>\n"
    hive.run("UPDATE {tail} SET bee = gen_random_uuid() WHERE job = %(job)s", job=job)
    eventually(lambda: client.get(f"/jobset/study/job/{job}.json").json()["printing"] is None)


@pytest.mark.parametrize(
    "path",
    [
        "jobset/nobody",
        "jobset/study/job/0",
        "jobset/study/job/99999999999999999999",
        "jobset/study/jobs?status=lost",
        "jobset/study/jobs?after=-1",
        "jobset/study/jobs?after=99999999999999999999",
        "jobset/study/jobs?find=x",
        "jobset/study/jobs?group=zz",
        "jobset/study/jobs?host=%00",
        "jobset/study/jobs?host=%ff",
        "jobset/study?span=year",
        "jobset/%00",
        "jobset/..%2f..%2fetc",
        "change/study?do=burn",
        "change/study",
        "nothing",
        "static/../app.py",
        "static/page.py",
        "jobset/study/jobs?" + "&".join(f"a{n}=1" for n in range(50)),
    ],
)
def test_what_cant_be_is_said(client: httpx.Client, path: str) -> None:
    """A mistake is a sentence on a page of ours, never a stack of frames."""
    answer = client.get(f"/{path}")
    if answer.status_code != 200:  # a host of odd letters has no jobs
        assert answer.status_code in (400, 404)
    assert "Traceback" not in answer.text


def test_a_part_is_sent_only_when_it_is_new(client: httpx.Client) -> None:
    """A tick asks with the tag that it has, and is small."""
    ask = {"X-Fragment": "1"}
    first = eventually(lambda: _settled(client, "/jobset/study", ask), what="two same looks")
    assert first.text.lstrip().startswith("<main")
    assert len(first.content) < 100_000
    assert int(first.headers["content-length"]) <= 8192  # packed
    again = client.get("/jobset/study", headers=ask | {"If-None-Match": first.headers["etag"]})
    assert again.status_code in (200, 304)


def _settled(client: httpx.Client, path: str, headers: dict[str, str]) -> httpx.Response | None:
    """The view, if a second look found it unchanged."""
    first = client.get(path, headers=headers)
    again = client.get(path, headers=headers | {"If-None-Match": first.headers["etag"]})
    return first if again.status_code == 304 and not again.content else None


def test_the_first_sight_of_a_view_is_small(client: httpx.Client) -> None:
    """With all that it is drawn with: a slow line shows it at once."""
    page = client.get("/jobset/study")
    static = [client.get(f"/{path}") for path in re.findall(r'(?:href|src)="[./]*(static/[^"]*)"', page.text)]
    assert len(static) == 4
    assert sum(int(answer.headers["content-length"]) for answer in [page, *static]) <= 60_000


def test_what_others_wrote_comes_with_its_licence() -> None:
    """Beside it, also in the wheel."""
    static = files("workerbee.dashboard") / "static"
    vendored = [one.name for one in static.iterdir() if one.name.endswith(".min.js")]
    assert vendored == ["idiomorph.min.js"]
    assert static.joinpath("idiomorph.LICENSE").read_text("utf-8").startswith("Zero-Clause BSD")
    assert '"dashboard/static/*"' in PROJECT.joinpath("pyproject.toml").read_text("utf-8")


def test_twenty_tabs_cost_what_one_costs(client: httpx.Client, study: tuple[Hive, Puppet]) -> None:
    """One sampler reads for all of them."""
    hive, _ = study

    def statements() -> int:
        query = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        return int(hive.connection.run(query)[0][0])

    with ThreadPoolExecutor(20) as tabs:
        before = statements()
        answers = list(tabs.map(lambda _: client.get("/jobset/study").status_code, range(60)))
        after = statements()
    assert answers == [200] * 60
    assert after - before < 300, "60 looks, each of some ten queries, were not shared"


def test_what_many_look_at_is_read_once(shared: Database) -> None:
    """As long as it counts as new, whoever asks meanwhile."""
    sampler, clocks = Sampler(shared.dsn), []
    with closing(sampler), ThreadPoolExecutor(20) as tabs:
        list(tabs.map(lambda _: sampler.part("clock", lambda r: clocks.append(r.clock()), fresh=60.0), range(60)))
    assert len(clocks) == 1


def test_tabs_of_one_view_get_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment; who has it already gets its tag alone, and another view or theme is another answer."""
    monkeypatch.setattr(ticks, "FRESH", 60.0)
    answers, made = ticks.Ticks(), []

    def view(_: Request) -> Response:
        made.append(f"{len(made)}")
        return Response(made[-1], headers={"ETag": f'"{made[-1]}"', "Vary": "Cookie"})

    def ask(key: str, tag: str = "") -> Response:
        headers = [(b"if-none-match", tag.encode())]
        return answers.answer(Request({"type": "http", "headers": headers}), key, view)

    assert [ask("a").body for _ in range(20)] == [b"0"] * 20
    assert (ask("a", '"0"').status_code, ask("a", '"0"').body) == (304, b"")
    assert ask("b").body == b"1"
    monkeypatch.setattr(ticks, "FRESH", -1.0)
    assert [ask("c").body, ask("c").body] == [b"2", b"3"]


def test_the_counters_are_for_prometheus(client: httpx.Client) -> None:
    """Text, a line a series, and a name and a type for each."""
    lines = client.get("/metrics").text.splitlines()
    assert 'workerbee_runs_completed_total{jobset="study"} 40' in lines
    assert "workerbee_database_up 1" in lines
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == {
        re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")
    }


def test_a_theme_is_remembered(client: httpx.Client) -> None:
    """By a cookie, without a script; and the way back leads nowhere else."""
    answer = client.post("/theme", data={"theme": "dark", "back": "./jobset/study?span=day"})
    assert answer.headers["location"] == "./jobset/study?span=day"
    assert 'data-theme="dark"' in client.get("/").text
    assert client.post("/theme", data={"theme": "system", "back": "//elsewhere.org"}).headers["location"] == "./"


# Changes


@pytest.fixture
def fresh(shared: Database) -> Iterator[Hive]:
    """A study of the test's own."""
    connection = Connection(shared.dsn)
    hive, _ = make_study(connection, f"own_{uuid4().hex[:8]}")
    yield hive
    hive.catalogue.drop_jobset(hive.jobset)
    connection.close()


def do(client: httpx.Client, hive: Hive, **fields: str) -> tuple[str, str]:
    """Ask, and then do it: what is said before, and after."""
    before = client.get(f"/change/{hive.jobset.id}", params=fields)
    answer = client.post(f"/change/{hive.jobset.id}", data=fields)
    assert answer.status_code == 303, answer.text
    return text_of(before), text_of(client.get(answer.url.join(answer.headers["location"])))


def test_a_group_is_retried(client: httpx.Client, fresh: Hive) -> None:
    """How many before, how many after, and only those of the group."""
    facts = client.get(f"/jobset/{fresh.jobset.id}.json").json()
    [group] = [cause["group"] for cause in facts["failures"] if cause["jobs"] == 2]
    before, after = do(client, fresh, do="retry", group=group)
    assert f"2 of {fresh.jobset.id}'s jobs that ended badly will be run once more" in before
    assert "2 jobs wait to be run once more." in after
    assert sum(fresh.status(job) == "failed" for job in range(41, 49)) == 6


def test_all_that_is_open_is_cancelled(client: httpx.Client, fresh: Hive) -> None:
    """What runs and what waits."""
    before, after = do(client, fresh, do="cancel")
    assert "12 open jobs" in before
    assert "12 jobs were cancelled." in after


def test_one_job_is_retried_and_cancelled(client: httpx.Client, fresh: Hive) -> None:
    """And the page of this job says so."""
    assert "1 job waits to be run once more." in do(client, fresh, do="retry", job="41")[1]
    assert "1 job was cancelled." in do(client, fresh, do="cancel", job="41")[1]
    assert fresh.status(41) == "cancelled"


def test_a_jobset_is_paused_and_goes_on(client: httpx.Client, fresh: Hive) -> None:
    """With the reason for others to read."""
    assert "It is paused." in do(client, fresh, do="pause", why="maintenance <b>")[1]
    text = eventually(lambda: (t := text_of(client.get(f"/jobset/{fresh.jobset.id}"))) and "Paused by" in t and t)
    assert "(maintenance <b>)" in text
    assert "It goes on." in do(client, fresh, do="resume")[1]


def test_a_jobset_is_deleted_by_who_types_its_name(client: httpx.Client, fresh: Hive) -> None:
    """Else it stays."""
    name = str(fresh.jobset.id)
    assert client.post(f"/change/{name}", data={"do": "drop", "typed": "other"}).status_code == 400
    assert fresh.catalogue.find_jobset(name) is not None
    before, after = do(client, fresh, do="drop", typed=name)
    assert "There is no way back" in before
    assert "It is deleted." in after
    assert fresh.catalogue.find_jobset(name) is None


def test_a_page_that_only_reads_changes_nothing(shared: Database, study: tuple[Hive, Puppet]) -> None:
    """There is no button, and no address behind one; an observer's right to SELECT is enough."""
    hive, _ = study
    hive.connection.run("CREATE ROLE watcher LOGIN")
    hive.connection.run("GRANT USAGE ON SCHEMA workerbee TO watcher")
    hive.connection.run("GRANT SELECT ON ALL TABLES IN SCHEMA workerbee TO watcher")
    try:
        with local(shared.dsn.replace("user=postgres", "user=watcher"), read_only=True) as client:
            for path in VIEWS:
                answer = client.get(f"/{path}")
                assert answer.status_code == 200
                assert "/change/" not in answer.text
            assert "This page only reads, so it can't ask" in text_of(client.get("/jobset/study/job/50"))
            assert client.get("/change/study?do=drop").status_code == 404
            assert client.post("/change/study", data={"do": "cancel"}).status_code == 404
        with local(shared.dsn.replace("user=postgres", "user=watcher")) as client:
            assert "user of the database may only read, so" in text_of(client.get("/jobset/study/job/51"))
            done = client.post("/change/study", data={"do": "cancel"})
            assert "this user of the database may only read" in text_of(
                client.get(f"/change/{done.headers['location']}")
            )
    finally:
        hive.connection.run("DROP OWNED BY watcher")
        hive.connection.run("DROP ROLE watcher")
    assert hive.status(60) == "waiting"
    assert hive.run("SELECT job FROM {tail} WHERE jobset = {number} AND job IN (50, 51)") == []


# Outages


def test_an_outage_leaves_the_last_numbers(shared: Database, study: tuple[Hive, Puppet]) -> None:
    """A banner says since when, for programs it is a status, and it goes on by itself."""
    with FaultProxy("127.0.0.1", shared.server.port) as line, local(line.dsn(shared.dsn)) as client:
        assert "80 %" in text_of(client.get("/jobset/study"))
        assert client.get("/alive").status_code == 204
        line.refuse()
        line.cut()
        assert "80 %" in eventually(lambda: _away(client), 10)
        assert client.get("/jobset/study.json").status_code == 503
        assert client.get("/alive").status_code == 503
        assert client.get("/bees").status_code == 503  # never seen before
        assert "workerbee_database_up 0" in client.get("/metrics").text
        line.accept()
        eventually(lambda: client.get("/alive").status_code == 204, 20)
        assert _away(client) is None


def _away(client: httpx.Client) -> str | None:
    text = text_of(client.get("/jobset/study"))
    return text if "The database is away." in text else None


def test_what_takes_the_server_too_long_stays_as_it_was(shared: Database, study: tuple[Hive, Puppet]) -> None:
    """At first it is tried some times; what is known then rests, and the page says that it is older."""
    sampler = Sampler(shared.dsn)
    seconds = iter([1, 1, 0, 1])

    def read(reader: Reader) -> int:
        reader.connection.run("SELECT pg_sleep(%(s)s)", {"s": next(seconds)})
        return 7

    try:
        first = sampler.part("slow", read, fresh=0.0, pause=0.0)
        assert (first.value, first.is_cut, sampler.away_since) == (7, False, None)
        eventually(lambda: sampler.part("slow", read, fresh=0.0).is_cut)
        assert sampler.part("slow", read).value == 7
        with pytest.raises(NothingSeenError):
            sampler.part("never", lambda reader: reader.connection.run("SELECT pg_sleep(1)"))
        assert sampler.away_since is None, "a slow answer is no outage"
    finally:
        sampler.close()
