"""The page as an ASGI application, and the server that runs it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Collection
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from workerbee.dashboard.changes import Changes
from workerbee.dashboard.safety import Door, Tokens
from workerbee.dashboard.sampler import Sampler
from workerbee.dashboard.views import Mistake, Views

#: Seconds for the first line and the headers of a request, and connections at a time.
HEADER_SECONDS, CONNECTIONS = 10.0, 200
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
#: What stands beside the page, by name.
STATIC = ("page.css", "page.js", "idiomorph.min.js", "icon.svg")

log = logging.getLogger("workerbee.dashboard")


def application(
    dsn: str, *, server: str, tokens: Tokens, port: int, hosts: Collection[str] = (), read_only: bool = False
) -> Starlette:
    """The application on this database; ``port`` names its cookie, ``hosts`` are let in beside localhost."""
    sampler = Sampler(dsn)
    sampler.is_alive()  # connects, so that the first one who looks needn't wait for it
    views = Views(sampler, Sampler(dsn), None if read_only else Changes(dsn), server)
    texts = {name: files(__package__).joinpath("static", name).read_bytes() for name in STATIC}

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in texts:
            return views.mistake(request, Mistake(404, "There is no such file."))
        kind = _TYPES[name.rpartition(".")[2]]
        return Response(texts[name], media_type=kind, headers={"Cache-Control": "private, max-age=600"})

    places: list[tuple[str, Callable[[Request], Response]]] = [
        ("/jobset/{jobset}/jobs", views.jobs),
        ("/jobset/{jobset}/job/{job:int}", views.job),
        ("/jobset/{jobset}", views.jobset),
        ("/bees", views.bees),
        ("/launches", views.launches),
        ("/launch", views.launch),
    ]
    twins = [(f"{path}.json", view) for path, view in places]
    reads = [("/index.json", views.home), ("/", views.home), *twins, *places]
    reads += [("/metrics", views.metrics), ("/alive", views.alive)]
    routes = [Route(path, views.guarded(view)) for path, view in reads]
    routes += [Route("/static/{name}", static), Route("/theme", views.posted(views.theme), methods=["POST"])]
    if not read_only:
        routes += [Route("/change/{jobset}", views.guarded(views.ask))]
        routes += [Route("/change/{jobset}", views.posted(views.answer), methods=["POST"])]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(Door, tokens=tokens, cookie=f"workerbee-{port}", hosts=hosts),
            Middleware(GZipMiddleware, compresslevel=5),
        ],
        exception_handlers={
            404: lambda request, _: views.mistake(request, Mistake(404, "There is no such page.")),
            405: lambda request, _: views.mistake(request, Mistake(405, "That can't be done here.")),
        },
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address; port 0 is any free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=CONNECTIONS)


def web_server(app: Starlette) -> uvicorn.Server:
    """Make the server of the application: its ``run`` takes sockets, and returns at SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app,
        http=Impatient,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=2,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=32_768,
    )
    return uvicorn.Server(config)


class Impatient(H11Protocol):
    """HTTP whose requests begin in time: who sends headers bit by bit, or none, is hung up on."""

    _impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._be_impatient()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._calm_down()
        elif self._impatience is None:
            self._be_impatient()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm_down()
        super().connection_lost(exc)

    def _be_impatient(self) -> None:
        self._impatience = self.loop.call_later(HEADER_SECONDS, self._hang_up)

    def _calm_down(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _hang_up(self) -> None:
        self._impatience = None
        if self.cycle is None or self.cycle.response_complete:
            log.warning("refused %s: no request within %g s", self.client and self.client[0], HEADER_SECONDS)
            self.transport.close()
