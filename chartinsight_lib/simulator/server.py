"""The simulated Kiwoom as a server: REST and WebSocket on one port of this machine, in a thread or as a process.

Beside Kiwoom's paths it has one of its own, `/_simulator`, which tells what it shows and moves its clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from datetime import datetime, timedelta
from types import TracebackType

import numpy as np
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.feed import API_ID, Feed, FeedSocket
from chartinsight_lib.simulator.model import Market
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.requestlog import Request, RequestLog
from chartinsight_lib.simulator.service import Answer, Asked, Service, parsed
from chartinsight_lib.simulator.tokens import ISSUE, REVOKE
from chartinsight_lib.simulator.wire import dumps
from chartinsight_lib.simulator.world import World

HOST = "127.0.0.1"
WEBSOCKET = "/api/dostk/websocket"
_SKIP_S = 0.1
_AFTER_CLOSE, _BEFORE_OPEN = timedelta(minutes=10), timedelta(minutes=20)


class SimulatorServer:
    """Shows a market at a clock as Kiwoom does. In a `with` it runs in a thread; `serve_forever` runs it in this one."""

    def __init__(self, market: Market, clock: SimulatedClock, options: Options | None = None, *, port: int = 0) -> None:
        """Take a port, 0 for a free one. Raises ConfigError: it is taken."""
        self.market, self.clock, self.options = market, clock, options or Options()
        try:
            self._sockets = bind_sockets(port, HOST)
        except OSError as error:
            raise ConfigError(f"simulator: port {port} cannot be opened ({error.strerror}). Choose another.") from error
        self._port = self._sockets[0].getsockname()[1]
        self.requests = RequestLog(self.options.remember, self.options.request_log)
        self.service = Service(World(market, clock, self.options))
        self.feed = Feed(self.service, self._log_frame)
        self._closing, self._ended, self._runs_in = False, threading.Event(), 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Where its REST half is."""
        return f"http://{HOST}:{self._port}"

    @property
    def websocket_url(self) -> str:
        """Where its WebSocket is."""
        return f"ws://{HOST}:{self._port}{WEBSOCKET}"

    def __enter__(self) -> SimulatorServer:
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="simulator", daemon=True).start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def serve_forever(self) -> None:
        """Serve until `close` is called from another thread or a signal's handler, or an interrupt comes."""
        try:
            asyncio.run(self._serve(threading.Event()))
        finally:
            self.close()

    def close(self) -> None:
        """Stop, and end all connections. May be repeated."""
        self._closing = True
        if self._loop and self._stop and not self._ended.is_set():
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
            if self._runs_in == threading.get_ident():
                return  # a signal's handler within `serve_forever`, which ends by closing
            self._ended.wait()
        for one in self._sockets:
            one.close()
        self.requests.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop, self._runs_in = asyncio.get_running_loop(), asyncio.Event(), threading.get_ident()
        server = HTTPServer(self._application())
        rounds = [
            PeriodicCallback(self.feed.tick, self.options.feed_s * 1000),
            PeriodicCallback(self.feed.ping, self.options.ping_s * 1000),
        ]
        if self.options.skip_closed:
            rounds.append(PeriodicCallback(self.skip_closed, _SKIP_S * 1000))
        try:
            if not self._closing:
                server.add_sockets(self._sockets)
                for one in rounds:
                    one.start()
                ready.set()
                await self._stop.wait()
        finally:
            for one in rounds:
                one.stop()
            server.stop()
            for listener in list(self.feed.listeners):
                listener.socket.close()
            await server.close_all_connections()
            self._ended.set()
            ready.set()

    def _application(self) -> Application:
        own = {"server": self}
        return Application(
            [
                (r"/oauth2/token", _TokenHandler, {**own, "api_id": ISSUE}),
                (r"/oauth2/revoke", _TokenHandler, {**own, "api_id": REVOKE}),
                (WEBSOCKET, FeedSocket, {"feed": self.feed}),
                (r"/api/dostk/(.*)", _DataHandler, own),
                (r"/_simulator(?:/(clock))?", _ControlHandler, own),
            ],
            log_function=lambda _: None,  # the request log tells it, without the headers
        )

    def skip_closed(self) -> None:
        """Move the clock to shortly before the next opening, if trading is over for the day."""
        now = self.clock.now()
        session = self.service.world.session(now.date())
        if session is not None and now <= (session.after_closes or session.closes) + _AFTER_CLOSE:
            return
        at = int(np.searchsorted(self.market.days, np.datetime64(now.date()), side="right"))
        if at < len(self.market.days):
            following = self.service.world.session(self.market.days[at].astype("datetime64[D]").astype(object))
            if following is not None:
                with contextlib.suppress(ConfigError):  # somebody else has moved it further
                    self.clock.move_to(following.opens - _BEFORE_OPEN)

    def log(self, asked: Asked, api_id: str, answer: Answer) -> None:
        """Write a request down."""
        cont_yn = asked.headers.get("cont-yn", "")
        self.requests.add(
            Request(
                self.clock.now(), time.monotonic(), api_id[:10], asked.code[:20], cont_yn[:1], answer.page, answer.status,
                answer.return_code, answer.bracket_code, answer.fault,
            )
        )  # fmt: skip

    def _log_frame(self, name: str, status: int, return_code: int | None, fault: str) -> None:
        self.requests.add(
            Request(self.clock.now(), time.monotonic(), API_ID, name, "", 1, status, return_code, None, fault)
        )


class _Handler(RequestHandler):
    def initialize(self, server: SimulatorServer) -> None:
        self.server = server

    async def send(self, asked: Asked, api_id: str, answer: Answer) -> None:
        """Send an answer as it is meant to arrive: late, cut off, or not at all."""
        self.server.log(asked, api_id, answer)
        if answer.delay_s:
            await asyncio.sleep(answer.delay_s)
        if answer.dropped:
            self._drop(answer.dropped)
            return
        self.set_status(answer.status)
        self.set_header("Content-Type", answer.content_type)
        for name, value in answer.headers.items():
            self.set_header(name, value)
        with contextlib.suppress(StreamClosedError):  # a client that gave up while it waited
            await self.finish(answer.body)

    def _drop(self, how: str) -> None:
        stream = self.detach()
        if how == "reset" and stream.socket is not None:
            # Lingering for no time makes the kernel send RST where it would send FIN.
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()

    def asked(self) -> Asked:
        """Return the request."""
        return Asked(self.request.headers, parsed(self.request.body), self.request.remote_ip or "")


class _TokenHandler(_Handler):
    def initialize(self, server: SimulatorServer, api_id: str = "") -> None:
        self.server, self.api_id = server, api_id

    async def post(self) -> None:
        asked = self.asked()
        await self.send(asked, self.api_id, self.server.service.token(asked, self.api_id))


class _DataHandler(_Handler):
    async def post(self, path: str) -> None:
        asked = self.asked()
        await self.send(asked, asked.api_id, self.server.service.data(asked, path))


class _ControlHandler(_Handler):
    def prepare(self) -> None:
        """Serve this machine only, and no page of a browser that was led here under another name."""
        name = self.request.host_name
        if name not in ("127.0.0.1", "localhost") or self.request.remote_ip != HOST:
            self.send_error(403)
        elif self.request.method == "POST" and not self.request.headers.get("Content-Type", "").startswith(
            "application/json"
        ):
            self.send_error(415)

    def get(self, _: str | None = None) -> None:
        self._tell()

    def post(self, what: str | None = None) -> None:
        body = parsed(self.request.body) or {}
        try:
            if what != "clock" or len(body) != 1:
                raise ConfigError('expected POST /_simulator/clock with {"move_to": ISO 8601} or {"speed": N}.')
            if "move_to" in body:
                self.server.clock.move_to(_moment(body["move_to"]))
            elif isinstance(speed := body.get("speed"), int | float) and not isinstance(speed, bool):
                self.server.clock.set_speed(speed)
            else:
                raise ConfigError(f"speed is {body.get('speed')!r}. Expected a number.")
        except ConfigError as error:
            self.set_status(400)
            self._write({"error": str(error)})
            return
        self._tell()

    def _tell(self) -> None:
        clock, log = self.server.clock, self.server.requests
        self._write(
            {
                "label": self.server.market.label,
                "now": clock.now().isoformat(),
                "speed": clock.speed,
                "profile": self.server.options.profile,
                "calls": log.total,
                "refused": log.refused,
            }
        )

    def _write(self, told: dict[str, object]) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(dumps(told))


def _moment(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise ConfigError(f"move_to is {text!r}. Expected ISO 8601, as in 2026-09-14T08:40+09:00.") from error
    if moment.tzinfo is None:
        raise ConfigError(f"move_to is {text!r}, without a time zone. Write it with +09:00.")
    return moment
