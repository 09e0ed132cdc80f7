"""One request, understood: who asks, about which calls, and what the gateway knows beside the ledger."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gateway.analytics.auth import Access
from gateway.analytics.parameters import Fields, Parameters
from gateway.analytics.periods import Range, clamp
from gateway.analytics.refusals import ParameterError
from gateway.calls import UNKNOWN
from gateway.ledger import Snapshot
from gateway.ledger.names import Named, ever_called
from gateway.ledger.queries import Dimension, Scope

Catalogue = Callable[[str], Iterable[tuple[str, str]]]
"""The server and name of each tool that a workspace is known to have."""

UpstreamUp = Callable[[str, str], bool | None]
"""Whether a workspace's server answers; None if that is unknown."""


def no_catalogue(_workspace_id: str) -> Iterable[tuple[str, str]]:
    """The catalogue of a gateway that knows no tool but those that were called."""
    return ()


def unknown_state(_workspace_id: str, _server_slug: str) -> bool | None:
    """The state of servers that nobody watches."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the views answer. Whatever a request says, it reaches one workspace only, and one member if so bound."""

    access: Access
    fields: Fields
    parameters: Parameters
    now_ns: int
    fresh_as_of_ns: int | None
    catalogue: Catalogue = no_catalogue
    upstream_up: UpstreamUp = unknown_state
    call_id: str = ""
    """The path's, where it names a call."""

    @property
    def range(self) -> Range:
        """The range that was asked for, cut to the plan's retention."""
        asked = self.parameters
        return clamp(asked.from_ns, asked.to_ns, now_ns=self.now_ns, retention_days=self.access.plan.retention_days)

    @property
    def filters(self) -> Mapping[Dimension, tuple[str, ...]]:
        """The request's filters; a bound member's is always among them."""
        member = self.access.member
        return self.parameters.filters if member is None else {**self.parameters.filters, "token": (member,)}

    def scope(self, from_ns: int | None = None, to_ns: int | None = None) -> Scope:
        """The filtered calls of the range, or of the given times."""
        begin, end, _ = self.range
        return Scope(
            workspace_id=self.access.workspace_id,
            from_ns=begin if from_ns is None else from_ns,
            to_ns=end if to_ns is None else to_ns,
            filters=self.filters,
        )

    def unfiltered(self, from_ns: int, to_ns: int) -> Scope:
        """All calls between the times that the bearer may see at all."""
        member = self.access.member
        return Scope(
            workspace_id=self.access.workspace_id,
            from_ns=from_ns,
            to_ns=to_ns,
            filters={} if member is None else {"token": (member,)},
        )

    def admits(self, dimension: Dimension, value: str) -> bool:
        """Whether the filters let `value` into a list."""
        wanted = self.filters.get(dimension, ())
        return not wanted or value in wanted


def check_names(snapshot: Snapshot, question: Question) -> None:
    """Refuse filters for servers, tools and tokens that never were: a typing error must not look like silence.

    A tool is refused only if the catalogue is known, for without it a tool that nobody called cannot be told from none.

    Raises:
        ParameterError: with the names that there are.
    """
    access = question.access
    catalogue = {tool for _, tool in question.catalogue(access.workspace_id)}
    configured: Mapping[Named, set[str]] = {
        "server": {*access.workspace.servers, UNKNOWN},
        "token": {token.id for token in access.workspace.tokens} if access.member is None else {access.member},
        "tool": {*catalogue, UNKNOWN},
    }
    for dimension, names in configured.items():
        strange = [value for value in question.parameters.filters[dimension] if value not in names]
        if not strange or (dimension == "tool" and not catalogue):
            continue
        query = ever_called(question.unfiltered(0, question.now_ns), dimension, strange)
        seen = {value for (value,) in snapshot.rows(query)}
        for value in strange:
            if value not in seen:
                raise ParameterError(dimension, f"{value!r} is not known here", sorted(names - {UNKNOWN}))
