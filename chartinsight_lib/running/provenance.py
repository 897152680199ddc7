"""On what a run ran: the version of the code, to the commit where there is one, and the lock of the packages."""

import hashlib
import subprocess
from pathlib import Path

from chartinsight_lib.ledger import package_version


def code_version(project: Path) -> str:
    """Return the package's version; in a git checkout with the commit, and `.dirty` where its files were changed since."""
    commit = _git(project, "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=.dirty")
    return f"{package_version()}+g{commit}" if commit else package_version()


def lock_hash(project: Path) -> str | None:
    """Return the first 12 hexadecimal digits of the SHA-256 of requirements.lock; None where there is none."""
    try:
        return hashlib.sha256((project / "requirements.lock").read_bytes()).hexdigest()[:12]
    except OSError:
        return None


def _git(project: Path, *arguments: str) -> str:
    """Return what git says of the checkout itself; "" where there is no git, no checkout, or no answer."""
    if not (project / ".git").exists():  # a checkout around it is another project
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
