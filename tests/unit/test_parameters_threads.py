"""The parameters of notebooks, read in several threads at once, as a scheduler does."""

import ast
import gc
import json
import sys
import threading
from pathlib import Path

from chartinsight_lib.running.parameters import declared


def test_parameters_can_be_read_while_another_thread_is_in_the_midst_of_it(tmp_path: Path):
    names = [f"p{number}" for number in range(50)]
    cell = {"source": "".join(f"{name}: str = ''\n" for name in names), "metadata": {"tags": ["parameters"]}}
    notebook = tmp_path / "wide.ipynb"
    notebook.write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    other = threading.Thread(target=declared, args=(notebook,))

    def in_the_midst(phase: str, _: object) -> None:
        """CPython 3.11 collects garbage, and so lets others run, while it makes a tree."""
        if phase == "start" and other.ident is None and sys._getframe(1).f_code is ast.parse.__code__:
            other.start()
            other.join(0.5)

    usual = gc.get_threshold()
    gc.callbacks.append(in_the_midst)
    gc.set_threshold(10)
    try:
        found = declared(notebook)
    finally:
        gc.set_threshold(*usual)
        gc.callbacks.remove(in_the_midst)
        if other.ident is not None:
            other.join()
    assert found == dict.fromkeys(names, "str")
