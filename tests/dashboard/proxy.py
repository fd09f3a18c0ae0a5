"""A proxy that shows a page below a path, as JupyterHub's does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@contextmanager
def proxied(port: int, prefix: str) -> Iterator[str]:
    """The address below which the page at this port is shown, its path being taken off again."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not f"{self.path}/".startswith(prefix):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            headers["X-Forwarded-Prefix"] = prefix.rstrip("/")
            with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                connection.request(self.command, "/" + self.path[len(prefix) :], body or None, headers)
                answer = connection.getresponse()
                text = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            if answer.status != 304:
                self.send_header("Content-Length", str(len(text)))
            with suppress(ConnectionError):  # a browser that goes on to another page waits for none of the former one
                self.end_headers()
                self.wfile.write(text)

        do_POST = do_GET  # noqa: N815 (the base class's way)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{prefix}"
        finally:
            server.shutdown()
            thread.join()
