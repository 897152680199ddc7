"""Where errors end: printed as one sentence, with an exit code.

0 done; 1 failed; 2 asked wrongly; 3 skipped, with the reason; 75 failed, and trying again may help (EX_TEMPFAIL); 130 interrupted.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from chartinsight_lib.errors import ChartInsightError, ConfigError, NotFound, RunFailed, SlotRefused

FAILED, ASKED_WRONGLY, SKIPPED, TRY_AGAIN, INTERRUPTED = 1, 2, 3, 75, 130


def edge(command: Callable[..., None]) -> Callable[..., None]:
    """Print our own errors as one sentence; let everything else show its trace, because it is a fault of ours."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except ChartInsightError as error:
            click.echo(f"chartinsight: {error}", err=True)
            sys.exit(exit_code(error))
        except KeyboardInterrupt:
            click.echo("\nstopped; nothing is left running.", err=True)
            sys.exit(INTERRUPTED)

    return run


def exit_code(error: ChartInsightError) -> int:
    """Return the exit code that says what a caller can do about an error."""
    match error:
        case ConfigError() | NotFound():
            return ASKED_WRONGLY
        case SlotRefused(why="not yet") | RunFailed(temporary=True):
            return TRY_AGAIN
        case SlotRefused():
            return SKIPPED
        case _:
            return FAILED
