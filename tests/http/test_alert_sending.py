"""Notices go out through apprise to real services on this machine; what a channel does bounds nothing but itself."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from notice_sinks import mail_server, webhook

from chartinsight_lib.alerts.channels import Channel
from chartinsight_lib.alerts.sending import Letter, send
from chartinsight_lib.settings import PROJECT

CHARTINSIGHT = Path(sys.executable).with_name("chartinsight")
CANARY = "canary9f8e7d6c5b4a"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """Nobody's proxy stands between this machine and itself."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def letter(name: str, url: str, *, body: str = "what it is about", level: str = "warning") -> Letter:
    return Letter(Channel(name, url), "what happened", body, level)


def senders() -> list[psutil.Process]:
    """Those of this process: other tests may be sending at the same time."""
    own = psutil.Process().children(recursive=True)
    return [one for one in own if any("alerts/sender.py" in part for part in _line(one))]


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_each_channel_has_its_outcome_and_one_that_hangs_bounds_nobody_but_itself():
    with (
        webhook() as good,
        webhook(status=403) as refusing,
        webhook(hangs=True) as hanging,
        mail_server() as (port, mails),
    ):
        began = time.monotonic()
        outcome = send(
            [
                letter("good", good.url("in")),
                letter("refusing", refusing.url("in")),
                # apprise would wait for ten minutes.
                letter("hanging", f"{hanging.url('in')}?rto=600"),
                letter("absent", "json://127.0.0.1:1/in"),
                letter(
                    "mail",
                    f"mailto://me:{CANARY}@127.0.0.1:{port}?smtp=127.0.0.1&from=a@b.org&to=c@d.org&mode=insecure",
                ),
                letter("nonsense", f"json://:{CANARY}"),
                letter("unheard of", f"unheardof://{CANARY}/x"),
            ],
            limit_s=5,
        )
        took = time.monotonic() - began
    assert outcome == {
        "good": None,
        "refusing": "the service answered 403",
        "hanging": "there was no answer in 5 s",
        "absent": "the service could not be reached",
        "mail": None,
        "nonsense": "apprise does not understand the address",
        "unheard of": "apprise does not understand the address",
    }
    assert good.came == [
        {
            "version": "1.0",
            "title": "what happened",
            "message": "what it is about",
            "attachments": [],
            "type": "warning",
        }
    ]
    assert "Subject: what happened" in mails[0] and "To: c@d.org" in mails[0]
    assert len(hanging.came) == 1
    assert 5 <= took < 60
    assert senders() == []


def test_a_text_with_the_signs_of_other_formats_arrives_as_it_is():
    text = '005930 <b>삼성</b> & "co" {{x}} ${y} \\n %s *5* 71,400 ₩'
    with webhook() as sink:
        assert send([letter("one", sink.url(), body=text)]) == {"one": None}
    assert sink.came[0]["message"] == text


def test_a_sender_that_cannot_start_is_an_outcome(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert send([letter("one", "json://127.0.0.1:1/")]) == {"one": "the process that sends ended at once (1)"}


def test_a_sender_that_is_not_there_is_an_outcome_too(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/absent")
    assert send([letter("one", "json://127.0.0.1:1/")]) == {
        "one": "the process that sends cannot be started (No such file or directory)"
    }


def test_no_secret_of_an_address_is_in_a_log_or_an_outcome(caplog):
    caplog.set_level(1, logger="")
    logging.getLogger().setLevel(1)
    with webhook(status=500) as sink:
        outcome = send(
            [
                letter("one", sink.url(f"{CANARY}/x?-token={CANARY}", login=f"me:{CANARY}@")),
                letter("two", f"tgram://123456789:{CANARY}{CANARY}/1{CANARY}?cto=0.1&rto=0.1"),
            ]
        )
        assert CANARY in sink.paths[0], "it did go there"
    assert outcome["one"] == "the service answered 500"
    assert CANARY not in f"{outcome} {caplog.text}"


def run(*arguments: str, urls: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CHARTINSIGHT_ALERT_URLS": urls, "CHARTINSIGHT_HOME": str(home)}
    return subprocess.run(
        [CHARTINSIGHT, "alerts", *arguments], env=environment, cwd=PROJECT, capture_output=True, text=True, check=False
    )


def test_the_test_command_says_per_channel_whether_it_went_and_ends_with_1_if_one_did_not(tmp_path):
    with webhook() as good, webhook(status=404) as bad:
        both = run("test", urls=f"{good.url(CANARY)} {bad.url(CANARY)}", home=tmp_path)
        one = run("test", urls=good.url(CANARY), home=tmp_path)
    lines = both.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["sent", "NOT"]
    assert lines[1].endswith("the service answered 404")
    assert both.stderr == "chartinsight: alerts: 1 of 2 channels failed; see above.\n"
    assert (both.returncode, one.returncode) == (1, 0)
    assert good.titles == ["ChartInsight Studio: a test notice"] * 2
    assert CANARY not in both.stdout + both.stderr
    assert list(tmp_path.iterdir()) == [], "it needs no database"


def test_without_a_channel_the_test_command_says_how_to_give_one(tmp_path):
    ended = run("test", urls=f"@{tmp_path}/absent", home=tmp_path)
    assert ended.returncode == 2
    assert f"{tmp_path}/absent, which CHARTINSIGHT_ALERT_URLS names, cannot be read" in ended.stderr
