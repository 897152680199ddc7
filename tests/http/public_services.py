"""Stand-ins for the public services, over real HTTP on this machine: what a test says is served, and what was asked is kept.

The real libraries run against it: a request for https://HOST/PATH arrives as /HOST/PATH.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx


@dataclass
class Served:
    """One answer; `cut`: of the body announced, the last so many bytes never come."""

    body: str | bytes
    status: int = 200
    kind: str = "application/json"
    cut: int = 0


@dataclass
class Services:
    """`answers`: {beginning of HOST/PATH: its answers, the last of them for ever}; what is not named is not found."""

    answers: dict[str, list[Served]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)
    port: int = 0

    def serve(self, place: str, *answers: Served | str | bytes) -> None:
        self.answers[place] = [one if isinstance(one, Served) else Served(one) for one in answers]

    def here(self, url: str) -> str:
        """Where a request for `url` is to go instead."""
        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        return f"http://127.0.0.1:{self.port}/{parts.netloc}{parts.path}{query}"

    def asked_of(self, place: str) -> list[dict[str, list[str]]]:
        return [query for path, query in self.asked if path.startswith(place)]

    def _next(self, path: str) -> Served:
        for place, answers in self.answers.items():
            if path.startswith(place):
                return answers.pop(0) if len(answers) > 1 else answers[0]
        return Served("not here", 404, "text/plain")


class Redirecting(httpx.HTTPTransport):
    """A transport that sends every request to the services."""

    def __init__(self, services: Services) -> None:
        super().__init__()
        self._services = services

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = httpx.URL(self._services.here(str(request.url)))
        return super().handle_request(request)


def redirecting_session(services: Services) -> Any:
    """A session of curl_cffi, as yfinance uses it, that sends every request to the services."""
    from curl_cffi.requests import Session

    class Redirected(Session):
        def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
            return super().request(method, services.here(url), *args, **options)

    return Redirected(impersonate="chrome", trust_env=False)


@contextmanager
def public_services() -> Iterator[Services]:
    """Run the services for the length of a `with`."""
    services = Services()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.lstrip("/")
            services.asked.append((path, parse_qs(parts.query)))
            found = services._next(path)
            body = found.body if isinstance(found.body, bytes) else found.body.encode()
            self.send_response(found.status)
            self.send_header("Content-Type", found.kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - found.cut])
            self.close_connection = True

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    services.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield services
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
