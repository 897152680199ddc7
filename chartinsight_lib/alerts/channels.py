"""Where notices go: the addresses of apprise, which hold secrets, and the names by which we speak of them, which hold none."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.keys import from_keyring
from chartinsight_lib.settings import Settings

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_BETWEEN = re.compile(rf"\s+|,\s*(?={_SCHEME})")  # a comma may also stand within an address
ADVICE = (
    "Set CHARTINSIGHT_ALERT_URLS to addresses as apprise reads them (mailto://…, tgram://…, slack://…, json://…), to @FILE of a "
    "file with one in each line, or keep them in the keyring: `keyring set chartinsight alert_urls`."
)


@dataclass(frozen=True, slots=True)
class Channel:
    """One address, and its name: the scheme and a fingerprint."""

    name: str
    url: str = field(repr=False)


def channels(settings: Settings) -> list[Channel]:
    """Return the channels of the settings, else of the keyring, each once; [] where there are none.

    Raises:
        ConfigError: the file cannot be read, or something in the list is no address. Which, is said by its place alone.
    """
    given = settings.alert_urls
    written = given.get_secret_value() if given is not None else from_keyring("alert_urls")
    if written.startswith("@"):
        written = _file(Path(written[1:]).expanduser())
    found: dict[str, Channel] = {}
    for place, url in enumerate(filter(None, _BETWEEN.split(written.strip())), 1):
        scheme = re.match(_SCHEME, url)
        if scheme is None:
            raise ConfigError(
                f"alerts: address {place} of CHARTINSIGHT_ALERT_URLS does not begin with a scheme://. {ADVICE}"
            )
        name = f"{scheme[0][:-3].lower()}:{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        found[name] = Channel(name, url)
    return list(found.values())


def _file(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"alerts: {path}, which CHARTINSIGHT_ALERT_URLS names, cannot be read ({type(error).__name__}). {ADVICE}"
        ) from None
    return "\n".join(line for line in map(str.strip, lines) if not line.startswith("#"))
