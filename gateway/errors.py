"""The one error tree. A message says what is wrong, where, and what would be right."""

from dataclasses import dataclass


class CallscopeError(Exception):
    """Anything that Callscope itself reports to a person."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in the configuration: the path inside the file, what is wrong and what would be right."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path or '(top level)'}: {self.problem}"


class ConfigError(CallscopeError):
    """The configuration cannot be used; `mistakes` has every reason, one line each."""

    def __init__(self, source: str, mistakes: list[Mistake]) -> None:
        self.source = source
        self.mistakes = mistakes
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))


class StartError(CallscopeError):
    """A process cannot start: a port or a data directory is taken, or a child died before it was ready."""


class JournalError(CallscopeError):
    """The journal on disk is not readable as one."""


class LedgerUnavailableError(CallscopeError):
    """The ledger does not answer now; the same request may succeed later."""
