"""Who isn't meant to see the page doesn't, whatever is sent; and nothing is changed by who may not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest

from tests.dashboard.stage import Page, local, make_study, page
from tests.servers import Database
from tests.store.hive import Hive
from tests.waiting import eventually
from workerbee.dashboard import app, changes
from workerbee.dashboard.safety import SESSIONS, Tokens
from workerbee.store import Connection

LASTING = "a-token-that-lasts-0123456789"
PATHS = ("", "index.json", "jobset/study", "jobset/study.json", "jobset/study/jobs", "jobset/study/job/1", "bees")
PATHS += ("metrics", "static/page.css", "static/page.js", "change/study?do=cancel", "theme", "nothing", "login")
PATHS += ("launches", "launch?name=slurm+4711", "alive", "jobset/study/jobs?input=1")


@pytest.fixture(scope="module")
def study(shared: Database) -> Iterator[Hive]:
    connection = Connection(shared.dsn)
    yield make_study(connection)[0]
    connection.close()


@pytest.fixture(scope="module")
def running(shared: Database, study: Hive, run_directory: Path) -> Iterator[Page]:
    token = run_directory / "lasting-token"
    token.write_text(LASTING + "\n")
    with page(shared.dsn, "--token-file", str(token), "--allow-host", "hub.example.org") as opened:
        yield opened


@pytest.fixture
def stranger(running: Page) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def known(running: Page) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_no_route_answers_without_a_token(stranger: httpx.Client, study: Hive, method: str) -> None:
    """Whatever the method: neither a number nor a style sheet."""
    for path in PATHS:
        answer = stranger.request(method, f"/{path}", content="do=cancel" if method in ("POST", "PUT") else None)
        assert answer.status_code in (401, 405), path
        assert "study" not in answer.text
        assert "set-cookie" not in answer.headers
    assert study.status(60) == "waiting"


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "workerbee-1=x"},
        {"Cookie": "workerbee-{port}="},
        {"Cookie": "workerbee-{port}=" + "x" * 43},
        {"Cookie": 'workerbee-{port}=ü; ;;=;"\\'},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer x"},
        {"Authorization": f"Basic {LASTING}"},
        {"Authorization": f"Bearer {LASTING}x"},
    ],
    ids=range(8),
)
def test_a_wrong_token_is_none(running: Page, stranger: httpx.Client, headers: dict[str, str]) -> None:
    """Empty, guessed, of another port, or cut."""
    sent = {name: value.format(port=running.port).encode("latin-1") for name, value in headers.items()}
    assert stranger.get("/", headers=sent).status_code == 401


def test_a_token_is_good_once(running: Page) -> None:
    """And a new one is printed; its cookie is for this page only, and for no script."""
    token = running.token
    with httpx.Client(base_url=running.url) as client:
        answer = client.get("/login", params={"token": token})
        [cookie] = answer.headers.get_list("set-cookie")
        assert f"workerbee-{running.port}=" in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert client.get("/").status_code == 200
    eventually(lambda: running.token != token, what="a new token")
    with httpx.Client(base_url=running.url) as late:
        assert late.get("/login", params={"token": token}).status_code == 401
        assert late.head("/login", params={"token": running.token}).status_code in (401, 405)  # spends nothing
        assert late.get("/login", params={"token": running.token}).status_code == 200


def test_the_cookie_is_for_the_path_below_a_proxy(running: Page) -> None:
    """As the proxy says, if what it says is a path."""
    prefixes = {"/user/jo/proxy/8787": "/user/jo/proxy/8787", "/x; Domain=evil.org": "/", "//evil.org": "/", "": "/"}
    for prefix, path in prefixes.items():
        token = running.token
        headers = {"X-Forwarded-Prefix": prefix}
        answer = httpx.get(f"{running.url}/login", params={"token": token}, headers=headers)
        assert f"Path={path};" in answer.headers["set-cookie"]
        eventually(lambda before=token: running.token != before, what="a new token")


def test_the_cookie_is_for_safe_lines_where_the_page_is_shown_over_one(running: Page) -> None:
    """As the proxy says."""
    token = running.token
    answer = httpx.get(f"{running.url}/login", params={"token": token}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers["set-cookie"]
    eventually(lambda: running.token != token, what="a new token")


def test_the_oldest_browser_is_locked_out_by_one_too_many() -> None:
    """What is remembered of those that were let in doesn't grow."""
    tokens = Tokens(None, lambda _: None)
    sessions = [tokens.redeem(tokens.once) or "" for _ in range(SESSIONS + 1)]
    assert [tokens.is_session(session) for session in (sessions[0], sessions[1], sessions[-1])] == [False, True, True]


@pytest.mark.parametrize("path", ["", "nothing", "static/page.js", "index.json", "jobset/nobody", "metrics"])
def test_each_answer_has_the_headers(known: httpx.Client, stranger: httpx.Client, path: str) -> None:
    """Also those of mistakes and refusals: no script but ours, in nobody's frame, kept by nobody."""
    for answer in (known.get(f"/{path}"), stranger.get(f"/{path}"), known.get(f"/{path}", headers={"Host": "evil"})):
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy == {
            **dict.fromkeys(("default-src", "base-uri", "frame-ancestors"), "'none'"),
            **dict.fromkeys(("script-src", "style-src", "img-src", "connect-src", "form-action"), "'self'"),
        }
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] in ("no-store", "private, max-age=600")
        assert "server" not in answer.headers


def test_a_lasting_token_is_for_programs(stranger: httpx.Client) -> None:
    """As Prometheus sends it."""
    answer = stranger.get("/metrics", headers={"Authorization": f"Bearer {LASTING}"})
    assert "workerbee_runs_completed_total" in answer.text


@pytest.mark.parametrize("host", ["evil.org", "evil.org:{port}", "", "127.0.0.1.evil.org", "localhost@evil.org", "x y"])
def test_another_host_is_refused(running: Page, known: httpx.Client, host: str) -> None:
    """DNS can be made to say that any name is this machine."""
    answer = known.get("/", headers={"Host": host.format(port=running.port)})
    assert answer.status_code in (400, 421)
    assert "study" not in answer.text


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9999", "127.0.0.1:{port}", "[::1]:80", "hub.example.org", "HUB.example.org:443"]
)
def test_our_own_names_are_let_in(running: Page, known: httpx.Client, host: str) -> None:
    """Those of this machine, through any port, and those that --allow-host names."""
    headers = {
        "Host": host.format(port=running.port),
        "Cookie": "; ".join(f"{c.name}={c.value}" for c in known.cookies.jar),
    }
    assert known.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.org"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost.evil.org"},
        {"Origin": "http://["},
        {"Origin": "file://"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=lambda headers: next(iter(headers.values())) or "empty",
)
def test_another_origin_changes_nothing(known: httpx.Client, study: Hive, headers: dict[str, str]) -> None:
    """Not even with the cookie."""
    answer = known.post("/change/study", data={"do": "cancel"}, headers=headers)
    assert answer.status_code == 403
    assert study.status(60) == "waiting"


def raw(running: Page, sent: bytes, seconds: float = 15) -> bytes:
    """What comes back for these bytes until the other side hangs up."""
    with closing(socket.create_connection(("127.0.0.1", running.port), seconds)) as connection:
        connection.sendall(sent)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        return answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.org\r\nConnection: close\r\n\r\n",
        b"GET http://evil.org/ HTTP/1.1\r\nHost: evil.org\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /?" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\nHost: localhost\nHost : evil.org\nConnection: close\n\n",
        b"GET /\r\nX: y\r\n HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + b"X: y\r\n" * 9000 + b"\r\n",
        b"CONNECT evil.org:443 HTTP/1.1\r\nHost: evil.org:443\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
    ],
    ids=range(18),
)
def test_what_is_no_request_is_refused(running: Page, known: httpx.Client, sent: bytes) -> None:
    """With a status or none, and the page goes on."""
    try:
        answer = raw(running, sent)
    except ConnectionError:
        answer = b""
    assert not answer or answer.split()[1].startswith(b"4")
    assert known.get("/").status_code == 200


def test_headers_without_end_are_refused(running: Page) -> None:
    """They aren't gathered: more than a little is too much."""
    with closing(socket.create_connection(("127.0.0.1", running.port), 15)) as connection:
        sent = 0
        with suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            while sent < 4_000_000:
                connection.sendall(b"a" * 20_000)
                sent += 20_000
        assert sent < 4_000_000


def test_a_long_body_is_refused_before_it_is_read(known: httpx.Client, running: Page) -> None:
    """What is said of its length is enough."""
    cookie = "; ".join(f"{c.name}={c.value}" for c in known.cookies.jar)
    for length in ("20000", "9" * 40, "1_0"):
        head = f"POST /change/study HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nContent-Length: {length}\r\n\r\n"
        assert raw(running, head.encode()).split()[1] in (b"413", b"400")


def test_what_is_known_does_only_what_it_may(known: httpx.Client, study: Hive) -> None:
    """Also who is let in reads by GET, and changes by POST where that is meant."""
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
        for path in ("", "change/study", "jobset/study"):
            assert known.request(method, f"/{path}", params={"do": "cancel"}).text == "Refused: no such method here.\n"
    assert known.post("/jobset/study", data={"do": "cancel"}).status_code == 405
    assert known.get("/theme").status_code == 405
    assert study.status(60) == "waiting"


def test_a_body_is_short_and_comes_in_time(running: Page, known: httpx.Client, study: Hive) -> None:
    """A long one is refused, with or without a length, and a slow one is not waited for.

    Whoever sends much is told so too: bytes that the page left unread would reset the connection.
    """
    for n_bytes in (20_000, *[500_000] * 50):
        assert known.post("/change/study", content=b"do=cancel&why=" + b"x" * n_bytes).status_code == 413
    assert known.post("/change/study", content=iter([b"do=cancel&why="] + [b"x" * 1000] * 200)).status_code == 413
    cookie = "; ".join(f"{c.name}={c.value}" for c in known.cookies.jar)
    began = time.monotonic()
    head = f"POST /change/study HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nContent-Length: 9\r\n\r\ndo="
    assert raw(running, head.encode(), 30).split()[1] == b"408"
    assert time.monotonic() - began < 20
    assert study.status(60) == "waiting"


def test_an_address_is_short(known: httpx.Client) -> None:
    """A longer one is refused, its query too."""
    assert known.get("/", params={"x": "a" * 3000}).status_code == 200
    assert known.get("/", params={"x": "a" * 4200}).status_code == 414
    assert known.get("/" + "a" * 4200).status_code == 414


def test_who_is_slow_or_silent_is_hung_up_on(
    shared: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also who sends a little again and again; and then others are let in."""
    monkeypatch.setattr(app, "HEADER_SECONDS", 0.5)
    with local(shared.dsn) as client, ExitStack() as opened:
        port = client.base_url.port or 0
        silent, slow = (opened.enter_context(closing(socket.create_connection(("127.0.0.1", port)))) for _ in range(2))
        silent.settimeout(20)
        slow.settimeout(20)
        began = time.monotonic()
        with suppress(OSError):
            for letter in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 600:
                slow.sendall(bytes([letter]))
                time.sleep(0.03)
        assert time.monotonic() - began < 15, "it was listened to until it was done"
        assert silent.recv(100) == b""
        assert client.get("/").status_code == 200
    assert caplog.text.count("no request within 0.5 s") >= 2


def test_a_crowd_is_turned_away(shared: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """More connections than the page can serve find it busy, until some have gone."""
    monkeypatch.setattr(app, "CONNECTIONS", 6)
    with local(shared.dsn) as client:
        port = client.base_url.port or 0
        with ExitStack() as opened:
            for _ in range(8):
                opened.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
            eventually(lambda: client.get("/").status_code == 503)
        eventually(lambda: client.get("/").status_code == 200)


def test_no_more_than_some_changes_are_under_way(
    shared: Database, study: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for another one is told so, and nothing is changed."""
    monkeypatch.setattr(changes, "AT_A_TIME", 0)
    with local(shared.dsn) as client:
        answer = client.post("/change/study", data={"do": "cancel"})
        assert answer.status_code == 503
        assert "other changes are under way" in answer.text
    assert study.status(60) == "waiting"


def test_refusals_are_logged(running: Page, stranger: httpx.Client) -> None:
    """One line each, in which nothing steers the terminal."""
    stranger.get("/%1b[31mred")
    running.says(r"refused GET '/\\x1b\[31mred': no token")
