"""How a market stands: which jobs ran and run next, how old and how whole the data are, what is used of quota and disk; and, above
all, whether somebody should look: red, amber, green.

    with engine.connect() as conn:
        status = read_status(conn, settings, "KRX", read_list(settings.project))
    status.state, as_json(status), as_text(status)
"""

from chartinsight_lib.status.nouns import VERSION, Reason, Status, as_json, no_answer
from chartinsight_lib.status.read import Health, chosen_market, open_health, read_status
from chartinsight_lib.status.text import as_text

__all__ = [
    "VERSION", "Health", "Reason", "Status", "as_json", "as_text", "chosen_market", "no_answer", "open_health", "read_status",
]  # fmt: skip
