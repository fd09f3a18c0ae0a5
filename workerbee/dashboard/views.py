"""The views: an address, its facts, and their HTML or JSON."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from workerbee import finding, plots
from workerbee.dashboard import shown
from workerbee.dashboard.changes import OPEN, Changes
from workerbee.dashboard.crowd import Crowd
from workerbee.dashboard.facts import Facts
from workerbee.dashboard.jobs import JobLooks
from workerbee.dashboard.looks import SPANS, Looks
from workerbee.dashboard.metrics import exposition
from workerbee.dashboard.safety import prefix_of
from workerbee.dashboard.sampler import NothingSeenError, Sampler
from workerbee.dashboard.ticks import Ticks
from workerbee.errors import JobsetNotFoundError, WorkerbeeError
from workerbee.reading import STATUSES, Wanted, is_forbidden

#: The largest id of a job.
LAST_JOB = 2**63 - 1
THEMES = ("system", "light", "dark")
THEME_COOKIE = "workerbee-theme"

log = logging.getLogger("workerbee.dashboard")


class Mistake(Exception):  # noqa: N818 (it is an answer)
    """A wrong address, or a wrong question: a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Asked(NamedTuple):
    """The parsed query."""

    query: dict[str, str]

    def number(self, name: str, most: int = LAST_JOB) -> int | None:
        """A natural number, if one is given. Raises Mistake for anything else."""
        text = self.query.get(name, "")
        if not text:
            return None
        if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > most:
            raise Mistake(400, f"{name} is a number, not {shown.short(text, 40)}")
        return int(text)

    def choice(self, name: str, among: Mapping[str, Any] | tuple[str, ...], default: str) -> str:
        """One of some words. Raises Mistake for another one."""
        text = self.query.get(name) or default
        if text not in among:
            raise Mistake(400, f"{name} is one of {', '.join(among)}, not {shown.short(text, 40)}")
        return text

    def wanted(self, statuses: tuple[str, ...] | None = None) -> Wanted:
        """Say which jobs are meant. Raises Mistake for what can't be."""
        status = self.query.get("status") or None
        if status is not None and status not in STATUSES:
            raise Mistake(400, f"status is one of {', '.join(STATUSES)}, not {shown.short(status, 40)}")
        group = self.query.get("group") or None
        if group is not None and not re.fullmatch(r"[0-9a-f]{16}", group):
            raise Mistake(400, "group is the name of a group of failures: 16 digits of 0-9a-f")
        texts = [self.query.get(name) or None for name in ("function", "host")]
        if any(text is not None and "\0" in text for text in texts):
            raise Mistake(400, "a name has no NUL in it")
        function, host = texts
        return Wanted((status,) if status else statuses, function, group and bytes.fromhex(group), host)


class Views:
    """Answers requests; each method is an endpoint that runs in a thread."""

    def __init__(self, sampler: Sampler, searcher: Sampler, changes: Changes | None, server: str) -> None:
        """``changes`` None: this page only reads. ``server`` is said in the foot of each page."""
        self._sampler = sampler
        self._looks = Looks(sampler)
        self._jobs = JobLooks(sampler, searcher, self._looks, may_ask=changes is not None)
        self._crowd = Crowd(sampler)
        self._ticks = Ticks()
        self._changes = changes
        self._server = server
        self._templates = Environment(
            loader=PackageLoader("workerbee.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(shown.FILTERS)
        self._templates.globals.update(SIGNS=shown.SIGNS, STATUSES=STATUSES, SPANS=tuple(SPANS), plots=plots)
        for name in self._templates.list_templates():  # now, so that nobody waits for it
            self._templates.get_template(name)

    # Views

    def home(self, request: Request) -> Response:
        """All jobsets."""
        return self._view(request, "home", self._looks.home(), title="Jobsets", change=self._change(_asked(request)))

    def jobset(self, request: Request) -> Response:
        """One of them."""
        asked, name = _asked(request), request.path_params["jobset"]
        span = asked.choice("span", SPANS, "hour")
        facts = self._looks.jobset(name, span)
        samples = [plots.Sample(*sample) for sample in facts["rates"]]
        drawn = {
            "rate_plot": plots.rate(samples).html,
            "durations_plot": plots.durations(facts["durations"], facts["p95"]).html,
        }
        return self._view(request, "jobset", facts, title=name, change=self._change(asked), **drawn)

    def jobs(self, request: Request) -> Response:
        """A page of jobs, or the one whose id is looked for."""
        asked, name = _asked(request), request.path_params["jobset"]
        found = asked.number("find")
        if found is not None:
            return RedirectResponse(f"job/{found}", 303)
        if asked.query.get("input"):
            return self._found(request, asked, name)
        wanted, after = asked.wanted(), asked.number("after") or 0
        facts = self._jobs.jobs(name, wanted, after)
        kept = {key: asked.query[key] for key in ("status", "function", "host", "group") if asked.query.get(key)}
        more = None if facts["after"] is None else urlencode(kept | {"after": facts["after"]})
        return self._view(
            request,
            "jobs",
            facts,
            title=f"Jobs of {name}",
            kept=kept,
            more=more,
            is_first=not after,
            found=None,
            input="",
        )

    def _found(self, request: Request, asked: Asked, name: str) -> Response:
        """Jobs by their input."""
        text = asked.query["input"]
        try:
            value = finding.parsed(text)
        except ValueError as error:
            raise Mistake(
                400, f'an input is JSON, such as {{"star": 17}} or 17, and {shown.short(text, 60)} is none: {error}'
            ) from None
        before = asked.number("before") or finding.LAST
        try:
            facts = self._jobs.found(name, text, value, before)
        except NothingSeenError:
            raise Mistake(
                503, "Looking through the inputs took the server too long; this page goes on trying."
            ) from None
        before = facts["found"]["before"]
        more = None if before is None else urlencode({"input": text, "before": before})
        return self._view(
            request, "jobs", facts, title=f"Jobs of {name}", kept={}, input=text, more=more, is_first=True
        )

    def job(self, request: Request) -> Response:
        """One job."""
        asked, name, job = _asked(request), request.path_params["jobset"], request.path_params["job"]
        if job > LAST_JOB:
            raise Mistake(404, "there is no such job")
        facts = self._jobs.job(name, job)
        if facts is None:
            raise Mistake(404, f"there is no job {job} in {name}")
        return self._view(request, "job", facts, title=f"Job {job} of {name}", change=self._change(asked))

    def bees(self, request: Request) -> Response:
        """All bees."""
        return self._view(request, "bees", self._crowd.bees(), title="Bees")

    def launches(self, request: Request) -> Response:
        """By what bees were launched."""
        return self._view(request, "launches", self._crowd.launches(), title="Launches")

    def launch(self, request: Request) -> Response:
        """One launch."""
        name = _asked(request).query.get("name", "")
        facts = None if "\0" in name else self._crowd.launch(name)
        if facts is None:
            raise Mistake(404, f"no bee has come by a launch {shown.short(name, 60)}, as far as is known")
        return self._view(request, "launch", facts, title=name)

    def metrics(self, request: Request) -> Response:
        """The counters, for Prometheus."""
        try:
            rows, is_up = self._looks.counters(), self._sampler.away_since is None
        except NothingSeenError:
            rows, is_up = [], False
        return Response(exposition(rows, is_up=is_up), media_type="text/plain; version=0.0.4")

    def alive(self, request: Request) -> Response:
        """Say only that the database answers: a tab that looks seldom learns of an outage so."""
        return Response(status_code=204 if self._sampler.is_alive() else 503)

    # Changes

    def ask(self, request: Request) -> Response:
        """Show what would be changed."""
        do, row, wanted, job, asked = self._meant(request, _asked(request))
        question = self._changing.question(do, row, wanted, job)
        return self._view(
            request, "ask", {"question": question}, title=question.verb, asked=asked.query, jobset=row.jobset.name
        )

    def answer(self, request: Request, asked: Asked) -> Response:
        """Do it."""
        do, row, wanted, job, _ = self._meant(request, asked)
        name = row.jobset.name
        if do == "drop" and asked.query.get("typed") != name:
            raise Mistake(400, f"it isn't deleted: type {name} to say that you mean it")
        why = asked.query.get("why", "").strip()[:500] or None
        try:
            done = self._changing.begin(do, row, wanted, job, why)
        except RuntimeError as error:
            raise Mistake(503, str(error)) from None
        back = "../" if do == "drop" else f"../jobset/{name}/job/{job}" if job is not None else f"../jobset/{name}"
        return RedirectResponse(f"{back}?{urlencode({'done': done})}", 303)

    def _meant(self, request: Request, asked: Asked) -> tuple[str, Any, Wanted, int | None, Asked]:
        do = asked.choice("do", ("retry", "cancel", "pause", "resume", "drop"), "")
        row = self._looks.find(request.path_params["jobset"])
        wanted = asked.wanted(("failed",) if do == "retry" else OPEN)
        return do, row, wanted, asked.number("job"), asked

    @property
    def _changing(self) -> Changes:
        if self._changes is None:
            raise Mistake(403, "this page only reads")
        return self._changes

    def _change(self, asked: Asked) -> Any:
        name = asked.query.get("done")
        return self._changes.find(name) if self._changes is not None and name else None

    def theme(self, request: Request, asked: Asked) -> Response:
        """Light, dark, or as the system has it."""
        theme, back = asked.choice("theme", THEMES, "system"), asked.query.get("back", "./")
        # Only a place on this page: nothing that leads elsewhere.
        back = back if re.fullmatch(r"\./[\w/.]*(\?[\w=&%+.-]*)?", back) else "./"
        answer = RedirectResponse(back, 303)
        answer.set_cookie(THEME_COOKIE, theme, max_age=10**8, samesite="strict", httponly=True, path="/")
        return answer

    # Answers

    def guarded(self, view: Callable[[Request], Response]) -> Callable[[Request], Response]:
        """The view, or a page that says what went wrong."""

        def told(request: Request) -> Response:
            try:
                return view(request)
            except Exception as error:  # noqa: BLE001 (whoever asked is told)
                return self.mistake(request, error)

        def endpoint(request: Request) -> Response:
            if request.method != "GET" or not _is_part(request):
                return told(request)
            asked = request.url.path, request.url.query, request.cookies.get(THEME_COOKIE), _root(request)
            return self._ticks.answer(request, (*asked, self._sampler.away_since), told)

        return endpoint

    def posted(self, action: Callable[[Request, Asked], Response]) -> Callable[[Request], Awaitable[Response]]:
        """Do what a form asks for."""

        async def endpoint(request: Request) -> Response:
            body = (await request.body()).decode("utf-8", "replace")
            return await run_in_threadpool(self.guarded(lambda asker: action(asker, Asked(_pairs(body)))), request)

        return endpoint

    def _view(self, request: Request, name: str, facts: Facts, **more: Any) -> Response:
        """A view as JSON, as a whole page, or only what changes in it."""
        if request.url.path.endswith(".json"):
            return Response(
                shown.document(name, facts), 503 if facts.get("away_since") else 200, media_type="application/json"
            )
        return self._page(request, name, facts, **more)

    def _page(self, request: Request, name: str, facts: Facts, *, status: int = 200, **more: Any) -> Response:
        is_part = _is_part(request)
        path = request.url.path
        root = _root(request)
        theme = request.cookies.get(THEME_COOKIE, "system")
        query = f"?{request.url.query}" if request.url.query else ""
        text = self._templates.get_template(f"{name}.html").render(
            {"change": None, "away_since": None, "is_cut": False, "at": None, "is_passing": False}
            | facts
            | more
            | {
                "root": root,
                "is_part": is_part,
                "view": name,
                "theme": theme if theme in THEMES else "system",
                "back": f".{path}{query}",
                "is_changing": self._changes is not None,
                "has_launches": self._crowd.any_launch(),
                "server_name": self._server,
            }
        )
        body = text.encode("utf-8", "backslashreplace")
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        headers = {"ETag": tag, "Vary": "X-Fragment, Cookie"}
        return HTMLResponse(body, status, headers)

    def mistake(self, request: Request, error: Exception) -> Response:
        """Say what went wrong, to a person or a program."""
        status, sentence = _said(error)
        if status >= 500 and not isinstance(error, (NothingSeenError, Mistake)):
            log.error("%s failed", request.url.path, exc_info=error)
        if request.url.path.endswith(".json"):
            return JSONResponse({"error": sentence}, status)
        away = shown.moment(self._sampler.away_since)
        is_passing = status == HTTPStatus.SERVICE_UNAVAILABLE and request.method == "GET"
        facts = {"sentence": sentence, "away_since": away, "is_passing": is_passing}
        return self._page(request, "mistake", facts, status=status, title=HTTPStatus(status).phrase)


def _root(request: Request) -> str:
    """The way from a page to the first one."""
    path, prefix = request.url.path, prefix_of(request.headers)
    if path == "/" and prefix:  # it may have been asked for without the last slash, and then "./" leads elsewhere
        return f"{prefix}/"
    return "./" + "../" * (path.count("/") - 1)


def _is_part(request: Request) -> bool:
    """Tell whether a tab looks again, which needs only what changes."""
    return request.headers.get("x-fragment") == "1"


def _asked(request: Request) -> Asked:
    return Asked(_pairs(request.url.query))


def _pairs(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, max_num_fields=20))
    except ValueError:
        raise Mistake(400, "that are too many fields") from None


def _said(error: Exception) -> tuple[int, str]:
    """The status and the sentence of an error."""
    if isinstance(error, Mistake):
        return error.status, str(error)
    if isinstance(error, JobsetNotFoundError):
        return 404, str(error)
    if isinstance(error, NothingSeenError):
        return 503, "The database hasn't answered in time so far. This page goes on trying."
    if isinstance(error, WorkerbeeError):
        return 503, str(error)
    if is_forbidden(error):
        return 403, "This user of the database may not read that."
    return 500, "Something went wrong here; the log says what."
