"""The zero filter: which instruments are targets at all, by rules that lie in a file (zero_filter.toml) with their reasons.

A rule looks at kind, board, section, states, code and market value, never at names. What is not known decides nothing: it is
told apart from both yes and no.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chartinsight_lib.domain import KINDS, MARKETS
from chartinsight_lib.errors import ConfigError, SchemaError
from chartinsight_lib.states import STATES

BOARDS = ("KOSPI", "KOSDAQ", "KONEX")
NEEDED = ("market", "code", "kind", "board", "section", "states", "shares", "close")
"""The columns that rules look at."""

_Answer = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Of each row: the condition holds; whether it does is known."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Leaves out an instrument of which every condition holds: {condition: what it compares with}."""

    name: str
    reason: str
    conditions: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules for the instruments of some markets, in the order of their file."""

    markets: tuple[str, ...]
    rules: tuple[Rule, ...]

    def why(self, name: str) -> str:
        """Return a rule's reason in words."""
        return next(rule.reason for rule in self.rules if rule.name == name)


def load_rules(path: Path | None = None) -> Rules:
    """Read the rules of a TOML file; None: those that come with the package.

    Raises:
        ConfigError: there is no such file, it is no TOML, or it says what no rule can; the message names the rule.
    """
    name = str(path or "zero_filter.toml")
    try:
        if path is None:
            written = resources.files("chartinsight_lib").joinpath("zero_filter.toml").read_text(encoding="utf-8")
        else:
            written = path.read_text(encoding="utf-8")
        table = tomllib.loads(written)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{name}: the rules cannot be read ({error}). Check the path.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: this is no TOML ({error}).") from error
    if unknown := table.keys() - {"markets", "rule"}:
        raise ConfigError(f"{name}: unknown {_names(unknown)}. Expected markets, and a [[rule]] for each rule.")
    markets = _words(name, "markets", table.get("markets"), MARKETS)
    given = table.get("rule")
    if not isinstance(given, list) or not given or not all(isinstance(entry, dict) for entry in given):
        raise ConfigError(f"{name}: there is no rule. Expected at least one [[rule]].")
    rules = tuple(_rule(name, number, entry) for number, entry in enumerate(given, 1))
    if len({rule.name for rule in rules}) < len(rules):
        twice = next(rule.name for n, rule in enumerate(rules) if rule.name in {other.name for other in rules[:n]})
        raise ConfigError(f"{name}: two rules are called {twice!r}. Give each a name of its own.")
    return Rules(tuple(markets), rules)


def apply_filter(frame: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Say of each instrument whether it is a target, and if not, by which rules.

    Args:
        frame: the columns NEEDED, as `db.instruments.universe_as_of` gives them beside the market; shares in pieces, close in
            currency and of the same day's basis as the shares. Missing values are not known; states [] are known to be none.
    Returns:
        `frame` with the columns target (bool: no rule holds), reasons and unknown (lists of names of rules: those that hold,
        and those that might, for all that is known).
    Raises:
        SchemaError: a column is missing.
        ConfigError: the rules are for other markets.
    """
    if missing := [name for name in NEEDED if name not in frame]:
        raise SchemaError(f"zero filter: the frame lacks {_names(missing)}. Expected the columns {_names(NEEDED)}.")
    if strange := sorted(set(frame["market"].unique()) - set(rules.markets)):
        raise ConfigError(
            f"zero filter: its rules are for {_names(rules.markets)}, and there are instruments of {_names(strange)}. "
            "Give rules that are for them."
        )
    holds = np.zeros((len(frame), len(rules.rules)), dtype=bool)
    open_ = np.zeros_like(holds)
    for number, rule in enumerate(rules.rules):
        answers = [_CONDITIONS[name](frame, wanted) for name, wanted in rule.conditions.items()]
        holds[:, number] = np.logical_and.reduce([yes & known for yes, known in answers])
        refuted = np.logical_or.reduce([~yes & known for yes, known in answers])
        open_[:, number] = ~holds[:, number] & ~refuted
    names = np.array([rule.name for rule in rules.rules], dtype=object)
    return frame.assign(
        target=pd.Series(~holds.any(axis=1), index=frame.index),
        reasons=pd.Series([names[row].tolist() for row in holds], index=frame.index, dtype=object),
        unknown=pd.Series([names[row].tolist() for row in open_], index=frame.index, dtype=object),
    )


def funnel(filtered: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Count what each rule leaves out: one row per rule that leaves out any or might: rule, left_out (of how many it holds),
    alone (and no other rule), unknown (for how many nobody knows), reason.

    Args:
        filtered: what `apply_filter` returned.
    """
    reasons, unknown = filtered["reasons"], filtered["unknown"]
    rows = [
        (
            rule.name, sum(rule.name in found for found in reasons), sum(found == [rule.name] for found in reasons),
            sum(rule.name in found for found in unknown), rule.reason,
        )
        for rule in rules.rules
    ]  # fmt: skip
    counted = pd.DataFrame(rows, columns=["rule", "left_out", "alone", "unknown", "reason"])
    return counted[(counted["left_out"] > 0) | (counted["unknown"] > 0)].reset_index(drop=True)


def _one_of(column: str) -> Callable[[pd.DataFrame, Any], _Answer]:
    def answer(frame: pd.DataFrame, wanted: Collection[str]) -> _Answer:
        return frame[column].isin(wanted).to_numpy(), frame[column].notna().to_numpy()

    return answer


def _states(frame: pd.DataFrame, wanted: Collection[str]) -> _Answer:
    known = frame["states"].notna().to_numpy()
    given = frame["states"][known].tolist()
    row = np.repeat(np.flatnonzero(known), [len(words) for words in given])
    words = np.array([word for words in given for word in words], dtype=object)
    yes = np.zeros(len(frame), dtype=bool)
    yes[row[np.isin(words, list(wanted))]] = True
    return yes, known


def _code(frame: pd.DataFrame, pattern: str) -> _Answer:
    return frame["code"].astype("str").str.fullmatch(pattern).to_numpy(bool), np.ones(len(frame), dtype=bool)


def _market_cap_below(frame: pd.DataFrame, limit: float) -> _Answer:
    shares, close = (pd.to_numeric(frame[name]).to_numpy(float, na_value=np.nan) for name in ("shares", "close"))
    value = shares * close
    return value < limit, ~np.isnan(value)


_CONDITIONS: dict[str, Callable[[pd.DataFrame, Any], _Answer]] = {
    "kind": _one_of("kind"), "board": _one_of("board"), "section": _one_of("section"), "states": _states, "code": _code,
    "market_cap_below": _market_cap_below,
}  # fmt: skip


def _rule(file: str, number: int, entry: dict[str, Any]) -> Rule:
    name, reason = entry.get("name"), entry.get("reason")
    where = f"{file}: rule {name!r}" if isinstance(name, str) and name else f"{file}: rule {number}"
    if not (isinstance(name, str) and name.strip() and isinstance(reason, str) and reason.strip()):
        raise ConfigError(f"{where}: expected a name and a reason, both texts.")
    conditions = {key: value for key, value in entry.items() if key not in {"name", "reason"}}
    if unknown := conditions.keys() - _CONDITIONS.keys():
        raise ConfigError(f"{where}: {_names(unknown)} is no condition. Known are {_names(_CONDITIONS)}.")
    if not conditions:
        raise ConfigError(
            f"{where}: it has no condition, and would leave out everything. Known are {_names(_CONDITIONS)}."
        )
    for key, known in (("kind", KINDS), ("board", BOARDS), ("section", None), ("states", STATES.values())):
        if key in conditions:
            conditions[key] = frozenset(_words(where, key, conditions[key], known))
    if "code" in conditions:
        try:
            re.compile(conditions["code"])
        except (re.error, TypeError) as error:
            raise ConfigError(f"{where}: code {conditions['code']!r} is no regular expression ({error}).") from error
    limit = conditions.get("market_cap_below", 1)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        raise ConfigError(f"{where}: market_cap_below is {limit!r}, and an amount above 0 is expected.")
    return Rule(name, reason, conditions)


def _words(where: str, key: str, given: object, known: Collection[str] | None) -> list[str]:
    if not isinstance(given, list) or not given or not all(isinstance(word, str) for word in given):
        raise ConfigError(f"{where}: {key} is {given!r}, and a list of texts is expected.")
    if known is not None and (unknown := sorted(set(given) - set(known))):
        raise ConfigError(f"{where}: {key} has {_names(unknown)}. Known are {_names(known)}.")
    return given


def _names(words: Collection[str]) -> str:
    return ", ".join(words if isinstance(words, list | tuple | dict) else sorted(words))
