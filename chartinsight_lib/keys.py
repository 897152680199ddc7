"""Secrets that lie in the system's keyring, under the name of this project: `keyring set chartinsight NAME`."""

KEYRING = "chartinsight"


def from_keyring(name: str) -> str:
    """Return a secret; "" where the keyring holds none of this name, and on a machine that has no keyring or a locked one."""
    import keyring
    from keyring.errors import KeyringError

    try:
        return keyring.get_password(KEYRING, name) or ""
    except KeyringError:
        return ""
