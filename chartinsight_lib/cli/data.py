"""`chartinsight data …`: what is held, what is missing, and how to take it along. Parses, calls one function, prints."""

import click


@click.group("data")
def data() -> None:
    """Check, mend, compare and export what is held."""
