"""The demo's tools, and how their calls turn out: drawn from a seed, so that equal runs have equal outcomes."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

HANG_S: Final = 3600.0
"""Seconds that a hanging call would take if its client did not give up."""
REFUSED: Final = 1001
"""The JSON-RPC code of a tool that answers with an error object (JSON-RPC 2.0, section 5.1: application errors)."""


class Outcome(StrEnum):
    """How a call turns out; the last three violate MCP."""

    OK = "ok"
    TOOL_ERROR = "tool_error"
    JSONRPC_ERROR = "jsonrpc_error"
    HANG = "hang"
    HTTP_ERROR = "http_error"
    GARBAGE = "garbage"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class DemoTool:
    """One tool: a call takes about `median_ms` (log-normal), and a share of the calls fails as `failures` say."""

    name: str
    description: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    """The name and description of each argument; all are optional strings."""
    median_ms: float = 0.0
    spread: float = 0.35
    """Standard deviation of the logarithm; with 0 every call takes the median."""
    steps: int = 0
    """How many progress notifications a call sends."""
    failures: Mapping[Outcome, float] = field(default_factory=dict)
    message: str = "it failed"
    """The message of a failure."""
    read_only: bool = False

    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""
        properties = {name: {"type": "string", "description": text} for name, text in self.parameters.items()}
        return {"type": "object", "properties": properties}


class PlannedCall(NamedTuple):
    """How one call will turn out, and the seconds that it takes."""

    outcome: Outcome
    seconds: float


class Outcomes:
    """Draws how calls turn out: for one seed, the n-th call of a tool always turns out the same."""

    def __init__(self, tools: Sequence[DemoTool], seed: int) -> None:
        self._tools = {
            tool.name: (tool, random.Random(f"{seed}:{tool.name}"))  # noqa: S311 - repeatable on purpose
            for tool in tools
        }

    def draw(self, name: str) -> PlannedCall:
        """How the next call of a tool turns out.

        Raises:
            KeyError: there is no such tool.
        """
        tool, rng = self._tools[name]
        seconds = tool.median_ms / 1000 * rng.lognormvariate(0, tool.spread)
        weights = [max(1 - sum(tool.failures.values()), 0), *tool.failures.values()]
        return PlannedCall(rng.choices([Outcome.OK, *tool.failures], weights)[0], seconds)


GITHUB: Final = (
    DemoTool("search_issues", "Search issues.", {"query": "Words to search for."}, median_ms=35, read_only=True),
    DemoTool(
        "create_issue",
        "Open an issue.",
        {"title": "One line.", "body": "Markdown."},
        median_ms=90,
        failures={Outcome.JSONRPC_ERROR: 0.03},
        message="Validation Failed: the title is empty",
    ),
    DemoTool(
        "merge_pull_request",
        "Merge a pull request.",
        {"number": "The number of the pull request."},
        median_ms=140,
        failures={Outcome.TOOL_ERROR: 0.2},
        message="Pull request is not mergeable: merge conflict in gateway/app.py",
    ),
    DemoTool(
        "index_repository",
        "Rebuild the search index, with progress notifications.",
        {"repository": "owner/name"},
        median_ms=1500,
        spread=0.1,
        steps=10,
    ),
)
BILLING: Final = (
    DemoTool(
        "get_invoice",
        "Get an invoice.",
        {"number": "For example INV-2041."},
        median_ms=25,
        failures={Outcome.TOOL_ERROR: 0.05},
        message="No invoice has this number",
        read_only=True,
    ),
    DemoTool("list_customers", "List customers.", {"segment": "Only this segment."}, median_ms=60, read_only=True),
    DemoTool(
        "refund_payment",
        "Refund a payment.",
        {"payment": "The id of the payment."},
        median_ms=120,
        failures={Outcome.JSONRPC_ERROR: 0.15},
        message="The payment provider refused: already refunded",
    ),
    DemoTool(
        "export_ledger",
        "Export the ledger as a file.",
        {"month": "YYYY-MM"},
        median_ms=600,
        spread=0.5,
        failures={Outcome.HANG: 0.25},
    ),
)
FILES: Final = (
    DemoTool(
        "read_file",
        "Read a file.",
        {"path": "In the project."},
        median_ms=4,
        failures={Outcome.TOOL_ERROR: 0.08},
        message="No such file or directory",
        read_only=True,
    ),
    DemoTool("list_folder", "List a folder.", {"path": "In the project."}, median_ms=3, read_only=True),
    DemoTool("current_time", "Get the time.", {"zone": "An IANA time zone."}, median_ms=1, read_only=True),
)
WAREHOUSE: Final = (
    DemoTool(
        "stock_level",
        "Get the stock of an article.",
        {"article": "The number of the article."},
        median_ms=30,
        failures={Outcome.HTTP_ERROR: 0.2, Outcome.GARBAGE: 0.04, Outcome.CUT: 0.04},
        message="Bad Gateway: warehouse-db does not answer",
    ),
)
