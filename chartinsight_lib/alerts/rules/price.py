"""A price that crosses a level: it was on the other side at the look before.

The level is a price of the day on which it was set. When a corporate action changes the basis of prices, it goes along: a bar is
compared with the level on the bar's own basis, so that a split moves both, and nothing is crossed.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal, Self

from pydantic import Field
from sqlalchemy import Connection, Row, text

from chartinsight_lib.alerts.alert import Alert
from chartinsight_lib.alerts.rules.watch import Rule, State, Watch
from chartinsight_lib.domain import MARKETS, Flag
from chartinsight_lib.errors import ConfigError

_SAME = 1e-9
"""A product of factors is a float: what differs from the level by less is on it."""


class PriceWatch(Watch):
    """The close of an instrument reaches `level` from below (`above`) or from above (`below`).

    `close`: `running` looks at the price of an unfinished bar too, `final` at finished days alone. `basis` is the day of whose
    prices the level is one.
    """

    level: float = Field(gt=0)
    direction: Literal["above", "below"]
    close: Literal["running", "final"] = "running"
    basis: date | None = None

    def prepared(self, conn: Connection, market: str, code: str | None, now: datetime) -> Self:
        """Fix the basis: that of the newest bar, or of the newest corporate action that is known, as a chart shows prices."""
        if code is None:
            raise ConfigError("alerts: a price is one of an instrument. Name its code.")
        basis = conn.execute(
            text("""
                SELECT GREATEST((SELECT (max(c.ts) AT TIME ZONE 'UTC')::date FROM live.candles AS c
                                 WHERE c.instrument_id = i.id AND c.timeframe = '1d'),
                                (SELECT max(f.ex_date) FROM api.factors AS f
                                 WHERE f.instrument_id = i.id AND f.kind <> 'dividend'))
                FROM   live.instruments AS i WHERE i.market = :market AND i.code = :code
            """),
            {"market": market, "code": code},
        ).scalar_one()
        return self.model_copy(update={"basis": basis or now.astimezone(MARKETS[market].zone).date()})

    def look(self, conn: Connection, rule: Rule, state: State, now: datetime) -> tuple[list[Alert], State]:
        """See `Watch`. State: day and close of the last bar, and whether it had reached the level; how often that was told; of
        which action of unknown size it was told."""
        told, found = int(state.get("told", 0)), []
        for bar in self._bars(conn, rule, state):
            if bar.unknown is not None:
                # Nobody can tell what the level is worth now: to compare would be to guess.
                if state.get("unknown") != bar.unknown.isoformat():
                    found.append(rule.alert(f"unknown:{bar.unknown}", *_unknown(rule, bar), now))
                return found, {**state, "unknown": bar.unknown.isoformat()}
            price, level = bar.close * bar.older, self.level * bar.newer
            reached = price >= level * (1 - _SAME) if self.direction == "above" else price <= level * (1 + _SAME)
            if reached and state.get("reached") is False:
                told += 1
                found.append(rule.alert(told, *self._text(rule, bar, level, state), now))
            state = {**state, "day": bar.day.isoformat(), "close": bar.close, "reached": reached, "told": told}
        return found, state

    def says(self, code: str | None) -> str:
        """See `Watch`."""
        return f"{code}: the {self.close} price goes {self.direction} {self.level:,.10g} (prices of {self.basis})"

    def _bars(self, conn: Connection, rule: Rule, state: State) -> Sequence[Row[Any]]:
        """Return the bars since the last look, ascending; at the first look the newest alone."""
        seen = state.get("day")
        rows = conn.execute(
            text("""
                SELECT b.*, i.code, i.name, i.currency,
                       (SELECT max(finished_at) FROM ops.run_items WHERE run_id = b.run_id) AS seen_at,
                       COALESCE(f.newer, 1) AS newer, COALESCE(f.older, 1) AS older, f.unknown
                FROM   live.instruments AS i
                CROSS  JOIN LATERAL (
                    SELECT (c.ts AT TIME ZONE 'UTC')::date AS day, c.close, (c.flags & :provisional) = 0 AS final,
                           c.source, c.run_id
                    FROM   live.candles AS c
                    WHERE  c.instrument_id = i.id AND c.timeframe = '1d' AND (:running OR (c.flags & :provisional) = 0)
                    AND   (CAST(:since AS timestamptz) IS NULL OR c.ts > :since OR :running AND c.ts = :since)
                    ORDER  BY c.ts DESC LIMIT CASE WHEN CAST(:since AS timestamptz) IS NULL THEN 1 END) AS b
                LEFT   JOIN LATERAL (
                    SELECT api.product(e.price_factor) FILTER (WHERE e.ex_date > :basis) AS newer,
                           api.product(e.price_factor) FILTER (WHERE e.ex_date <= :basis) AS older,
                           max(e.ex_date) FILTER (WHERE e.kind = 'unknown') AS unknown
                    FROM   api.factors AS e
                    WHERE  e.instrument_id = i.id AND e.kind <> 'dividend'
                    AND    e.ex_date > LEAST(b.day, :basis) AND e.ex_date <= GREATEST(b.day, :basis)) AS f ON true
                WHERE  i.market = :market AND i.code = :code
                ORDER  BY b.day
            """),
            {
                "market": rule.market,
                "code": rule.code,
                "basis": self.basis,
                "running": self.close == "running",
                "provisional": int(Flag.PROVISIONAL),
                "since": datetime.fromisoformat(seen).replace(tzinfo=UTC) if seen else None,
            },
        )
        return rows.all()

    def _text(self, rule: Rule, bar: Row[Any], level: float, state: State) -> tuple[str, str]:
        def money(price: float) -> str:
            return f"{price:,.10g} {bar.currency}"

        zone = MARKETS[rule.market].zone
        moment = f" as of {bar.seen_at.astimezone(zone):%Y-%m-%d %H:%M %Z}" if bar.seen_at else ""
        what = f"The final close of {bar.day}" if bar.final else f"The running price of {bar.day}, not final,"
        lines = [
            f"{what} is {money(bar.close)}{moment}, source {bar.source}; before, on {state['day']}: {state['close']:,.10g}."
        ]
        if bar.newer != 1:
            lines.append(
                f"The level was set at {self.level:,.10g} on prices of {self.basis}; corporate actions since moved it."
            )
        return f"{bar.code} {bar.name} {self.direction} {money(level)}: {money(bar.close)}", "\n".join(lines)


def _unknown(rule: Rule, bar: Row[Any]) -> tuple[str, str]:
    return (
        f"{bar.code} {bar.name}: the level of {rule.name} is of older prices",
        f"A corporate action of {bar.unknown} moved the prices by nobody knows how much. The rule waits until that is known; or "
        "remove it, and set the level anew.",
    )
