"""Who isn't meant to see the page doesn't, whatever is sent; and nothing is changed by who may not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.dashboard.stage import Page, make_study, page
from tests.servers import Database
from tests.store.hive import Hive
from tests.waiting import eventually
from workerbee.store import Connection

LASTING = "a-token-that-lasts-0123456789"
PATHS = ("", "index.json", "jobset/study", "jobset/study.json", "jobset/study/jobs", "jobset/study/job/1", "bees")
PATHS += ("metrics", "static/page.css", "static/page.js", "change/study?do=cancel", "theme", "nothing", "login")


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
    for prefix, path in (("/user/jo/proxy/8787", "/user/jo/proxy/8787"), ("/x; Domain=evil.org", "/"), ("", "/")):
        token = running.token
        headers = {"X-Forwarded-Prefix": prefix}
        answer = httpx.get(f"{running.url}/login", params={"token": token}, headers=headers)
        assert f"Path={path};" in answer.headers["set-cookie"]
        eventually(lambda before=token: running.token != before, what="a new token")


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
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ],
    ids=range(10),
)
def test_what_is_no_request_is_refused(running: Page, known: httpx.Client, sent: bytes) -> None:
    """With a status or none, and the page goes on."""
    try:
        answer = raw(running, sent)
    except ConnectionError:
        answer = b""
    assert not answer or answer.split()[1].startswith(b"4")
    assert known.get("/").status_code == 200


def test_a_body_is_short_and_comes_in_time(running: Page, known: httpx.Client, study: Hive) -> None:
    """A long one is refused before it is read, one without a length while it is, and a slow one is not waited for."""
    assert known.post("/change/study", content=b"do=cancel&why=" + b"x" * 20_000).status_code == 413
    assert known.post("/change/study", content=iter([b"do=cancel&why="] + [b"x" * 1000] * 20)).status_code == 413
    cookie = "; ".join(f"{c.name}={c.value}" for c in known.cookies.jar)
    began = time.monotonic()
    head = f"POST /change/study HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nContent-Length: 9\r\n\r\ndo="
    assert raw(running, head.encode(), 30).split()[1] == b"408"
    assert time.monotonic() - began < 20
    assert study.status(60) == "waiting"


def test_refusals_are_logged(running: Page, stranger: httpx.Client) -> None:
    """One line each, in which nothing steers the terminal."""
    stranger.get("/%1b[31mred")
    running.says(r"refused GET '/\\x1b\[31mred': no token")
