"""docs/kiwoom.md names a test for each row of the specification: each of them exists, and no section is left out."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "kiwoom.md").read_text(encoding="utf-8").partition("## Conformance")[2]
EXISTING = {
    name for path in TESTS.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.M)
}


def test_every_test_that_the_conformance_table_names_exists():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 100
    assert named - EXISTING == set()


def test_every_section_quirk_and_behaviour_of_the_specification_has_a_row_with_a_test():
    sections = dict(re.findall(r"^### (\d) [^\n]*\n(.*?)(?=^### |\Z)", PAGE, re.M | re.S))
    assert list(sections) == [str(number) for number in range(2, 10)]
    quirks = re.findall(r"^\| ([\d, ]+?) \| [CS] \| `test_", sections["8"], re.M)
    assert [int(number) for row in quirks for number in row.split(",")] == list(range(1, 21))
    assert re.findall(r"^\| (S\d+) \| `test_", sections["9"], re.M) == [f"S{number}" for number in range(1, 19)]
    rows = re.findall(r"^\|(?!---| Rule | # )(.*)\|$", PAGE, re.M)
    assert [row for row in rows if "`test_" not in row and "see S16" not in row] == []
