"""`chartinsight simulate` and `chartinsight doctor`, as a person runs them; and which source a person means."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import keyring
import pandas as pd
import pytest
from handmade import HandmadeMarket, at
from keyring.backend import KeyringBackend
from pydantic import SecretStr

from chartinsight_lib import doctor
from chartinsight_lib.clock import file_clock
from chartinsight_lib.db.embedded import free_port
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.keys import KEYRING
from chartinsight_lib.settings import PROJECT, Settings
from chartinsight_lib.simulation import simulated_market
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.server import SimulatorServer
from chartinsight_lib.sources import credentials, live_market, open_source

CHARTINSIGHT = Path(sys.executable).with_name("chartinsight")
NOW = at(datetime(2026, 9, 18).date(), 21)  # noqa: DTZ001


class NoKeyring(KeyringBackend):
    """A machine's keyring with nothing in it."""

    priority = -1  # type: ignore[assignment]  # a class that is only defined is a candidate of every keyring

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


@pytest.fixture
def ring() -> Iterator[NoKeyring]:
    before, ring = keyring.get_keyring(), NoKeyring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


@pytest.fixture
def simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Runs the command and returns its address once it serves."""
    monkeypatch.setenv("CHARTINSIGHT_HOME", str(tmp_path / "home"))
    running: list[subprocess.Popen[str]] = []

    def start(*options: str, **environment: str) -> str:
        command = [CHARTINSIGHT, "simulate", f"--port={free_port()}", *options]
        process = subprocess.Popen(
            command,
            env=os.environ | environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"simulated Kiwoom: (http://127\.0\.0\.1:\d+)", first)
        assert found, first + process.stdout.read()
        return found[1]

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 130


def told(url: str, **more: Any) -> Settings:
    keys = {"kiwoom_appkey": SecretStr("simulated-appkey"), "kiwoom_secretkey": SecretStr("simulated-secretkey")}
    return Settings(**({"kiwoom_url": url, "now": NOW.isoformat(), "_env_file": None} | keys | more))


def test_a_market_from_a_seed_is_served_until_a_signal_comes(simulate, tmp_path):
    log = tmp_path / "requests.jsonl"
    url = simulate("--instruments=12", "--speed=0", f"--log={log}", f"--clock-file={tmp_path / 'clock'}")
    state = httpx.get(f"{url}/_simulator").json()
    assert (state["label"], state["now"], state["profile"]) == ("seed 7", "2026-10-13T10:00:00+09:00", "real")
    with pytest.raises(
        ConfigError, match=r"it is 2026-10-13 10:00 at .*, and 2026-09-18 21:00 here. Set CHARTINSIGHT_NOW=@FILE"
    ):
        open_source("simulated", told(url))
    listed = open_source("simulated", told(url, now=f"@{tmp_path / 'clock'}")).instruments()
    assert set(listed["market"]) == {"SIM"}
    assert [json.loads(line)["api_id"] for line in log.read_text().splitlines()] == ["au10001", "ka10099", "ka10099"]


def test_recorded_candles_are_replayed(simulate, tmp_path):
    days = pd.bdate_range("2024-07-22", periods=8)
    bars = pd.DataFrame({"date": days, "open": 100, "high": 110, "low": 90, "close": 105, "volume": range(1, 9)})
    bars.to_csv(tmp_path / "123450.csv", index=False)
    url = simulate(f"--replay={tmp_path / '123450.csv'}", "--speed=0", "--profile=mock")
    assert httpx.get(f"{url}/_simulator").json()["now"] == "2024-07-31T20:30:00+09:00"  # the evening of the last day
    client = open_source("simulated", told(url, now="2024-07-31T20:30+09:00"))._client
    rows = list(client.daily_candles("123450", since=days[0].date(), until=days[-1].date()))
    assert [row["trde_qty"] for row in rows] == ["7", "6", "5", "4", "3", "2", "1"]  # mock trading lags by a day


def test_the_clock_is_kept_in_a_file_and_gone_on_with(simulate, tmp_path):
    file = tmp_path / "clock"
    options = ("--instruments=12", f"--clock-file={file}", "--resume")
    url = simulate(*options, "--start=2026-10-13T09:00+09:00", "--speed=100")
    seen = file_clock(file)()
    assert seen >= datetime.fromisoformat("2026-10-13T09:00+09:00")
    assert (
        abs((datetime.fromisoformat(httpx.get(f"{url}/_simulator").json()["now"]) - file_clock(file)()).total_seconds())
        < 100
    )
    again = simulate(*options, "--start=2026-10-13T09:00+09:00", "--speed=0")
    assert datetime.fromisoformat(httpx.get(f"{again}/_simulator").json()["now"]) > seen


def test_keys_of_the_settings_open_it(simulate):
    url = simulate("--instruments=12", CHARTINSIGHT_KIWOOM_APPKEY="mine", CHARTINSIGHT_KIWOOM_SECRETKEY="mine too")
    body = {"grant_type": "client_credentials", "appkey": "mine", "secretkey": "mine too"}
    assert httpx.post(f"{url}/oauth2/token", json=body).json()["return_code"] == 0
    assert httpx.post(f"{url}/oauth2/token", json=body | {"appkey": "simulated-appkey"}).json()["return_code"] == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--instruments", "3"], "Expected a seed of 0 or more, and 12 to 5000 instruments"),
        (["--start", "2040-01-02T09:00+09:00"], "it cannot start on 2040-01-02; seed 7 reaches from"),
        (["--start", "2026-10-13T09:00"], "has no time zone"),
        (["--replay", "/nowhere/at.all"], "no such file"),
        (["--speed", "-1"], "the clock's speed is -1"),
    ],
)
def test_what_cannot_be_simulated_is_said(options, says):
    done = subprocess.run([CHARTINSIGHT, "simulate", *options], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


# Which source is meant.


def test_what_does_not_come_from_kiwooms_hosts_is_simulated_whatever_it_is_called():
    for host in ("https://api.kiwoom.com", "https://mockapi.kiwoom.com"):
        assert live_market("kiwoom", told(host)) == "KRX"
    for host in ("http://127.0.0.1:8899", "https://kiwoom.com.example.org", "https://fake-kiwoom.com"):
        assert live_market("kiwoom", told(host)) == live_market("simulated", told(host)) == "SIM"
    assert open_source("kiwoom", told("https://api.kiwoom.com")).name == "kiwoom"


@pytest.mark.parametrize(
    ("spec", "settings", "says"),
    [
        ("simulated", {"url": "https://api.kiwoom.com"}, "no simulator is named. `./studio up` starts one of its own"),
        ("simulated", {"url": "http://127.0.0.1:9"}, "no simulator answers at http://127.0.0.1:9"),
        ("kiwoom", {"url": "https://api.kiwoom.com", "kiwoom_appkey": SecretStr("two words")}, "appkey holds a space"),
    ],
)
def test_a_source_that_cannot_be_opened_says_what_to_do(spec, settings, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        open_source(spec, told(**settings))


def test_a_live_source_has_its_own_market_and_a_file_has_no_single_codes():
    with pytest.raises(ConfigError, match=r"it has its own market \(KRX\)"):
        open_source("kiwoom", told("https://api.kiwoom.com"), market="US")
    with pytest.raises(ConfigError, match="single codes cannot be asked of it"):
        open_source("sample", told("https://api.kiwoom.com"), codes=["005930"])


def test_keys_come_from_the_settings_else_from_the_keyring(ring):
    ring.set_password(KEYRING, "kiwoom_appkey", "ringed")
    ring.set_password(KEYRING, "kiwoom_secretkey", "ringed too")
    with pytest.raises(ConfigError, match="secretkey holds a space"):
        credentials(Settings(_env_file=None))
    ring.set_password(KEYRING, "kiwoom_secretkey", "ringed-too")
    assert credentials(Settings(_env_file=None)).appkey == "ringed"
    assert credentials(told("https://api.kiwoom.com")).appkey == "simulated-appkey"


def test_a_missing_key_says_how_to_set_it(ring):
    with pytest.raises(ConfigError, match="the appkey is missing.*keyring set chartinsight kiwoom_appkey"):
        credentials(Settings(_env_file=None))


# The market that `up` brings along.


def test_up_brings_a_simulator_along_that_ends_with_it_and_goes_on_where_it_stood(empty_home):
    def state(settings: Settings) -> datetime:
        return datetime.fromisoformat(httpx.get(f"{settings.kiwoom_url}/_simulator").json()["now"])

    with simulated_market(Settings(home=empty_home, project=PROJECT, _env_file=None)) as own:
        first, url = state(own), own.kiwoom_url
        assert live_market("simulated", own) == "SIM"
        # Sixty times as fast as time, quota included.
        assert (own.kiwoom_rate, own.clock().year) == (300, 2026)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/_simulator")
    with simulated_market(Settings(home=empty_home, project=PROJECT, _env_file=None)) as own:
        assert state(own) > first


# The doctor.


@pytest.fixture
def server() -> Iterator[Callable[..., str]]:
    opened: list[SimulatorServer] = []

    def start(**options: Any) -> str:
        server = SimulatorServer(HandmadeMarket(), SimulatedClock(NOW, speed=0), Options(**options))
        opened.append(server.__enter__())
        return server.url

    yield start
    for one in opened:
        one.close()


def findings(settings: Settings) -> list[tuple[str, bool, str]]:
    return [(found.what, found.good, found.says) for found in doctor.examine(settings)]


def test_a_healthy_machine_is_told_so(server, database, settings, loader):
    own = told(server(), home=settings.home)
    found = findings(own)
    assert [(what, good) for what, good, _ in found] == [
        ("database", True), ("host", True), ("keys", True), ("token", True), ("data", True)
    ]  # fmt: skip
    assert "counts as simulated" in found[1][2]
    assert "good until 2026-09-19 21:00 KST" in found[3][2]
    assert found[4][2] == "5 instruments are listed on KOSPI"


@pytest.mark.parametrize("away", ["2026-09-16T21:00+09:00", "2026-09-21T21:00+09:00"])
def test_clocks_that_differ_by_days_are_a_finding(server, settings, database, loader, away):
    found = {what: (good, says) for what, good, says in findings(told(server(), home=settings.home, now=away))}
    good, says = found["token"]
    assert not good and "one of the two clocks is wrong" in says and "CHARTINSIGHT_NOW=@FILE" in says


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keys": {"simulated-appkey": "another"}}, "8001"),
        ({"foreign_keys": frozenset({"simulated-appkey"})}, "8030"),
        ({"unknown_ips": frozenset({"127.0.0.1"})}, "8050"),
    ],
)
def test_wrong_keys_and_unregistered_machines_are_told_apart(server, settings, database, loader, options, says):
    found = findings(told(server(**options), home=settings.home))
    assert found[-1][:2] == ("kiwoom", False)
    assert says in found[-1][2]


def test_a_missing_key_is_a_finding(settings, database, ring):
    found = findings(Settings(home=settings.home, _env_file=None))
    assert found[-1][:2] == ("keys", False)
    assert "the appkey is missing" in found[-1][2]
