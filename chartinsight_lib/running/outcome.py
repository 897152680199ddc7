"""How a run ends that does not succeed, and whether the same run may succeed later."""

from dataclasses import dataclass

INTERRUPTED = "Interrupted"
"""Of a run that was cut off from outside."""
MAY_PASS = frozenset({
    # of a source or of the database, as of `errors` and SQLAlchemy
    "RateLimited", "Unavailable", "TruncatedReply", "ItemsUnavailable", "DatabaseError", "OperationalError", "InterfaceError",
    # of this machine
    "DeadKernelError", "KernelNotStarted", "ProcessDied", INTERRUPTED,
})  # fmt: skip
"""The classes of errors after which a run is tried again by its job's rule.

Every other is final: to try again would not mend a wrong setting or key (ConfigError, AuthFailed), a wrong request or reply
(RequestRefused, SchemaError, NotFound), a run that was given up (Fenced), nor a notebook's code (ImportError, SyntaxError,
AssertionError …). One that outgrew its memory would outgrow it again.
"""
ONCE = frozenset({"RunTimeLimit", "CellTimeLimit"})
"""After these it is tried again once: it may have waited for something else, or it takes so long."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What ended a run: in words, as the name of an error, and in which cell, counted as In [n]; None: in none."""

    error: str
    error_class: str
    cell: int | None = None

    def __str__(self) -> str:
        return self.error if self.cell is None else f"cell {self.cell}: {self.error}"

    @property
    def never_began(self) -> bool:
        """Whether the process was of no use, and no cell was executed."""
        return self.cell is None and self.error_class in {"ProcessDied", "KernelNotStarted"}

    def temporary(self, attempt: int = 1) -> bool:
        """Whether the same run may succeed later, this having been attempt `attempt` at it, from 1."""
        return self.error_class in MAY_PASS or (self.error_class in ONCE and attempt == 1)
