"""What papermill is given of ours: a kernel that runs already, a file that is always whole, a bound on what a cell may show."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import papermill
from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import LocalHandler, papermill_io

MOST_SHOWN = 10_000_000
"""So many characters a cell may show; what is beyond them is left out of the executed copy, and said to be."""
IOPUB_TIMEOUT_S = 60
"""What a cell showed may arrive so long after it has ended. The default of 4 s fails runs that show much on a busy machine."""
_NAME = "chartinsight"


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    """Executes cells on a client that is connected already, and says which cell begins."""

    def __init__(self, nb_man: Any, *, kc: Any, on_cell: Callable[[int], None], **options: Any) -> None:
        super().__init__(nb_man, **options)
        self.kc = kc
        self._on_cell, self._shown = on_cell, 0
        self.on_cell_execute = self._begin

    def _begin(self, cell: NotebookNode, cell_index: int) -> None:
        self._shown = 0
        self._on_cell(self.code_cells_executed + 1)

    def output(
        self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int
    ) -> NotebookNode | None:
        """See NotebookClient; what is too much is counted and left out."""
        if msg["msg_type"] != "error":
            before, self._shown = self._shown, self._shown + _length(msg["content"])
            if self._shown > MOST_SHOWN:
                if before <= MOST_SHOWN:
                    note = f"[the rest is left out: a cell may show {MOST_SHOWN:,} characters]\n"
                    outs.append(new_output("stream", name="stderr", text=note))  # type: ignore[no-untyped-call]
                return None
        return cast("NotebookNode | None", super().output(outs, msg, display_id, cell_index))


class _Engine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine over such a client."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: Any) -> Any:
        """See NBClientEngine. There are no time limits here: the parent keeps them, which cannot hang as we can."""
        _Client(
            nb_man, kernel_name=kernel_name, km=options["km"], kc=options["kc"], on_cell=options["on_cell"],
            iopub_timeout=IOPUB_TIMEOUT_S, coalesce_streams=True, log=papermill.log.logger,
        ).execute()  # fmt: skip


class _Whole(LocalHandler):  # type: ignore[misc]
    """Replaces a file at once: whoever reads it, or finds it after a kill, has a whole notebook.

    It is not forced to the disk here, some twenty times a run: after a power cut there is no run of which it would be the copy.
    """

    def write(self, buf: str, path: str) -> None:
        """See LocalHandler."""
        part = Path(f"{path}.tmp")
        part.write_text(buf, encoding="utf-8")
        part.replace(path)


def execute(order: Mapping[str, Any], manager: Any, client: Any, on_cell: Callable[[int], None]) -> dict[str, Any]:
    """Run papermill on a connected kernel; return what went wrong (error, error_class, cell), all of it None for nothing."""
    papermill_engines.register(_NAME, _Engine)
    papermill_io.register("/", _Whole())
    reached: list[int] = []

    def begin(number: int) -> None:
        reached.append(number)
        on_cell(number)

    try:
        papermill.execute_notebook(
            _literally(order["notebook"]), _literally(order["output"]), parameters=order["parameters"], kernel_name="python3",
            engine_name=_NAME, progress_bar=False, km=manager, kc=client, on_cell=begin,
        )  # fmt: skip
    except PapermillExecutionError as error:
        return {"error": f"{error.ename}: {error.evalue}", "error_class": error.ename, "cell": error.exec_count}
    except Exception as error:  # the edge: whatever it is becomes the run's error
        cell = reached[-1] if reached else None
        return {"error": f"{type(error).__name__}: {error}", "error_class": type(error).__name__, "cell": cell}
    return {"error": None, "error_class": None, "cell": None}


def _literally(path: str) -> str:
    """papermill fills parameters into paths as `str.format` does, which reads attributes and may lead anywhere."""
    return path.replace("{", "{{").replace("}", "}}")


def _length(content: Mapping[str, Any]) -> int:
    shown = content.get("data") or {}
    return len(content.get("text", "")) + sum(len(value) for value in shown.values() if isinstance(value, str))
