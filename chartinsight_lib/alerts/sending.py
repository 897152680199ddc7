"""Letters out: each channel has its outcome, in a bounded time, whatever a channel does."""

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chartinsight_lib.alerts.channels import Channel
from chartinsight_lib.processes import stop_group

LIMIT_S = 20.0
"""So long a channel may take."""
START_S = 40.0
"""So long the process may take to start: apprise loads all of its services, a second and on a busy machine more."""
_SENDER = Path(__file__).with_name("sender.py")


@dataclass(frozen=True, slots=True)
class Letter:
    """What goes to a channel; `level`: info, success, warning or critical."""

    channel: Channel
    title: str
    body: str
    level: str


def send(letters: Iterable[Letter], *, limit_s: float = LIMIT_S) -> dict[str, str | None]:
    """Send letters, all at a time; return {channel: None where it went, else why not}, free of secrets.

    apprise works in a process of its own: there its logs and traces, which may quote addresses, end with it, what hangs is
    killed, and we import none of it. The addresses go by a pipe, where no list of processes shows them.
    """
    letters = list(letters)
    outcome: dict[str, str | None] = {
        letter.channel.name: f"there was no answer in {limit_s:.0f} s" for letter in letters
    }
    if not letters:
        return outcome
    asked = {
        "limit_s": limit_s,
        "letters": [
            {"channel": letter.channel.name, "url": letter.channel.url, "title": letter.title, "body": letter.body,
             "level": letter.level}
            for letter in letters
        ],
    }  # fmt: skip
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", str(_SENDER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return dict.fromkeys(outcome, f"the process that sends cannot be started ({error.strerror})")
    try:
        answers, _ = process.communicate(json.dumps(asked).encode(), timeout=limit_s + START_S)
    except subprocess.TimeoutExpired as late:
        answers = late.stdout or b""
    finally:
        if process.poll() is None:
            stop_group(process, patience_s=1.0)
    if process.returncode != 0 and not answers:
        return dict.fromkeys(outcome, f"the process that sends ended at once ({process.returncode})")
    for line in answers.splitlines():
        told = json.loads(line)
        outcome[told["channel"]] = told["error"]
    return outcome
