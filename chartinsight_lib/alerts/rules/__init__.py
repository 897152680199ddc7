"""What of the market a person wants to be told: rules in `radar.alert_rules`, each of a kind.

A rule speaks when what it watches changes, and not while it stays: what it saw last is its `state`. `KINDS` is the list of
kinds; another one, as a pattern that is triggered, is a class with the two methods of `Watch` and a place in it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, text

from chartinsight_lib.alerts.alert import Alert, Level
from chartinsight_lib.alerts.rules.price import PriceWatch
from chartinsight_lib.alerts.rules.screen import ScreenWatch
from chartinsight_lib.alerts.rules.trend import TrendWatch
from chartinsight_lib.alerts.rules.watch import Rule, Watch
from chartinsight_lib.errors import ConfigError, NotFound

__all__ = ["BROKEN", "KINDS", "Listed", "add", "evaluate", "listed", "remove"]

KINDS: Mapping[str, type[Watch]] = {"price": PriceWatch, "trend": TrendWatch, "screen": ScreenWatch}
BROKEN = "rule"
"""The kind of alert that says that a stored rule cannot be read."""
_NAME = re.compile(r"[\w.-]{1,60}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A rule for people: its kind, what it watches in words, and since when."""

    name: str
    market: str
    kind: str
    code: str | None
    level: str
    says: str
    created_at: datetime


def add(
    conn: Connection,
    kind: str,
    name: str,
    *,
    market: str,
    code: str | None,
    parameters: Mapping[str, Any],
    level: Level,
    now: datetime,
) -> Listed:
    """Store a rule that speaks of what changes from now on.

    Args:
        parameters: those of the kind, see its class.
    Raises:
        ConfigError: the name is taken or no name, or the parameters are not those of the kind.
        NotFound: the market has no such instrument.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"alerts: {name!r} is no name of a rule. Use letters, digits, _ . and -, up to 60 of them.")
    if (
        code is not None
        and not conn.execute(
            text("SELECT EXISTS (SELECT FROM live.instruments WHERE market = :market AND code = :code)"),
            {"market": market, "code": code},
        ).scalar_one()
    ):
        raise NotFound(f"alerts: {market} has no instrument {code}. `api.radar` lists them.")
    watch = _watch(kind, name, parameters)
    watch = watch.prepared(conn, market, code, now)
    number = conn.execute(
        text("""
            INSERT INTO radar.alert_rules (market, name, kind, code, parameters, level, created_at)
            VALUES (:market, :name, :kind, :code, :parameters, :level, :now)
            ON CONFLICT (market, name) DO NOTHING RETURNING id
        """),
        {
            "market": market,
            "name": name,
            "kind": kind,
            "code": code,
            "parameters": watch.model_dump_json(),
            "level": level.value,
            "now": now,
        },
    ).scalar_one_or_none()
    if number is None:
        raise ConfigError(f"alerts: {market} has a rule {name} already. Remove that first, or choose another name.")
    _, state = watch.look(conn, Rule(number, market, name, code, level), {}, now)
    _keep(conn, number, state)
    return Listed(name, market, kind, code, level.value, watch.says(code), now)


def remove(conn: Connection, name: str, *, market: str) -> None:
    """Forget a rule; what it told stays in the history. Raises NotFound, naming those there are."""
    gone = conn.execute(
        text("DELETE FROM radar.alert_rules WHERE market = :market AND name = :name RETURNING id"),
        {"market": market, "name": name},
    ).scalar_one_or_none()
    if gone is None:
        known = ", ".join(rule.name for rule in listed(conn) if rule.market == market)
        raise NotFound(f"alerts: {market} has no rule {name}. It has {known or 'none'}.")


def listed(conn: Connection) -> list[Listed]:
    """Return all rules, by market and name."""
    rows = conn.execute(text("SELECT * FROM radar.alert_rules ORDER BY market, name"))
    return [
        Listed(row.name, row.market, row.kind, row.code, row.level, _said(row), row.created_at) for row in rows.all()
    ]


def evaluate(conn: Connection, market: str, now: datetime) -> list[Alert]:
    """Return what the enabled rules of a market see that they did not see before, and keep what they saw.

    A rule that cannot be read any more is an alert of kind `rule`; the others are looked at all the same.
    """
    rows = conn.execute(
        text("SELECT * FROM radar.alert_rules WHERE market = :market AND enabled ORDER BY id FOR UPDATE"),
        {"market": market},
    ).all()
    found: list[Alert] = []
    for row in rows:
        rule = Rule(row.id, row.market, row.name, row.code, Level(row.level))
        try:
            watch = _watch(row.kind, row.name, row.parameters)
        except ConfigError as error:
            subject, key = f"The rule {row.name} is broken", f"{BROKEN}:{row.name}:broken"
            found.append(Alert(BROKEN, key, Level.WARNING, subject, str(error), market, now))
            continue
        seen, state = watch.look(conn, rule, row.state, now)
        found += seen
        if state != row.state:
            _keep(conn, row.id, state)
    return found


def _watch(kind: str, name: str, parameters: Mapping[str, Any]) -> Watch:
    if kind not in KINDS:
        raise ConfigError(f"alerts: rule {name}: there is no kind {kind!r}. Known are {', '.join(KINDS)}.")
    try:
        return KINDS[kind].model_validate(dict(parameters))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or kind
        raise ConfigError(
            f"alerts: rule {name}: {where}: {first['msg'].removeprefix('Value error, ').rstrip('.')}; "
            f"found {first['input']!r}."
        ) from None


def _keep(conn: Connection, number: int, state: Mapping[str, Any]) -> None:
    conn.execute(
        text("UPDATE radar.alert_rules SET state = :state WHERE id = :id"),
        {"state": json.dumps(dict(state)), "id": number},
    )


def _said(row: Row[Any]) -> str:
    try:
        return _watch(row.kind, row.name, row.parameters).says(row.code)
    except ConfigError as error:
        return str(error)
