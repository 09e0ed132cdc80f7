"""One parsed request: who reads, which calls, and what the gateway knows beside the ledger."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.analytics.authorization import Access
from gateway.analytics.http_errors import ParameterError
from gateway.analytics.parameters import Fields, Parameters
from gateway.analytics.periods import Range, clamp
from gateway.calls import UNKNOWN, Dimension
from gateway.ledger import Ledger
from gateway.ledger.queries import NAMED_DIMENSIONS, Filters, NamedDimension, Scope, ever_called
from gateway.ledger.rows import is_storable

Catalog = Callable[[str], Iterable[tuple[str, str]]]
"""The server and name of each tool that a workspace is known to have."""
UpstreamUp = Callable[[str, str], bool | None]
"""Whether a workspace's server answers; None if that is unknown."""
UnconfiguredNames = Mapping[NamedDimension, Sequence[str]]
"""Names that are neither configured nor in the catalog; only the ledger knows if they were ever called."""


def empty_catalog(_workspace_id: str) -> Iterable[tuple[str, str]]:
    """The catalog while no tool is known but those that were called."""
    return ()


def unknown_state(_workspace_id: str, _server_slug: str) -> bool | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyticsQuery:
    """What the views answer. Whatever a request says, it reaches one workspace only, and one member if so bound."""

    access: Access
    fields: Fields
    parameters: Parameters
    now_ns: int
    fresh_as_of_ns: int | None
    catalog: Catalog = empty_catalog
    upstream_up: UpstreamUp = unknown_state
    call_id: str = ""
    """From the path, if it names a call."""

    @property
    def range(self) -> Range:
        """The range of the request, clamped to the plan's retention."""
        return self.clamped(self.parameters.from_ns, self.parameters.to_ns)

    def clamped(self, from_ns: int, to_ns: int) -> Range:
        """The part of a range that the plan retains."""
        return clamp(from_ns, to_ns, now_ns=self.now_ns, retention_days=self.access.plan.retention_days)

    @property
    def filters(self) -> Filters:
        """The request's filters; a bound member's is always among them."""
        return {**self.parameters.filters, **self._member_filter}

    @property
    def _member_filter(self) -> Filters:
        return {} if self.access.member is None else {"token": (self.access.member,)}

    def scope(self, from_ns: int | None = None, to_ns: int | None = None) -> Scope:
        """The filtered calls of the range, or of the given times."""
        begin, end, _ = self.range
        return Scope(
            workspace_id=self.access.workspace_id,
            from_ns=begin if from_ns is None else from_ns,
            to_ns=end if to_ns is None else to_ns,
            filters=self.filters,
        )

    def unfiltered(self, from_ns: int) -> Scope:
        """All calls from `from_ns` until now that the bearer may see at all."""
        return Scope(
            workspace_id=self.access.workspace_id, from_ns=from_ns, to_ns=self.now_ns, filters=self._member_filter
        )

    def admits(self, dimension: Dimension, value: str) -> bool:
        """Whether the filters let `value` into a list."""
        wanted = self.filters.get(dimension, ())
        return not wanted or value in wanted


def check_names(ledger: Ledger, query: AnalyticsQuery) -> None:
    """Reject filters for servers, tools and tokens that never existed: a typing error must not look like silence.

    Raises:
        ParameterError: with the names that exist.
        LedgerUnavailableError: the ledger is needed for it, and is away.
    """
    unconfigured = unconfigured_names(query)
    if unconfigured:
        check_ever_called(ledger, query, unconfigured)


def unconfigured_names(query: AnalyticsQuery) -> UnconfiguredNames:
    """The names in filters that cannot be checked without the ledger; `ParameterError` if no call can have one.

    Tools are checked only if the catalog is known: without it, a tool that nobody called yet looks like a typing error.
    """
    unconfigured: dict[NamedDimension, Sequence[str]] = {}
    for dimension in NAMED_DIMENSIONS:
        wanted = query.parameters.filters[dimension]
        names = _configured(query, dimension) if wanted else ()
        found = [value for value in wanted if value not in names and (value != UNKNOWN or dimension == "token")]
        for value in found:
            if not is_storable(value):
                raise _unknown(dimension, value, names)
        if found and (names or dimension != "tool"):
            unconfigured[dimension] = found
    return unconfigured


def check_ever_called(ledger: Ledger, query: AnalyticsQuery, unconfigured: UnconfiguredNames) -> None:
    """Reject names that were never called, as far as the bearer may know; raises as `check_names` does."""
    with ledger.snapshot() as snapshot:
        for dimension, values in unconfigured.items():
            seen = snapshot.rows(ever_called(query.unfiltered(0), dimension, values))
            for value in values:
                if (value,) not in seen:
                    raise _unknown(dimension, value, _configured(query, dimension))


def _configured(query: AnalyticsQuery, dimension: NamedDimension) -> Collection[str]:
    """The names that the configuration or the catalog has, as far as the bearer may know them."""
    access = query.access
    match dimension:
        case "server":
            return access.workspace.servers
        case "token":
            return {token.id for token in access.workspace.tokens} if access.member is None else {access.member}
        case "tool":
            return {tool for _, tool in query.catalog(access.workspace_id)}


def _unknown(dimension: NamedDimension, value: str, names: Collection[str]) -> ParameterError:
    return ParameterError(dimension, f"{value!r} is not known here", sorted(names))
