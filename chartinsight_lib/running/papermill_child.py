"""The process that executes one notebook for `runner`: starts a kernel, reads its order from standard input, says what happens.

    python -m chartinsight_lib.running.papermill_child SOCKETS [--warm]

The kernel is started first and papermill is imported while it comes up. With `--warm` the kernel also imports what jobs import,
and waits: for one order, as every other. Standard output is a line of JSON for each thing that happens: the kernel is ready, a
cell begins, the end. What anything else prints goes to standard error, which is the run's log.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from chartinsight_lib.processes import descendants, die_with_parent, kill

PRELOADED = (
    "pandas", "sqlalchemy", "psycopg2", "chartinsight_lib.collect", "chartinsight_lib.sources", "chartinsight_lib.radar",
    "chartinsight_lib.db.engine", "chartinsight_lib.logs",
)  # fmt: skip
"""What a kernel that waits has imported: what the notebooks of the jobs begin with."""
# Names that a line binds would be seen by the notebook; a comprehension binds none.
_PRELOAD = f"[__import__('importlib').import_module(name) for name in {PRELOADED!r}] and None"
_LOG = (
    "[logs.configure(settings.Settings.from_env(), job={job!r}) for settings in [__import__('importlib').import_module("
    "'chartinsight_lib.settings')] for logs in [__import__('importlib').import_module('chartinsight_lib.logs')]] and None"
)
_POLL_S = 0.01
_END_S = 0.4
"""So long a kernel has to end, half of it when asked and half when told."""
T = TypeVar("T")


class Kernel:
    """A kernel of this run alone, behind sockets that nobody else can reach."""

    def __init__(self, sockets: str) -> None:
        """Start it; it can be used after `connect`."""
        from jupyter_client.manager import AsyncKernelManager
        from jupyter_core.utils import ensure_event_loop

        # Other users of the machine could listen on TCP. A socket's path has at most 103 bytes on macOS, 107 on Linux.
        place = f"{sockets}/kernel"
        told: dict[str, Any] = {"transport": "ipc", "ip": place} if len(place) < 95 else {}
        self._loop = ensure_event_loop()  # the one that papermill's client works in
        self.manager = AsyncKernelManager(kernel_name="python3", connection_file=f"{sockets}/connection.json", **told)
        arm = die_with_parent(os.getpid(), signal.SIGKILL)
        self._wait(
            self.manager.start_kernel(
                extra_arguments=["--HistoryManager.enabled=False"],  # its file is the user's, and shared by all kernels
                **({"preexec_fn": arm} if arm else {}),
            )
        )
        self.pid = int(self.manager.provisioner.pid)  # type: ignore[union-attr]
        # Connected before it listens: one that connects later may miss its first words, and then waits for them.
        self.client: Any = self.manager.client()
        self.client.start_channels()
        self.client.allow_stdin = False

    def connect(self) -> None:
        """Wait until it answers; for how long, the parent decides. Raises RuntimeError when it died."""
        self._wait(self._ready())

    def tell(self, line: str) -> None:
        """Execute a line of ours, which does not count as a cell."""
        self._wait(self.client.execute_interactive(line, silent=True, store_history=False, output_hook=_to_log))

    def interrupt(self) -> None:
        """Let the running cell see KeyboardInterrupt."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGINT)  # it leads a group of its own

    def end(self) -> None:
        """Let it end by itself, and kill it if it does not at once: ipykernel often waits for its own output, and does not."""
        with suppress(Exception):  # whatever is left of it is the parent's to kill
            self._wait(self.manager.request_shutdown())
            self._wait(self.manager.finish_shutdown(waittime=_END_S, pollinterval=_POLL_S))
            self._wait(self.manager.cleanup_resources())

    async def _ready(self) -> None:
        """As the client's wait_for_ready, without its 0.2 s of listening to whether more is said."""
        from queue import Empty

        while True:
            asked = self.client.kernel_info()
            with suppress(Empty):
                while (await self.client.get_shell_msg(timeout=1.0))["parent_header"].get("msg_id") != asked:
                    pass
                # What a cell shows comes another way; that is there, too, when the end of our question came by it.
                while (said := await self.client.get_iopub_msg(timeout=0.5))["parent_header"].get(
                    "msg_id"
                ) != asked or said["content"].get("execution_state") != "idle":
                    pass
                return
            if not await self.manager.is_alive():
                raise RuntimeError("it died before it answered")

    def _wait(self, what: Awaitable[T]) -> T:
        return self._loop.run_until_complete(what)


class Reports:
    """Tells the parent what happens, a line each, by what was standard output."""

    def __init__(self) -> None:
        self._to_parent = os.fdopen(os.dup(1), "w", encoding="utf-8")  # not inherited by the kernel
        os.dup2(2, 1)

    def send(self, event: str, **what: Any) -> None:
        """Send one event. A parent that is gone has sent us SIGTERM."""
        with suppress(BrokenPipeError):
            self._to_parent.write(json.dumps({"event": event, **what}) + "\n")
            self._to_parent.flush()


def main() -> int:
    """Start a kernel and execute the ordered notebook with it."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reports = Reports()
    kernel = Kernel(sys.argv[1])
    signal.signal(signal.SIGINT, lambda *_: kernel.interrupt())
    from chartinsight_lib.running.papermill_engine import execute

    try:
        kernel.connect()
        if "--warm" in sys.argv:
            kernel.tell(_PRELOAD)
        reports.send("ready", kernel=kernel.pid)
        order = sys.stdin.readline()
        if not order:  # nobody needs us any more
            return 0
        told: dict[str, Any] = json.loads(order)
        kernel.tell(_LOG.format(job=told["job"]))
        outcome = execute(told, kernel.manager, kernel.client, lambda number: reports.send("cell", number=number))
    except RuntimeError as error:
        outcome = {"error": f"the kernel did not start: {error}", "error_class": "KernelNotStarted"}
    finally:
        kernel.end()
    reports.send("end", **outcome)
    return 0


def _to_log(message: dict[str, Any]) -> None:
    """Write to the run's log what a line of ours printed or raised."""
    content = message["content"]
    if said := content.get("text", "") or "\n".join(content.get("traceback", [])):
        logging.getLogger(__name__).warning(said)


def _end(_number: int, _frame: object) -> None:
    """Take the kernel along: left alone it would run on until it notices, which one busy in C code never does."""
    kill(descendants(os.getpid()))
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
