"""The process that executes one notebook for `runner`: reads its order from standard input, leaves its outcome in a file."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from chartinsight_lib.processes import descendants, kill

START_TIMEOUT_S = 180


def main() -> int:
    """Execute the ordered notebook; write {"error": text or null} to the ordered result file."""
    signal.signal(signal.SIGTERM, _end)
    order: dict[str, Any] = json.load(sys.stdin)
    Path(order["result"]).write_text(json.dumps({"error": execute(order)}), encoding="utf-8")
    return 0


def execute(order: dict[str, Any]) -> str | None:
    """Run papermill; return what went wrong, with the cell, or None."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    # Other users of the machine could listen on TCP. A socket's path has at most 103 bytes on macOS, 107 on Linux.
    place = f"{order['sockets']}/kernel"
    manager = {"transport": "ipc", "ip": place} if len(place) < 95 else {}
    try:
        papermill.execute_notebook(
            order["notebook"],
            order["output"],
            parameters=order["parameters"],
            cwd=order["cwd"],
            kernel_name="python3",
            progress_bar=False,
            log_output=False,
            start_timeout=START_TIMEOUT_S,
            execution_timeout=order["timeout_s"],
            config=Config({"KernelManager": manager}),
        )
    except PapermillExecutionError as error:
        return f"cell {error.exec_count}: {error.ename}: {error.evalue}"
    except Exception as error:  # the edge: whatever papermill raises becomes the run's recorded error
        return f"{type(error).__name__}: {error}"
    return None


def _end(_number: int, _frame: object) -> None:
    """Take the kernel along: left alone it would run on until it notices, which one busy in C code never does."""
    kill(descendants(os.getpid()))
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
