"""The tree of errors: one kind for each thing a caller can do about it.

A message says which thing, what was found, what was expected and what to do. Errors are raised where the fault is seen,
`from` their cause, and caught at the edges only (`cli`, `runner`, the item loop of `collect`).
"""


class ChartInsightError(Exception):
    """Anything this project raises on purpose."""


class ConfigError(ChartInsightError):
    """A setting, a path, a port or a permission is wrong; the user changes it and tries again."""


class DatabaseError(ChartInsightError):
    """The database cannot be reached, started or upgraded."""


class SchemaError(ChartInsightError):
    """Data do not have the shape that was promised: a column, a type or a key is wrong."""


class NotEnoughHistory(ChartInsightError):
    """A calculation needs more bars than there are."""


class NotFound(ChartInsightError):
    """What was asked for by name does not exist."""


class RunFailed(ChartInsightError):
    """A notebook run ended without success; its record and its executed copy say where."""
