"""A scraper that meets missing pages, a limit on its rate, and a server that is away now and then.

    python examples/scraper.py

What will never succeed (404) is a result; what may succeed later (429, 503) is a JobFailedError, which is tried again.
Run it again: pages that were fetched are not asked for. The web server is in this script, so that it runs anywhere.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from workerbee import JobFailedError, WorkerbeeExecutor

N_PAGES = 40
seen = set()


class Site(BaseHTTPRequestHandler):
    """Every tenth page is missing; each page refuses the first one who asks."""

    def do_GET(self):
        n = int(self.path.strip("/"))
        refusal = (503, 429, 200)[n % 3]
        status = 404 if n % 10 == 0 else 200 if n in seen else refusal
        seen.add(n)
        self.send_response(status)
        self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(json.dumps({"title": f"page {n}", "words": 10 * n}).encode() if status == 200 else b"")

    def log_message(self, *_):
        pass


def fetch(job):
    try:
        with urlopen(f"{job['site']}/{job['page']}", timeout=10) as answer:  # noqa: S310 (an address of ours)
            return {"status": 200} | json.load(answer)
    except HTTPError as error:
        if error.code == 404:
            return {"status": 404}  # it won't be there tomorrow either
        raise JobFailedError(f"{error.code}, try again after {error.headers['Retry-After']} s") from error
    except URLError as error:
        raise JobFailedError(f"the site can't be reached: {error.reason}") from error


if __name__ == "__main__":
    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    jobs = [{"site": f"http://127.0.0.1:{site.server_port}", "page": n} for n in range(N_PAGES)]

    began = time.monotonic()
    with WorkerbeeExecutor(jobset_id="scraper", max_n_retry_attempts=5) as executor:
        pages = list(executor.map(fetch, jobs))
        n_tried_again = executor.events().retried
    site.shutdown()

    n_missing = sum(page["status"] == 404 for page in pages)
    print(f"{len(pages)} pages in {time.monotonic() - began:.1f} s: {n_missing} missing, {n_tried_again} tried again")
    assert n_missing == 4
    assert sum(page.get("words", 0) for page in pages) == sum(10 * n for n in range(N_PAGES) if n % 10)
    print("all others were fetched")
