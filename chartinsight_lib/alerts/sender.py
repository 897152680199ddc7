"""The process that sends notices, alone: run as a file, it imports nothing of this project.

It reads `{"limit_s": …, "letters": [{"channel", "url", "title", "body", "level"}, …]}` from its standard input and writes a line
`{"channel": …, "error": null or why not}` for each letter that was sent or refused. apprise and what it uses write addresses
into logs and traces; whoever starts this process throws its standard error away. A channel that hangs ends with the process.
"""

import json
import logging
import os
import re
import sys
import threading
import time
from typing import Any

_STATUS = re.compile(r"\berror=(\d{3})\b")
_UNREACHED = re.compile(r"(?i)connection error|timed? ?out|socket")


class _Reasons(logging.Handler):
    """Keeps why a letter was refused, of the thread that sent it: a server's status or a word of ours, never apprise's text."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.of: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if found := _STATUS.search(text):
            self.of[threading.get_ident()] = f"the service answered {found[1]}"
        elif _UNREACHED.search(text):
            self.of[threading.get_ident()] = "the service could not be reached"


def main() -> None:
    """Send the letters, all at a time; end when the last is sent or the time is over, whichever comes first."""
    asked = json.load(sys.stdin)
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a plugin prints is no answer

    import apprise

    asset = apprise.AppriseAsset(app_id="ChartInsight Studio", storage_mode=apprise.PersistentStoreMode.MEMORY)
    reasons = _Reasons()
    logging.getLogger("apprise").addHandler(reasons)
    kinds = {
        "info": apprise.NotifyType.INFO,
        "success": apprise.NotifyType.SUCCESS,
        "warning": apprise.NotifyType.WARNING,
        "critical": apprise.NotifyType.FAILURE,
    }

    def answer(channel: str, error: str | None) -> None:
        os.write(answers, (json.dumps({"channel": channel, "error": error}) + "\n").encode())

    def send(letter: dict[str, Any]) -> None:
        try:
            # One that apprise cannot use is none, and it says so in its log.
            service = apprise.Apprise.instantiate(letter["url"], asset=asset)
            if service is None:
                answer(letter["channel"], "apprise does not understand the address")
                return
            went = service.notify(
                title=letter["title"], body=letter["body"], notify_type=kinds[letter["level"]], body_format="text"
            )
        except Exception as error:
            answer(letter["channel"], f"apprise failed ({type(error).__name__})")  # its message may quote the address
            return
        answer(letter["channel"], None if went else reasons.of.get(threading.get_ident(), "the service refused it"))

    apprise.Apprise.instantiate(
        "json://localhost", asset=asset
    )  # loads the services, which threads had better not do at once
    until = time.monotonic() + asked["limit_s"]
    threads = [threading.Thread(target=send, args=(letter,), daemon=True) for letter in asked["letters"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    os._exit(0)  # whatever still hangs


if __name__ == "__main__":
    main()
