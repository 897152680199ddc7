"""Voila behind a token, for the notebooks that are named, in a process of its own; `dashboard.start_dashboard` starts it.

It reads one line of JSON from its standard input: notebook, pages, host, port, token, preheat. The end of that input is the
end of whoever started it, and the server ends too.
"""

import json
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from chartinsight_lib import errors
from chartinsight_lib.dashboard import GRACE_S, HOST
from chartinsight_lib.processes import descendants, kill

KERNELS = 12
"""At most so many kernels: each visitor costs one, of about 150 MB."""
CULL_IDLE_S, CULL_EVERY_S = 300, 30
"""A kernel without a page is ended after five minutes. One with an open page never is: its websocket counts as use."""


def serve(settings: Mapping[str, Any]) -> None:
    """Run Voila in this process until it is told to stop."""
    from jupyter_server.log import log_request
    from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
    from tornado.web import HTTPError
    from traitlets.config import Config
    from voila.app import Voila  # type: ignore[import-untyped]
    from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler  # type: ignore[import-untyped]
    from voila.tornado.handler import TornadoVoilaHandler  # type: ignore[import-untyped]

    class Kernels(AsyncMappingKernelManager):
        """Refuses a visitor rather than take the machine down."""

        async def start_kernel(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            if len(self) >= KERNELS:
                raise HTTPError(503, f"{KERNELS} pages are open. Close one and try again in {CULL_EVERY_S} s.")
            # What a page logs comes out with the server's own messages, and not nowhere.
            return await super().start_kernel(*args, extra_arguments=["--IPKernelApp.quiet=False"], **kwargs)

    class Pages(Voila):  # type: ignore[misc]
        """Serves further notebooks beside the one at the root, each at its own address, and lists none."""

        def init_handlers(self) -> list[Any]:
            *others, root = super().init_handlers()  # the last takes every path that is left, and serves one notebook
            pages = [
                (
                    f"{self.server_url.rstrip('/')}/{re.escape(name)}",
                    TornadoVoilaHandler,
                    {**root[2], "notebook_path": notebook},
                )
                for name, notebook in settings["pages"].items()
            ]
            return [*others, *pages, root]

    # A page that closes tells the server to end its kernel, by a beacon that cannot carry the XSRF token; refused, each
    # reload would leave a kernel behind. What protects the call is the kernel's id, which the page alone knows.
    VoilaShutdownKernelHandler.check_xsrf_cookie = lambda _: None

    config = Config()
    config.Voila = Config(
        {
            "ip": settings["host"],
            "port": settings["port"],
            "port_retries": 0,  # another port than the one asked for would be found by nobody
            "open_browser": False,
            "token": settings["token"],
            # Only the names of this machine: a page elsewhere cannot reach us by a name of its own (DNS rebinding).
            "tornado_settings": {
                "allow_remote_access": False,
                "headers": {"Content-Security-Policy": _policy()},
                # Jupyter's own writes addresses without the token that may be in them; tornado's does not.
                "log_function": lambda handler: log_request(handler, record_prometheus_metrics=False),  # type: ignore[no-untyped-call]
            },
        }
    )
    config.VoilaConfiguration = Config(
        {
            "template": "chartinsight",
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "show_tracebacks": False,
            "strip_sources": True,
            "preheat_kernel": settings["preheat"],
            "default_pool_size": 1,
            "multi_kernel_manager_class": Kernels,
            # Only what the page is made of: every further extension is more script before the first paint.
            "extension_allowlist": [
                "@voila-dashboards/widgets-manager8",
                "@jupyter-widgets/jupyterlab-manager",
                "anywidget",
            ],
        }
    )
    config.MappingKernelManager = Config(
        {
            "cull_idle_timeout": CULL_IDLE_S,
            "cull_interval": CULL_EVERY_S,
            "cull_connected": False,
            "cull_busy": False,
        }
    )
    if sys.platform == "linux":  # other users of the machine could listen on TCP; macOS has too short socket paths
        config.KernelManager = Config({"transport": "ipc"})
    # No voila.json of the user's may widen this.
    app = Pages(config=config, config_file_paths=[])
    app.initialize([settings["notebook"]])
    _explain_errors()
    app.start()


def _explain_errors() -> None:
    """Have the errors of a cell written to the log, and the page say what a visitor can use.

    Voila with tracebacks off drops them without a trace, and tells the visitor to change Voila's options.
    """
    from voila.execute import VoilaExecutor  # type: ignore[import-untyped]

    own = {name for name, kind in vars(errors).items() if isinstance(kind, type)}

    def explain(executor: Any, cell: Any) -> Any:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                executor.log.error(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"])))
                said = (
                    output["evalue"]
                    if output["ename"] in own
                    else f"{output['ename']}; the log of the server says more."
                )
                output["traceback"] = [f"The page could not be made. {said}"]
                output["ename"], output["evalue"] = "Error", ""
        return cell

    VoilaExecutor.strip_code_cell_errors = explain


def _policy() -> str:
    """Return what the page may load: from this server only. Widgets come as blobs, and Jupyter evaluates templates."""
    return (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
        f"connect-src 'self' ws://{HOST}:* ws://localhost:* blob: data:; frame-ancestors 'self'; form-action 'self'"
    )


def _end_with(starter: int) -> None:
    """Wait until our starter is gone, then end this server and its kernels."""
    if os.name == "nt":
        sys.stdin.buffer.read()
    else:
        # The end of the pipe says it at once; the parent's id also where a fork of the starter holds the pipe open.
        while os.getppid() == starter:
            if select.select([0], [], [], 1.0)[0] and not os.read(0, 4096):
                break
    family = descendants(os.getpid())
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    kill(family)
    os._exit(1)


def main() -> None:
    """Read the settings from the pipe, watch it, and serve."""
    starter = os.getppid()
    # Unbuffered: what follows the first line belongs to the watcher.
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(0, 1)):
            return
        line += byte
    threading.Thread(target=_end_with, args=(starter,), daemon=True, name="starter-watch").start()
    serve(json.loads(line))


if __name__ == "__main__":
    main()
