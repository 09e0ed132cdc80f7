"""The one error tree. A message says what is wrong, where, and what to do."""

from collections.abc import Iterator
from dataclasses import dataclass


class CallscopeError(Exception):
    """Anything that Callscope itself reports to a person."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in the configuration: the path inside the file, and what is wrong and what to write."""

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
    """A process cannot start: a port or a data directory is taken, or a child process died before it was ready."""


class JournalError(CallscopeError):
    """The files on disk cannot be read as a journal."""


class LedgerUnavailableError(CallscopeError):
    """The ledger does not answer now; the same request may succeed later."""


def messages(group: BaseExceptionGroup[CallscopeError]) -> Iterator[str]:
    """The message of each error in a group, however deep the groups are nested."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from messages(error)
        else:
            yield str(error)
