"""Faults on demand: a YAML script says which call goes wrong, and how. The same script makes the same faults.

    seed: 7
    rules:
      - {api_id: ka10081, nth: 3, do: {status: 429, retry_after: 2}}
      - {api_id: ka10081, code: "005930", from: 2, to: 4, do: reset}
      - {every: 50, do: {delay: 1.5}}
      - {probability: 0.01, do: {code: 1999}}

A rule counts the calls that it matches (`api_id`, `code`: each one value or a list; absent: any) and fires on the `nth` of
them (one number or a list), on `every` so many, `from` one `to` another, or with a `probability`; with none of these, on
all. A batch of codes matches by any of them. Of the rules that fire on a call, the first is carried out. For the WebSocket
`api_id` is `websocket`, and `code` is the frame: LOGIN, REG, REMOVE, PING, or REAL for what the server sends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator.wire import CODES

PLAIN = {
    "rate_limit": "HTTP 429 with the body that names the quota",
    "reset": "the connection is reset",
    "timeout": "no answer for 60 s, then the connection closes",
    "html": "the maintenance page",
    "waf": "HTTP 400, an HTML page Request Blocked",
    "truncated": "the JSON breaks off half-way",
    "empty_page": "no rows, and cont-yn Y",
    "loop_key": "a next-key that leads to page 1",
    "repeat_key": "the next-key that was sent",
    "blank_row": "one row of empty fields, and cont-yn N",
    "zero_rows": "return_code 0 without rows, and cont-yn N",
    "kill_token": "the token is revoked first",
    "disconnect": "the WebSocket closes",
}
VALUED: dict[str, tuple[type, ...]] = {
    "status": (int,),
    "retry_after": (int, float),
    "delay": (int, float),
    "timeout": (int, float),
    "code": (int,),
    "drop_column": (str,),
    "extra_column": (str,),
    "saturate": (str,),
}
_KNOWN = {"api_id", "code", "nth", "every", "from", "to", "probability", "do"}


@dataclass(frozen=True)
class Fault:
    """What to do to one call."""

    rule: int
    action: str
    value: Any = None
    retry_after: float | None = None

    def __str__(self) -> str:
        return self.action if self.value is None else f"{self.action} {self.value}"


@dataclass
class _Rule:
    number: int
    api_ids: frozenset[str]
    codes: frozenset[str]
    fires: Callable[[int], bool]
    fault: Fault
    calls: int = 0

    def matches(self, api_id: str, code: str) -> bool:
        # Frames come in any number: a rule for any call means requests, and frames only when it names them.
        named = api_id in self.api_ids if self.api_ids else api_id != "websocket"
        return named and (not self.codes or not self.codes.isdisjoint(code.split("|")))


@dataclass
class Faults:
    """The rules of a script, with their counts of calls. None: everything goes well."""

    rules: list[_Rule] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def next(self, api_id: str, code: str) -> Fault | None:
        """Count a call, and return what to do to it."""
        found = None
        for rule in self.rules:
            if rule.matches(api_id, code):
                rule.calls += 1
                if found is None and rule.fires(rule.calls):
                    found = rule.fault
        return found


def read_faults(source: Path | str) -> Faults:
    """Read a fault script: a file, or its text.

    Raises:
        ConfigError: it is not YAML, or a rule says what no rule can; the message names the line or the rule.
    """
    name = str(source) if isinstance(source, Path) else "fault script"
    try:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        script = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the text"
        raise ConfigError(f"{name}: {where} is not YAML ({getattr(error, 'problem', error)}).") from error
    if not isinstance(script, dict) or set(script) - {"seed", "rules"} or not isinstance(script.get("rules"), list):
        raise ConfigError(f"{name}: expected `rules:` with a list of rules, and `seed:` if wanted, and nothing else.")
    seed = script.get("seed", 0)
    if not isinstance(seed, int):
        raise ConfigError(f"{name}: the seed is {seed!r}. Expected a whole number.")
    return Faults([_rule(f"{name}: rule {n}", n, rule, seed) for n, rule in enumerate(script["rules"], start=1)])


def _rule(where: str, number: int, rule: object, seed: int) -> _Rule:
    if not isinstance(rule, dict):
        raise ConfigError(f"{where} is {rule!r}. Expected a mapping with `do`.")
    if unknown := set(rule) - _KNOWN:
        raise ConfigError(
            f"{where} has the unknown key {sorted(map(str, unknown))[0]!r}. Known: {', '.join(sorted(_KNOWN))}."
        )
    return _Rule(
        number=number,
        api_ids=_names(where, rule, "api_id"),
        codes=_names(where, rule, "code"),
        fires=_when(where, number, rule, seed),
        fault=_fault(where, number, rule.get("do")),
    )


def _names(where: str, rule: Mapping[str, Any], key: str) -> frozenset[str]:
    found = rule.get(key, [])
    names = found if isinstance(found, list) else [found]
    if any(not isinstance(name, str) for name in names):
        # Unquoted, 000660 is a number to YAML, in base eight; 005930 happens to be none.
        raise ConfigError(
            f'{where}: {key} is {found!r}. Expected text, or a list of it; put codes in quotes, as "000660".'
        )
    return frozenset(names)


def _when(where: str, number: int, rule: Mapping[str, Any], seed: int) -> Callable[[int], bool]:
    given = [key for key in ("nth", "every", "probability") if key in rule]
    if "from" in rule or "to" in rule:
        given.append("from")
    if len(given) > 1:
        raise ConfigError(f"{where} has both `{given[0]}` and `{given[1]}`. Say only one, or write two rules.")
    if given == ["probability"]:
        chance = rule["probability"]
        if isinstance(chance, bool) or not isinstance(chance, int | float) or not 0 <= chance <= 1:
            raise ConfigError(f"{where}: probability is {chance!r}. Expected a number from 0 to 1.")
        return lambda call: _draw(seed, number, call) < chance
    counts = {key: rule[key] for key in ("nth", "every", "from", "to") if key in rule}
    for key, count in counts.items():
        for one in count if key == "nth" and isinstance(count, list) else [count]:
            if isinstance(one, bool) or not isinstance(one, int) or one < 1:
                raise ConfigError(f"{where}: {key} is {count!r}. Expected a whole number from 1.")
    if given == ["nth"]:
        nth = frozenset(rule["nth"] if isinstance(rule["nth"], list) else [rule["nth"]])
        return lambda call: call in nth
    if given == ["every"]:
        every: int = rule["every"]
        return lambda call: call % every == 0
    first, last = counts.get("from", 1), counts.get("to")
    return lambda call: first <= call and (last is None or call <= last)


def _draw(seed: int, number: int, call: int) -> float:
    """Return a number in [0, 1) that depends on nothing but the seed, the rule and the call."""
    digest = hashlib.blake2b(f"{seed}/{number}/{call}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _fault(where: str, number: int, do: object) -> Fault:
    if isinstance(do, str) and do in PLAIN:
        return Fault(number, do)
    retry_after = None
    if isinstance(do, dict):
        do = dict(do)
        if "retry_after" in do and len(do) == 1:
            do["rate_limit"] = None
        retry_after = do.pop("retry_after", None)
    if not isinstance(do, dict) or len(do) != 1 or (name := next(iter(do))) not in VALUED | {"rate_limit": ()}:
        known = ", ".join([*PLAIN, *(f"{{{key}: …}}" for key in VALUED)])
        raise ConfigError(f"{where}: do is {do!r}. Expected one of {known}.")
    value = do[name]
    for key, what in ((name, value), ("retry_after", retry_after)):
        if what is not None and (isinstance(what, bool) or not isinstance(what, VALUED[key])):
            raise ConfigError(
                f"{where}: {key} is {what!r}. Expected {' or '.join(kind.__name__ for kind in VALUED[key])}."
            )
    if name == "code" and value not in CODES:
        raise ConfigError(
            f"{where}: code {value} is not documented. Expected one of {', '.join(map(str, sorted(CODES)))}."
        )
    if name == "status" and not 200 <= value <= 599:
        raise ConfigError(f"{where}: status {value} is not an HTTP status. Expected 200 to 599.")
    return Fault(number, name, value, retry_after)
