"""docs/truth.md names tests for each of the ten rules: they exist, and at least one of each rule is driven by hypothesis."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "truth.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| [^|]+ \| (.+) \|$", PAGE, re.M)


def every_test() -> dict[str, bool]:
    """Return {name of a test: whether hypothesis drives it}."""
    found: dict[str, bool] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name] = any("given" in ast.unparse(one) for one in node.decorator_list)
    return found


def test_there_is_a_row_for_each_of_the_ten_rules():
    assert [int(number) for number, _ in ROWS] == list(range(1, 11))


def test_every_test_that_the_truth_table_names_exists_and_is_named_in_bold_exactly_if_hypothesis_drives_it():
    existing = every_test()
    for number, names in ROWS:
        bold = set(re.findall(r"\*\*`(test_\w+)`\*\*", names))
        named = set(re.findall(r"`(test_\w+)`", names))
        assert named - existing.keys() == set(), number
        assert {name for name in named if existing[name]} == bold, number
        assert bold, number


@pytest.mark.parametrize("page", sorted((TESTS.parent / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page):
    assert set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))) - every_test().keys() == set()
