"""The page in a real browser, over a real server with real bees: what a person sees, clicks and is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.bees import Bee
from tests.dashboard import browser as browsers
from tests.dashboard.proxy import proxied
from tests.dashboard.stage import Page, fail_one, page
from tests.servers import Server
from tests.servers import server as new_server
from tests.store.hive import Hive
from tests.waiting import eventually
from workerbee import JobSet
from workerbee.store import Connection, schema

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

pytestmark = pytest.mark.skipif(not browsers.is_there(), reason="there is no Chromium here, or no Playwright")

AXE = Path(__file__).with_name("vendor") / "axe.min.js"
PATIENCE = 30_000
PREFIX = "/a/b/proxy/8787/"
FUNCTION = ("--function", "tests.dashboard.jobs:measure", "--busywait")
#: What text must not be able to do.
HOSTILE = [
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "\"'><svg onload=window.pwned=1>",
    "</pre></bdi></main><script>window.pwned=1</script>",
    "{{ 7*7 }}{% raw %}",
    "javascript:window.pwned=1",
    "' autofocus onfocus='window.pwned=1",
    "\u202egnp.exe\u202c",
    "\u2066\u2067\u2068 isolates",
    "a" * 300,
    "\u0e49" * 60,
    "W\u0336\u0337" * 40,
    "<!--", "]]>", "<plaintext>", "<base href=//evil.org>", "<style>*{display:none}</style>", "<template>", "<form>",
    "\x1b[31mred\x1b[0m", "\r\n\r\nSet-Cookie: a=b", "\u2028\u2029\u0085", "line\nbreak\ttab", "&lt;&amp;&#x3c;",
    "data:text/html,<script>window.pwned=1</script>", "../../../etc/passwd", "%3Cscript%3E", "\ufeff\u200b\u200d",
    "🐝" * 30, "١٢٣٤ שלום", "\u0001\u0007\u007f", "x" * 40 + " " + "<b>" * 40, "<main id=main>",
    "<a href=# data-key=h>",
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this file's own, which is stopped and started."""
    with new_server() as running:
        with_schema(running)
        yield running


def with_schema(server: Server) -> None:
    connection = Connection(server.dsn)
    schema.ensure(connection)
    connection.close()


@pytest.fixture(scope="module")
def running(server: Server) -> Iterator[Page]:
    with page(server.dsn) as opened:
        yield opened


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browsers.chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def let_in(chromium: Browser, running: Page) -> Any:
    """The cookies of a browser that was let in."""
    return browsers.let_in(chromium, running)


@pytest.fixture
def open_tab(chromium: Browser, running: Page, let_in: Any) -> Iterator[Callable[..., Tab]]:
    """Opens tabs that are let in; at the end nothing was refused or went wrong in any of them."""
    wrong: list[str] = []
    made = []

    def new(base: str = running.url, **options: Any) -> Tab:
        options |= {"base_url": base, "viewport": {"width": 1280, "height": 800}}
        context = chromium.new_context(**options, storage_state=let_in)
        made.append(context)
        context.set_default_timeout(PATIENCE)
        tab = context.new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        tab.on("console", lambda told: wrong.append(told.text) if "Security" in told.text else None)
        tab.goto(base)
        return tab

    yield new
    for context in made:
        context.close()
    assert wrong == []


def shows(tab: Tab, text: str, timeout: float = PATIENCE) -> None:
    """Wait until a reader sees this text, without loading the page again."""
    tab.wait_for_function("t => document.body?.innerText.includes(t)", arg=text, timeout=timeout)


@contextmanager
def study(server: Server, name: str, inputs: list[dict[str, Any]]) -> Iterator[JobSet]:
    """A jobset with these inputs."""
    jobset = JobSet(name, "127.0.0.1", server.port, "postgres", None, "test")
    jobset.setup_jobset()
    try:
        jobset.add_jobs(inputs)
        yield jobset
    finally:
        jobset.drop()
        jobset.close()


@pytest.fixture(scope="module")
def bees(server: Server, hostile: Hive) -> Iterator[list[Bee]]:
    """Two bees that serve all jobsets, and find nothing to do in the hostile one."""
    with Bee(server.dsn, *FUNCTION) as one, Bee(server.dsn, *FUNCTION) as other:
        yield [one, other]


@contextmanager
def paused(server: Server, name: str, inputs: list[dict[str, Any]]) -> Iterator[None]:
    """A jobset of which nothing is begun."""
    with study(server, name, []) as jobset:
        jobset.pause()
        jobset.add_jobs(inputs)
        yield


def test_a_study_from_the_first_job_to_the_last(
    server: Server, bees: list[Bee], open_tab: Callable[..., Tab], tmp_path: Path
) -> None:
    """It moves by itself; a failure is read in two clicks, its group is retried, and it is done."""
    mended, gate = tmp_path / "mended", tmp_path / "gate"
    with study(server, "survey", [{"star": 100 + n, "mended": str(mended)} for n in range(3)]) as jobset:
        tab = open_tab()
        shows(tab, "survey")
        tab.click("text=survey")
        shows(tab, "ValueError no star at #, #")
        jobset.add_jobs([{"star": n, "gate": str(gate)} for n in range(60)])
        shows(tab, "running")
        tab.evaluate("window.isTheSame = true")
        tab.click("summary >> nth=0")  # what is opened stays open
        tab.focus("text=Delete")
        gate.touch()
        shows(tab, "Done: 60 completed, 3 failed.")
        assert tab.evaluate("window.isTheSame"), "the page was loaded again"
        assert tab.evaluate("document.querySelector('details').open")
        assert tab.evaluate("document.activeElement.textContent") == "Delete"
        tab.click("a.cause")
        shows(tab, "raise ValueError(f\"no star at {input_data['star']}, 17\")")
        shows(tab, "measuring 10")  # what it printed
        tab.click("text=survey")
        mended.touch()
        tab.click("text=Retry 3")
        shows(tab, "3 of survey's jobs that ended badly will be run once more")
        tab.click("text=Run them once more")
        shows(tab, "3 jobs wait to be run once more")
        shows(tab, "Done: 63 completed.")


def test_the_copy_of_a_straggler_is_seen(
    server: Server, bees: list[Bee], open_tab: Callable[..., Tab], tmp_path: Path
) -> None:
    """And that the job takes longer than most."""
    gate = tmp_path / "gate"
    inputs: list[dict[str, Any]] = [{"star": n, "seconds": 0.01} for n in range(40)]
    with study(server, "slow", [*inputs, {"star": 99, "gate": str(gate)}]):
        tab = open_tab()
        tab.goto("./jobset/slow")
        shows(tab, "longer than 95 %")
        shows(tab, "has a copy")
        assert len(tab.query_selector_all("[id^=run-]")) == 2
        gate.touch()
        shows(tab, "Done: 41 completed.")


def test_a_bee_that_is_killed_goes_quiet_and_then_is_gone(
    server: Server, bees: list[Bee], open_tab: Callable[..., Tab], tmp_path: Path
) -> None:
    """Its state says so in a word."""
    gate = tmp_path / "gate"
    with study(server, "killed", [{"star": n, "gate": str(gate)} for n in range(2)]):
        tab = open_tab()
        tab.goto("./jobset/killed")
        tab.wait_for_function("() => document.querySelectorAll('tr.b-working').length == 2")
        bees[1].kill()
        shows(tab, "quiet")
        server.execute("UPDATE workerbee.\"bee$\" SET seen_at = now() - interval '2 minutes' WHERE lease_until < now()")
        shows(tab, "gone")
        gate.touch()
        shows(tab, "Done: 2 completed.")


def test_what_a_job_prints_is_seen_while_it_runs(
    server: Server, bees: list[Bee], open_tab: Callable[..., Tab], tmp_path: Path
) -> None:
    """Its bee is asked by the page that is open, and what was printed stays when the job has ended."""
    gate = tmp_path / "gate"
    with study(server, "printing", [{"star": 4711, "gate": str(gate)}]):
        tab = open_tab()
        tab.goto("./jobset/printing/job/1")
        tab.wait_for_function("() => document.querySelector('#live-stdout')?.innerText.includes('measuring 4711')")
        gate.touch()
        shows(tab, "What it printed")
        assert "measuring 4711" in tab.inner_text("main")
        assert tab.query_selector("#live-stdout") is None


def test_the_database_stops_and_comes_back(server: Server, open_tab: Callable[..., Tab], running: Page) -> None:
    """A banner within three seconds says since when, the last numbers stay, and it goes on by itself.

    Also in a tab that has long looked more and more seldom, as nothing changed.
    """
    with paused(server, "outage", [{"star": n} for n in range(7)]):
        tab = open_tab()
        tab.goto("./jobset/outage/job/1")
        shows(tab, "waiting")
        tab.clock.install()
        tab.goto("./jobset/outage/job/1")
        pauses = _made_patient(tab)
        assert pauses >= 10, "it looks more often than it need"
        tab.clock.resume()
        server.stop("immediate")
        try:
            shows(tab, "The database is away.", 3000 + 3000)  # a slow machine has some more
            assert "waiting" in tab.inner_text("main")
            assert tab.evaluate("document.querySelector('main').className") == "old"
        finally:
            server.start()
        tab.wait_for_function("() => document.body && !document.body.innerText.includes('The database is away.')")
        assert tab.evaluate("document.querySelector('main').className") == ""


def test_the_database_comes_back_without_a_script(server: Server, open_tab: Callable[..., Tab]) -> None:
    """A page that could never be read goes on trying, also without a script, as it says."""
    with paused(server, "silent", [{"star": 1}]):
        tab = open_tab(java_script_enabled=False)
        server.stop("immediate")
        try:
            tab.goto("./jobset/silent/job/1")
            assert "This page goes on trying." in tab.inner_text("main")
        finally:
            server.start()
        tab.wait_for_selector("main:has-text('waiting')")


def _made_patient(tab: Tab) -> float:
    """Let two minutes pass for a tab; the seconds that it then lets pass between two looks."""
    looks: list[float] = []
    tab.on("request", lambda asked: looks.append(passed) if asked.headers.get("x-fragment") else None)
    for second in range(120):
        passed = float(second)
        tab.clock.run_for(1000)
        tab.evaluate("new Promise(done => fetch('./static/icon.svg').then(done))")  # lets answers come in
    return looks[-1] - looks[-2]


@pytest.mark.parametrize("script", [True, False], ids=["with scripts", "without"])
def test_it_works_below_any_path(server: Server, running: Page, open_tab: Callable[..., Tab], script: bool) -> None:
    """Through a proxy, and without a script as well: links, forms, colours, and nothing that isn't found."""
    with paused(server, "below", [{"star": n} for n in range(3)]), proxied(running.port, PREFIX) as base:
        tab = open_tab(base, java_script_enabled=script)
        tab.context.clear_cookies()
        tab.goto(f"{base}login?token={running.token}")
        tab.wait_for_selector("main#main")
        assert tab.context.cookies()[0]["path"] == PREFIX.rstrip("/")
        missing: list[str] = []
        # 503: a busy machine's database may not answer in time, and then the page tries again by itself.
        tab.on("response", lambda told: missing.append(told.url) if told.status >= 400 and told.status != 503 else None)
        tab.click("text=below")
        assert tab.url == f"{base}jobset/below"
        tab.click("a:has-text('3 jobs')")
        tab.click("tbody a >> nth=0")
        tab.click("text=Cancel")
        assert "1 open jobs of below will be cancelled" in tab.inner_text("main")
        tab.click("text=Cancel them")
        assert "1 job was cancelled." in tab.inner_text("main")
        tab.click("button[value=dark]")
        assert tab.get_attribute("html", "data-theme") == "dark"
        assert re.fullmatch(re.escape(base) + r"jobset/below/job/\d(\?.*)?", tab.url)
        tab.click("button[value=system]")
        tab.click("nav >> text=Bees")
        tab.click("text=Workerbee")
        assert tab.url == base
        for address in (base, base.rstrip("/")):  # a hub's user may leave the slash out
            tab.goto(address)
            if script:
                assert tab.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") != "0px"
            assert tab.get_attribute("text=below", "href") == f"{PREFIX}jobset/below"
        tab.click("text=below")
        assert tab.url == f"{base}jobset/below"
        assert missing == []


@pytest.fixture(scope="module")
def hostile(server: Server) -> Iterator[Hive]:
    """Inputs, outputs, functions, hosts and errors of which each is an attempt at something."""
    texts = [f"{HOSTILE[n % len(HOSTILE)]}{n // len(HOSTILE) or ''}" for n in range(500)]
    connection = Connection(server.dsn)
    hive = Hive(connection, "hostile")
    for n, text in enumerate(texts[:12]):
        bee = hive.bee(text)
        hive.add()
        fail_one(bee, text, kind=texts[100 + n], trace=f'  File "{text}", line 3, in {text}\n{texts[200 + n]}')
    bee = hive.bee("plain")
    ids = hive.add(len(texts))
    bee.succeed(bee.take(len(ids)))
    values = json.dumps([json.dumps({text: [text]}) for text in texts])
    hive.run(
        "UPDATE {job} SET input = v.value::json FROM (SELECT value #>> '{{}}' AS value, ordinality + 12 AS id"
        " FROM jsonb_array_elements(%(values)s::jsonb) WITH ORDINALITY) v WHERE {job}.id = v.id",
        values=values.replace("\\u0000", ""),
    )
    hive.run("UPDATE {outcome} SET output = j.input FROM {job} j WHERE j.id = job AND job > 12")
    hive.run(
        "UPDATE {jobset} SET paused_at = now(), paused_by = %(t)s, paused_why = %(t)s WHERE id = 'hostile'",
        t=HOSTILE[0],
    )
    hive.run("UPDATE {bee} SET launch = 'pbs ' || left(host, 150), place = 3, ends_at = now() WHERE host <> 'plain'")
    hive.run("UPDATE {bee} SET launch = 'pbs 0' WHERE host = 'plain'")
    yield hive
    connection.close()


def views_of(hive: Hive) -> list[str]:
    """Addresses of pages that show much of it."""
    pages = [f"jobset/hostile/jobs?after={n}" for n in range(0, 512, 50)]
    jobs = [f"jobset/hostile/job/{n}" for n in (1, 2, 3, 5, 7, 9, 12, 22, 40)]
    launches = ["launches", *(f"launch?name={quote('pbs ' + text)}" for text in HOSTILE[:8])]
    return ["", "jobset/hostile", "bees", *launches, *pages, *jobs]


def test_no_text_does_anything(open_tab: Callable[..., Tab], hostile: Hive) -> None:
    """500 strings, wherever they can be: nothing runs, nothing is made of them, nothing is wider than the page."""
    tab = open_tab()
    seen = ""
    for path in views_of(hostile):
        tab.goto(f"./{path}")
        seen += tab.inner_text("main")
        assert tab.evaluate("window.pwned") is None
        assert (
            tab.evaluate(
                "document.querySelectorAll('img, iframe, object, base, style, template, plaintext, main main').length"
            )
            == 0
        )
        assert tab.evaluate("document.querySelectorAll('script').length") == 2
        assert tab.evaluate("document.querySelectorAll('main').length") == 1
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
    assert seen.count("<script>window.pwned=1</script>") > 20
    assert "\u202e" not in seen


#: The rules that may be broken at one width or in one theme only.
SOME = ["color-contrast", "target-size", "scrollable-region-focusable", "link-in-text-block"]
AXE_RUN = """async rules => (await axe.run(document, {resultTypes: ["violations"], ...rules})).violations
    .map(v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(" | "))"""


@pytest.mark.parametrize(
    "path",
    [
        "",
        "jobset/hostile",
        "jobset/hostile/jobs?after=490",
        "jobset/hostile/job/1",
        "bees",
        "launches",
        "launch?name=pbs+0",
        "change/hostile?do=drop",
    ],
)
def test_everybody_can_use_it(open_tab: Callable[..., Tab], hostile: Hive, path: str) -> None:
    """No rule of axe is broken, in both themes, narrow and wide; from 320 to 2,000 pixels nothing sticks out."""
    tab = open_tab()
    tab.goto(f"./{path}")
    tab.evaluate(AXE.read_text("utf-8"))
    for width in (320, 1280, 2000):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"too wide at {width}"
        for scheme in ("light", "dark") if width < 2000 else ():
            tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            rules = {} if (width, scheme) == (320, "light") else {"runOnly": SOME}
            assert tab.evaluate(AXE_RUN, rules) == [], f"{scheme}, {width}"


def test_keys_lead_everywhere(open_tab: Callable[..., Tab], hostile: Hive) -> None:
    """Some lead through lists, some to views, and tab to the content first."""
    tab = open_tab()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/jobset/*")
    tab.keyboard.press("b")
    tab.wait_for_url("**/bees")
    tab.goto("./jobset/hostile/jobs")
    tab.keyboard.press("/")
    tab.keyboard.type("14")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/job/14")


def test_a_tab_that_nobody_looks_at_asks_nothing(open_tab: Callable[..., Tab], hostile: Hive) -> None:
    """It asks more and more seldom while nothing changes, and stops when nobody has touched it for half an hour."""
    tab = open_tab()
    tab.clock.install()
    tab.goto("./jobset/hostile/job/13")
    asked: list[int] = []
    tab.on("response", lambda answer: asked.append(answer.status) if answer.request.headers.get("x-fragment") else None)
    for _ in range(60):
        tab.clock.run_for(1000)
        tab.evaluate("new Promise(done => fetch('./static/icon.svg').then(done))")  # lets answers come in
    assert 3 <= len(asked) <= 40, "it didn't ask more seldom"
    assert asked.count(304) >= len(asked) / 2
    tab.clock.run_for(31 * 60 * 1000)
    shows(tab, "Looking has stopped")
    n = len(asked)
    tab.clock.run_for(60_000)
    assert len(asked) == n
    tab.keyboard.press("Shift")
    tab.clock.run_for(1000)
    eventually(lambda: tab.evaluate("1") and len(asked) > n)
