"""Which source a spec means, and sources that other packages bring along."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chartinsight_lib.clients import open_source as open_bulk
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.settings import Settings
from chartinsight_lib.sources import broken_plugins, open_source, plugins

NOW = "2024-08-09T12:00+09:00"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, now=NOW, _env_file=None)


@pytest.mark.parametrize(
    ("spec", "market", "whole"),
    [
        ("yahoo:AAPL,MSFT", "US", False),
        ("yahoo:005930.KS, 035720.KQ", "KRX", False),
        ("krx", "KRX", True),
        ("krx:005930,0007C0", "KRX", False),
        ("sample", "US", False),
    ],
)
def test_a_spec_opens_its_source_and_asks_for_nothing(settings, spec, market, whole):
    source = open_source(spec, settings)
    assert (source.name, source.market, source.lists_whole_market) == (spec.partition(":")[0], market, whole)


def test_a_public_source_lives_in_the_time_of_the_settings(settings):
    # 12:00 in Seoul on Friday the 9th: the 8th has ended.
    source = open_source("krx", settings)
    assert source.provisional_from(datetime(2024, 8, 9, tzinfo=UTC).date()) == datetime(2024, 8, 9, tzinfo=UTC).date()


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("yahoo", {}, "'yahoo' is not known"),
        ("yahoo:", {}, "'yahoo:' is not known"),
        ("krx:", {}, "'krx:' is not known"),
        ("bloomberg", {}, "'bloomberg' is not known"),
        ("krx", {"market": "US"}, r"its own market \(KRX\)"),
        ("yahoo:AAPL", {"columns": {"close": "Last"}}, r"its own market \(US\) and columns"),
        ("yahoo:AAPL", {"codes": ["MSFT"]}, "names no ticker of MSFT, but of AAPL"),
        ("sample", {"codes": ["AAPL"]}, "single codes cannot be asked of it"),
        ("krx", {"codes": ["5930"]}, "'5930' is no code of KRX"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_anything_is_asked(settings, spec, options, words):
    with pytest.raises(ConfigError, match=words):
        open_source(spec, settings, **options)


def test_single_codes_can_be_asked_of_a_public_source(settings):
    assert not open_source("krx", settings, codes=["005930"]).lists_whole_market
    assert open_source("yahoo:005930.KS,000660.KS", settings, codes=["000660"]).market == "KRX"


def test_our_own_sources_need_no_settings():
    assert open_bulk("krx").market == "KRX"


PACKAGE = """
from chartinsight_lib.errors import ConfigError

class Source:
    raw, market, lists_whole_market = False, "KRX", False
    def __init__(self, rest, options): self.name, self.options = "mine " + rest, options
    def instruments(self): ...
    def provisional_from(self, today): ...
    def daily(self, held): ...

def open(rest, **options):
    if rest == "bad":
        raise ConfigError("mine: bad is bad")
    if rest == "crash":
        raise ZeroDivisionError("by zero")
    return object() if rest == "nothing" else Source(rest, options)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package of somebody else's: three sources, of which one cannot be loaded, and one has the name of ours."""
    (tmp_path / "somebodys.py").write_text(PACKAGE, encoding="utf-8")
    info = tmp_path / "somebodys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[chartinsight.sources]\nmine = somebodys:open\nbroken = somebodys_absent:open\nkrx = somebodys:open\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("somebodys", None)


def test_a_source_of_another_package_is_opened_by_its_name(installed, settings):
    source = open_source("mine:one,two", settings, codes=["005930"])
    assert source.name == "mine one,two"
    assert source.options["codes"] == ["005930"]
    assert source.options["clock"]() == datetime(2024, 8, 9, 3, tzinfo=UTC)
    assert open_source("mine", settings).name == "mine "


def test_a_broken_source_is_listed_and_harms_no_other(installed, settings):
    assert sorted(plugins()) == ["broken", "mine"]
    assert list(broken_plugins()) == ["broken"]
    assert "ModuleNotFoundError" in broken_plugins()["broken"]
    assert open_source("mine", settings).market == "KRX"
    with pytest.raises(ConfigError, match="somebodys_absent:open. fails with ModuleNotFoundError"):
        open_source("broken", settings)


def test_the_names_of_our_sources_are_ours(installed, settings):
    assert open_source("krx", settings).name == "krx"


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("bad", "bad is bad"),
        ("crash", "fails with ZeroDivisionError: by zero"),
        ("nothing", "is no source, it lacks name"),
    ],
)
def test_what_a_foreign_source_does_wrongly_is_a_named_error(installed, settings, rest, words):
    with pytest.raises(ConfigError, match=words):
        open_source(f"mine:{rest}", settings)
