"""The page's door: a request needs the token or a session, one of our host names, and one of our pages as its origin.

The token is in the address that is printed at start. It is good once, for a cookie; whoever has used it up finds a
new one printed. A lasting token, from a file, is for programs: they send it with each request.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Names by which a machine addresses itself.
LOCAL = ("localhost", "127.0.0.1", "::1")
#: Bytes of a request's body and of its address, and seconds in which a body has to be here.
MOST_BODY, MOST_PATH, BODY_SECONDS = 16_384, 4096, 3.0
#: What is still read of a refused request, at most, before it is answered: bytes and seconds.
MOST_DRAINED, DRAIN_SECONDS = 2**20, 0.5
#: Browsers that are let in at a time: with another one the oldest is locked out.
SESSIONS = 100
METHODS = ("GET", "HEAD", "POST")
#: Nothing from elsewhere, nothing inline, in nobody's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

#: The page of a request that has been let in by a token: a navigation of its own, so that the new cookie goes with it.
_WELCOME = (
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    "<meta http-equiv=refresh content='0; url=./'><title>Workerbee</title><p><a href='./'>Go on to the page</a></p>"
)
_LOCKED = (
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    "<title>Workerbee: locked</title><main><h1>This page is locked</h1><p>Open the address that <code>workerbee "
    "dashboard</code> has printed last: it holds a token, which is good once. If the page was started anew, it has "
    "a new one.</p></main>"
)

log = logging.getLogger("workerbee.dashboard")


class Refusal(Exception):  # noqa: N818 (it is an answer)
    """Why a request is refused, as a status and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Tokens:
    """The token that is good once, and the sessions that were begun with one."""

    def __init__(self, lasting: str | None, on_new: Callable[[str], None]) -> None:
        """``on_new`` is told each token that is good once."""
        self._lasting = lasting
        self._on_new = on_new
        self._once = secrets.token_urlsafe(32)
        self._sessions: OrderedDict[str, None] = OrderedDict()

    @property
    def once(self) -> str:
        """Make what lets in the next browser."""
        return self._once

    def redeem(self, token: str) -> str | None:
        """A new session for a token that is good; None for any other."""
        if _same(token, self._once):
            self._once = secrets.token_urlsafe(32)
            self._on_new(self._once)
        elif not self.is_lasting(token):
            return None
        session = secrets.token_urlsafe(32)
        self._sessions[session] = None
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def is_lasting(self, token: str) -> bool:
        """Tell whether it is the token for programs."""
        return self._lasting is not None and _same(token, self._lasting)

    def is_session(self, session: str) -> bool:
        """Tell whether somebody was let in so."""
        return any(_same(session, known) for known in self._sessions)


class Door:
    """Middleware that every request passes, and that puts the headers on every answer."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens, cookie: str, hosts: Collection[str]) -> None:
        """``cookie`` is the cookie's name; ``hosts`` may be asked for beside this machine's own names."""
        self._app = app
        self._tokens = tokens
        self._cookie = cookie
        self._hosts = {*LOCAL, *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _with_headers(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            self._check(scope, headers)
            if scope["path"] == "/login" and scope["method"] == "GET":
                answer: ASGIApp = self._login(scope, headers)
            else:
                self._demand_token(headers)
                receive, answer = _replayed(await _body(headers, receive)), self._app
        except Refusal as refusal:
            log.warning("refused %s %r: %s", scope["method"], scope["path"][:200], refusal)
            await _drain(receive)
            answer = _refused(refusal)
        await answer(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Check what can be said before anybody is known."""
        if scope["method"] not in METHODS:
            raise Refusal(405, "no such method here")
        if len(scope["raw_path"] or b"") + len(scope["query_string"]) > MOST_PATH:
            raise Refusal(414, "the address is too long")
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _name(hosts[0]) not in self._hosts:
            raise Refusal(421, f"it asks for the host {hosts[:2]!r}: --allow-host lets it in")
        origin = headers.get("origin")
        if origin is not None and not _is_own(origin, hosts[0]):
            raise Refusal(403, f"it comes from {origin[:200]!r}")
        if scope["method"] == "POST" and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refusal(403, "it comes from another site")

    def _login(self, scope: Scope, headers: Headers) -> Response:
        token = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token", "")
        session = self._tokens.redeem(token)
        if session is None:
            raise Refusal(401, "another token")
        log.info("a browser was let in")
        answer = HTMLResponse(_WELCOME)
        answer.set_cookie(
            self._cookie,
            session,
            path=prefix_of(headers) or "/",  # so it is sent only there
            httponly=True,
            samesite="strict",
            secure=headers.get("x-forwarded-proto") == "https",
        )
        return answer

    def _demand_token(self, headers: Headers) -> None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._tokens.is_lasting(token.strip()):
            return
        if not any(self._tokens.is_session(session) for session in _cookies(headers, self._cookie)):
            raise Refusal(401, "no token")


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), known.encode())


def _cookies(headers: Headers, name: str) -> list[str]:
    found = []
    for header in headers.getlist("cookie"):
        for pair in header.split(";"):
            try:
                cookie = SimpleCookie(pair.strip())
            except CookieError:
                continue
            if name in cookie:
                found.append(cookie[name].value)
    return found[:4]


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+)(:\d{1,5})?", host)
    return found[1].strip("[]").lower() if found else ""


def _is_own(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and _without_port(parts.scheme, parts.netloc) in (
        host.lower(),
        _without_port(parts.scheme, host),
    )


def _without_port(scheme: str, netloc: str) -> str:
    """A host and port as an origin has them, which leaves out the usual port."""
    return netloc.lower().removesuffix({"http": ":80", "https": ":443"}[scheme])


def prefix_of(headers: Headers) -> str:
    """The path below which a proxy shows the page, without a slash at its end; nothing if no proxy says so."""
    prefix = headers.get("x-forwarded-prefix", "")[:1000].rstrip("/")
    return prefix if re.fullmatch(r"(/[\w.~%@:+-]+)*", prefix) else ""


def _refused(refusal: Refusal) -> Response:
    if refusal.status == 401:
        return HTMLResponse(_LOCKED, 401, {"WWW-Authenticate": "Bearer"})
    return PlainTextResponse(f"Refused: {refusal}.\n", refusal.status, {"Connection": "close"})


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


async def _body(headers: Headers, receive: Receive) -> bytes:
    """All of a request's body. Raises Refusal if it is too long or too slow."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BODY:
        raise Refusal(413, "its body is too long")
    try:
        return await asyncio.wait_for(_gathered(receive), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise Refusal(408, "its body doesn't come") from None


async def _gathered(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "it broke off")
        body += message.get("body", b"")
        if len(body) > MOST_BODY:
            raise Refusal(413, "its body is too long")
        if not message.get("more_body", False):
            return bytes(body)


async def _drain(receive: Receive) -> None:
    """Read what a refused request still sends, within bounds.

    A connection that is closed with bytes unread is reset, and may take the answer with it (RFC 9112, section 9.6).
    """
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_skip(receive), DRAIN_SECONDS)


async def _skip(receive: Receive) -> None:
    n_read, is_more = 0, True
    while is_more and n_read < MOST_DRAINED:
        message = await receive()
        n_read += len(message.get("body", b""))
        is_more = message.get("more_body", False)


def _replayed(body: bytes) -> Receive:
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive
