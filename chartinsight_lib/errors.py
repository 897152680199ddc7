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


class Fenced(ChartInsightError):
    """A run that counts as ended still tried to write: what it holds is no longer current, and nothing of it is stored."""


class NotEnoughHistory(ChartInsightError):
    """A calculation needs more bars than there are."""


class BeyondHorizon(ChartInsightError):
    """A date lies outside what a trading calendar knows; the calendar is to be updated, or another date to be asked for."""


class NotFound(ChartInsightError):
    """What was asked for by name does not exist."""


class RunFailed(ChartInsightError):
    """A notebook run ended without success; its record and its executed copy say where.

    `temporary`: the same run may succeed later. `error_class` is the name of the error that ended it, `run_id` its record's.
    """

    def __init__(
        self, message: str, *, temporary: bool = False, error_class: str = "RunFailed", run_id: object = None
    ) -> None:
        super().__init__(message)
        self.temporary, self.error_class, self.run_id = temporary, error_class, run_id


class ItemsUnavailable(RunFailed):
    """Items of a run failed, each for a cause that may pass; what succeeded is stored."""


class SlotRefused(ChartInsightError):
    """A slot is not run by whoever asked: `why` is taken, not yet or skipped, as of `slots.Why`; `reason` says it in words."""

    def __init__(self, message: str, *, why: str, reason: str) -> None:
        super().__init__(message)
        self.why, self.reason = why, reason


class UpstreamError(ChartInsightError):
    """A source answered with a refusal, with something else than it promised, or not at all; `code` is the source's own."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class AuthFailed(UpstreamError):
    """A source does not take the keys, the token or this machine; trying again changes nothing."""


class IncompleteListing(UpstreamError):
    """A list of instruments lacks so many of those that were listed that it is not believed to be whole."""


class RateLimited(UpstreamError):
    """A source's quota is used up, and it stayed so for as long as was allowed to wait."""


class RequestRefused(UpstreamError):
    """A source says that it was asked wrongly; this is a fault of the program."""


class TruncatedReply(UpstreamError):
    """A source stopped in the midst of a history: what there is of it must not pass for the whole."""


class Unavailable(UpstreamError):
    """A source is closed for maintenance, broken, or out of reach; later it may answer."""


class UnknownCode(UpstreamError):
    """A source knows no instrument of this code, or not on this exchange."""


class Passing(str):
    """Why an item failed, in words, where the cause may pass by itself."""

    __slots__ = ()


def reason(error: Exception) -> str:
    """Return what an error says, as `Passing` where trying again later may help."""
    return Passing(error) if isinstance(error, RateLimited | TruncatedReply | Unavailable) else str(error)
