"""The demo's workspaces, their servers, and the members and bots that call them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gateway.tokens import identifier


@dataclass(frozen=True, slots=True)
class CallPattern:
    """A tool that a member calls, by the gateway's name for it, and its share of the member's calls."""

    tool: str
    weight: float
    arguments: Mapping[str, str]
    timeout_s: float | None = None
    """When the client gives up; it is set only where the tool takes much longer, so that the outcome is certain."""
    exists: bool = True
    """False for a tool that no server lists."""


@dataclass(frozen=True, slots=True)
class Member:
    """A person's client or a bot. Only `auto` members have timeouts: a legacy client's do not end its call."""

    name: str
    kind: Literal["member", "bot"]
    workspace: str
    mode: Literal["auto", "legacy"]
    """Of the SDK's client: `auto` speaks 2026-07-28, `legacy` begins with `initialize`."""
    calls_per_s: float
    patterns: Sequence[CallPattern]
    rate_limit: str | None = None

    @property
    def token_id(self) -> str:
        return identifier(self.name)


WORKSPACES: Final[Mapping[str, Sequence[str]]] = {
    "engineering": ("github", "billing", "files", "warehouse"),
    "support": ("billing", "files", "mail"),
}
"""The servers of each workspace; `mail` does not run."""

_ALICE: Final = (
    CallPattern("github__search_issues", 5, {"query": "latency"}),
    CallPattern("github__create_issue", 2, {"title": "p95 of billing", "body": "It doubled."}),
    CallPattern("github__merge_pull_request", 1, {"number": "41"}),
    CallPattern("files__read_file", 4, {"path": "src/relay.py"}),
    CallPattern("github__index_repository", 0.3, {"repository": "acme/gateway"}),
    CallPattern("github__index_repository", 0.3, {"repository": "acme/big"}, timeout_s=0.4),
)
_BOB: Final = (
    CallPattern("files__read_file", 5, {"path": "README.md"}),
    CallPattern("files__list_folder", 3, {"path": "."}),
    CallPattern("github__search_issues", 2, {"query": "flaky"}),
    CallPattern("warehouse__stock_level", 1, {"article": "4711"}),
)
_CI: Final = (
    CallPattern("github__search_issues", 4, {"query": "is:open label:release"}),
    CallPattern("warehouse__stock_level", 2, {"article": "1001"}),
    CallPattern("files__current_time", 2, {"zone": "UTC"}),
)
_DANA: Final = (
    CallPattern("billing__get_invoice", 5, {"number": "INV-2041"}),
    CallPattern("billing__list_customers", 2, {"segment": "enterprise"}),
    CallPattern("billing__refund_payment", 1, {"payment": "pay_77"}),
    CallPattern("billing__export_ledger", 0.5, {"month": "2026-10"}),
)
_TRIAGE: Final = (
    CallPattern("billing__get_invoice", 4, {"number": "INV-1999"}),
    CallPattern("billing__close_account", 0.5, {"customer": "c_12"}, exists=False),
    CallPattern("mail__send", 0.5, {"to": "a@example.com"}, exists=False),
)
MEMBERS: Final = (
    Member("Alice Cursor", "member", "engineering", "auto", 4, _ALICE),
    Member("Bob Claude Code", "member", "engineering", "legacy", 2.5, _BOB),
    Member("CI Bot", "bot", "engineering", "auto", 3, _CI, rate_limit="20/10 second"),
    Member("Dana Claude Desktop", "member", "support", "legacy", 2, _DANA),
    Member("Triage Bot", "bot", "support", "auto", 1.5, _TRIAGE),
)
GUEST: Final = Member("You", "member", "engineering", "auto", 0, ())
"""Whoever uses the client configuration that the demo prints; their calls are shown, but not compared."""
