"""Who takes part in the demo: two workspaces, their servers, and the members and bots that call them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gateway.tokens import identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPattern:
    """A tool that a member calls, under the gateway's name for it, and how much of their calls it makes up."""

    tool: str
    weight: float
    arguments: Mapping[str, str]
    timeout_s: float | None = None
    """After which the member gives up; only where the tool takes far longer, so that the outcome is certain."""
    exists: bool = True
    """False for a tool that no server lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person's client or a bot. Only in the modern era does giving up end a call, so only those are impatient."""

    name: str
    kind: Literal["member", "bot"]
    workspace: str
    mode: Literal["auto", "legacy"]
    """As the SDK's client has it: `auto` speaks 2026-07-28, `legacy` begins with `initialize`."""
    calls_per_s: float
    patterns: Sequence[CallPattern]
    rate_limit: str | None = None

    @property
    def token_id(self) -> str:
        """The id of the member's token."""
        return identifier(self.name)


WORKSPACES: Final[Mapping[str, Sequence[str]]] = {
    "engineering": ("github", "billing", "files", "warehouse"),
    "support": ("billing", "files", "mail"),
}
"""The servers of each workspace. Nobody listens where `mail` should be."""

MEMBERS: Final = (
    Member(
        name="Alice Cursor",
        kind="member",
        workspace="engineering",
        mode="auto",
        calls_per_s=4,
        patterns=(
            CallPattern(tool="github__search_issues", weight=5, arguments={"query": "latency"}),
            CallPattern(
                tool="github__create_issue", weight=2, arguments={"title": "p95 of billing", "body": "It doubled."}
            ),
            CallPattern(tool="github__merge_pull_request", weight=1, arguments={"number": "41"}),
            CallPattern(tool="files__read_file", weight=4, arguments={"path": "src/relay.py"}),
            CallPattern(tool="github__index_repository", weight=0.3, arguments={"repository": "acme/gateway"}),
            CallPattern(
                tool="github__index_repository", weight=0.3, arguments={"repository": "acme/big"}, timeout_s=0.4
            ),
        ),
    ),
    Member(
        name="Bob Claude Code",
        kind="member",
        workspace="engineering",
        mode="legacy",
        calls_per_s=2.5,
        patterns=(
            CallPattern(tool="files__read_file", weight=5, arguments={"path": "README.md"}),
            CallPattern(tool="files__list_folder", weight=3, arguments={"path": "."}),
            CallPattern(tool="github__search_issues", weight=2, arguments={"query": "flaky"}),
            CallPattern(tool="warehouse__stock_level", weight=1, arguments={"article": "4711"}),
        ),
    ),
    Member(
        name="CI Bot",
        kind="bot",
        workspace="engineering",
        mode="auto",
        calls_per_s=3,
        rate_limit="20/10 second",
        patterns=(
            CallPattern(tool="github__search_issues", weight=4, arguments={"query": "is:open label:release"}),
            CallPattern(tool="warehouse__stock_level", weight=2, arguments={"article": "1001"}),
            CallPattern(tool="files__current_time", weight=2, arguments={"zone": "UTC"}),
        ),
    ),
    Member(
        name="Dana Claude Desktop",
        kind="member",
        workspace="support",
        mode="legacy",
        calls_per_s=2,
        patterns=(
            CallPattern(tool="billing__get_invoice", weight=5, arguments={"number": "INV-2041"}),
            CallPattern(tool="billing__list_customers", weight=2, arguments={"segment": "enterprise"}),
            CallPattern(tool="billing__refund_payment", weight=1, arguments={"payment": "pay_77"}),
            CallPattern(tool="billing__export_ledger", weight=0.5, arguments={"month": "2026-10"}),
        ),
    ),
    Member(
        name="Triage Bot",
        kind="bot",
        workspace="support",
        mode="auto",
        calls_per_s=1.5,
        patterns=(
            CallPattern(tool="billing__get_invoice", weight=4, arguments={"number": "INV-1999"}),
            CallPattern(tool="billing__close_account", weight=0.5, arguments={"customer": "c_12"}, exists=False),
            CallPattern(tool="mail__send", weight=0.5, arguments={"to": "a@example.com"}, exists=False),
        ),
    ),
)

GUEST: Final = Member(name="You", kind="member", workspace="engineering", mode="auto", calls_per_s=0, patterns=())
"""Whoever pastes the configuration that the demo prints: their calls are shown, and left out of the reckoning."""
