"""Which source a person means, opened: files and public services as they are, Kiwoom with the quota and token that programs
share, and what other packages bring along.

What does not come from Kiwoom's own hosts is simulated, whatever it is called: it gets the market SIM and a name that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from chartinsight_lib import logs
from chartinsight_lib.clients import open_source as open_bulk
from chartinsight_lib.clients.base import Source
from chartinsight_lib.errors import ChartInsightError, ConfigError
from chartinsight_lib.keys import from_keyring
from chartinsight_lib.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from chartinsight_lib.clients.kiwoom import KiwoomClient
    from chartinsight_lib.clients.kiwoom_auth import Credentials

LIVE = ("kiwoom", "simulated")
"""Sources that know the running day."""
BULK = ("sample", "files", "yahoo", "krx")
GROUP = "chartinsight.sources"
APART = timedelta(hours=1)
"""So far may this machine's time and a simulator's be apart; its clock may run a thousand times as fast."""
KEYS_ADVICE = (
    "Write CHARTINSIGHT_KIWOOM_APPKEY and CHARTINSIGHT_KIWOOM_SECRETKEY into .env, or keep them in the keyring: "
    "`keyring set chartinsight kiwoom_appkey` and `keyring set chartinsight kiwoom_secretkey`. Both are on Kiwoom's REST API "
    "page."
)


def open_source(
    spec: str,
    settings: Settings,
    engine: Engine | None = None,
    *,
    market: str | None = None,
    columns: Mapping[str, str] | None = None,
    last_day: str = "provisional",
    only: Mapping[str, str] | None = None,
    prices: str = "adjusted",
    codes: Sequence[str] = (),
) -> Source:
    """Open the source that `spec` names; nothing is asked of it yet.

    Args:
        spec: "kiwoom", "simulated", what `clients.open_source` takes, or the name of a source that another package brings
            along, with or without a colon and more (`plugins`).
        engine: acts as the loader; Kiwoom's quota and token are shared through it. None: this process keeps its own.
        market, columns, last_day, only, prices: for files; see `clients.open_source`.
        codes: collect these instruments alone; files and the sample give all they have.
    Raises:
        ConfigError: the spec, an option or a path is wrong, a key is missing, or no simulator is named.
    """
    if spec not in LIVE:
        options: dict[str, Any] = {"market": market, "codes": codes, "clock": settings.clock}
        kind = spec.partition(":")[0]
        if kind not in BULK and kind in (found := plugins()):
            return _open_plugin(spec, found[kind], **options)
        options |= {"columns": columns, "last_day": last_day, "only": only, "prices": prices}
        return open_bulk(spec, cache=settings.home / "cache" / kind, **options)
    from chartinsight_lib.clients.kiwoom_source import KiwoomSource

    own = live_market(spec, settings)
    if columns or only or prices != "adjusted" or market not in {None, own}:
        raise ConfigError(
            f"source {spec!r}: it has its own market ({own}) and columns. Leave out what is for files: market, columns, only, "
            "prices."
        )
    name = "kiwoom" if own == "KRX" else f"simulated ({_label(settings)})"
    return KiwoomSource(
        kiwoom_client(settings, engine), name=name, market=own, clock=settings.clock, years=settings.kiwoom_years,
        codes=codes, workers=settings.kiwoom_workers,
    )  # fmt: skip


def plugins() -> dict[str, EntryPoint]:
    """Return {name: entry point} of the sources that other packages bring along, in the group `chartinsight.sources`.

    Each names a function that is called with what follows the colon of the spec, and the options market, codes and clock; it
    returns a `clients.base.Source`. The names of our own sources are ours. Nothing is loaded yet, so a broken one harms none.
    """
    return {found.name: found for found in entry_points(group=GROUP) if found.name not in {*LIVE, *BULK}}


def broken_plugins() -> dict[str, str]:
    """Load the sources of other packages; return {name: why it cannot be loaded} of those that are broken."""
    found = {}
    for name, plugin in plugins().items():
        try:
            plugin.load()
        except Exception as error:  # somebody else's code
            found[name] = f"{plugin.value}: {type(error).__name__}: {error}"
    return found


def _open_plugin(spec: str, plugin: EntryPoint, **options: Any) -> Source:
    try:
        source: Source = plugin.load()(spec.partition(":")[2], **options)
    except ChartInsightError:
        raise
    except Exception as error:  # somebody else's code
        raise ConfigError(
            f"source {spec!r}: the package that brings it along ({plugin.value}) fails with {type(error).__name__}: {error}. Mend "
            "or remove that package."
        ) from error
    if lacks := [
        name
        for name in ("name", "market", "raw", "instruments", "provisional_from", "daily")
        if not hasattr(source, name)
    ]:
        raise ConfigError(f"source {spec!r}: what {plugin.value} returns is no source, it lacks {', '.join(lacks)}.")
    return source


def live_market(spec: str, settings: Settings) -> str:
    """Return the market that a live source is of: KRX for Kiwoom's own hosts, SIM for every other.

    Raises:
        ConfigError: a simulated source is asked for, and the address is Kiwoom's.
    """
    from chartinsight_lib.clients.kiwoom import is_kiwoom

    if not is_kiwoom(settings.kiwoom_url):
        return "SIM"
    if spec == "simulated":
        raise ConfigError(
            "source 'simulated': no simulator is named. `./studio up` starts one of its own; for another one, run "
            "`chartinsight simulate` and set CHARTINSIGHT_KIWOOM_URL to the address that it prints."
        )
    return "KRX"


def kiwoom_client(settings: Settings, engine: Engine | None = None) -> KiwoomClient:
    """Return a client for the host and keys of the settings; see `open_source`. Raises ConfigError without keys."""
    from chartinsight_lib.clients.kiwoom import KiwoomClient, is_kiwoom, usual_rate
    from chartinsight_lib.clients.kiwoom_auth import BETWEEN_ISSUES_S, Token
    from chartinsight_lib.pace import LocalSlots, Pacer, Slots

    keys = credentials(settings)
    slots: Slots = LocalSlots()
    tokens = None
    if engine is not None:
        from chartinsight_lib.db.pace import SharedSlots
        from chartinsight_lib.db.tokens import SealedTokens

        slots = SharedSlots(engine, keys.fingerprint(settings.kiwoom_url))
        tokens = SealedTokens(engine, keys.secretkey, Token, settings.clock)
    url = settings.kiwoom_url
    return KiwoomClient(
        keys,
        base_url=url,
        pacer=Pacer(slots, settings.kiwoom_rate or usual_rate(url)),
        total=Pacer(slots, settings.kiwoom_total_rate) if settings.kiwoom_total_rate else None,
        tokens=tokens,
        clock=settings.clock,
        # A simulator's clock may run a hundred times as fast, and it issues as often as it is asked.
        between_issues_s=BETWEEN_ISSUES_S if is_kiwoom(url) else 0.0,
    )


def credentials(settings: Settings) -> Credentials:
    """Return the two keys: of the settings, else of the system's keyring. Raises ConfigError when one is missing."""
    from chartinsight_lib.clients.kiwoom_auth import Credentials

    found: dict[str, str] = {}
    for name, given in (("kiwoom_appkey", settings.kiwoom_appkey), ("kiwoom_secretkey", settings.kiwoom_secretkey)):
        value = given.get_secret_value().strip() if given is not None else from_keyring(name)
        if not value:
            raise ConfigError(f"kiwoom: the {name.removeprefix('kiwoom_')} is missing. {KEYS_ADVICE}")
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ConfigError(
                f"kiwoom: the {name.removeprefix('kiwoom_')} holds a space or a character that no key has. Copy it anew."
            )
        found[name] = value
    logs.conceal(*found.values())
    return Credentials(found["kiwoom_appkey"], found["kiwoom_secretkey"])


def _label(settings: Settings) -> str:
    """Ask a simulator what it simulates. Raises ConfigError when it does not answer, is none, or lives in another time."""
    import httpx

    url = settings.kiwoom_url.rstrip("/")
    try:
        told = httpx.get(f"{url}/_simulator", timeout=5, trust_env=False).raise_for_status().json()
        label, there = str(told["label"]), datetime.fromisoformat(told["now"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"source 'simulated': no simulator answers at {url} ({type(error).__name__}). Start one: `chartinsight simulate`, "
            "and set CHARTINSIGHT_KIWOOM_URL to the address that it prints."
        ) from None
    here = settings.clock()
    if abs(there - here) > APART:
        # Which bars are finished is judged by our clock: by another one an unfinished bar would pass for a final one.
        raise ConfigError(
            f"source 'simulated': it is {there:%Y-%m-%d %H:%M} at {url}, and {here.astimezone(there.tzinfo):%Y-%m-%d %H:%M} here. "
            "Set CHARTINSIGHT_NOW=@FILE to the clock file that `chartinsight simulate` names."
        )
    return label
