"""Whether somebody looks at a page: then it is read again, and not while nobody does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget


class Look(anywidget.AnyWidget):
    """Calls `call` when a page that holds it opens, and every ten seconds while one is looked at. It has no face."""

    _esm = Path(__file__).parent / "look.js"

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self._call = call
        self.on_msg(self._hear)

    def _hear(self, _: Any, content: Any, __: Any) -> None:
        if isinstance(content, dict) and content.get("kind") == "look":
            self._call()
