"""Where errors end: printed as one sentence, with an exit code."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from chartinsight_lib.errors import ChartInsightError, ConfigError, NotFound


def edge(command: Callable[..., None]) -> Callable[..., None]:
    """Print our own errors as one sentence; let everything else show its trace, because it is a fault of ours."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except (ConfigError, NotFound) as error:
            click.echo(f"chartinsight: {error}", err=True)
            sys.exit(2)
        except ChartInsightError as error:
            click.echo(f"chartinsight: {error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("\nstopped; nothing is left running.", err=True)
            sys.exit(130)

    return run
