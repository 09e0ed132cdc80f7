"""What a demo tool does, and how its calls planned out: drawn from a seed, so that the same run ends the same way."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

HANG_S: Final = 3600.0
"""Seconds that a hanging call would take if nobody gave up."""
REFUSED: Final = 1001
"""The JSON-RPC code of a tool that answers with an error object: the application's own (JSON-RPC 2.0, section 5.1)."""


class Outcome(StrEnum):
    """How a call planned out; the last three take a server that does not keep to MCP."""

    OK = "ok"
    TOOL_ERROR = "tool_error"
    JSONRPC_ERROR = "jsonrpc_error"
    HANG = "hang"
    HTTP_ERROR = "http_error"
    GARBAGE = "garbage"
    CUT = "cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTool:
    """One tool. It takes `median_ms`, log-normally spread; `failures` says what share of its calls fail, and how."""

    name: str
    description: str
    median_ms: float = 0.0
    spread: float = 0.35
    """Of the logarithm: 0 is always the median."""
    steps: int = 0
    """Progress notifications on the way."""
    failures: Mapping[Outcome, float] = field(default_factory=dict)
    message: str = "it failed"
    """What a failure says."""
    read_only: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Name and description of each argument; all are strings, none is required."""

    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        properties = {name: {"type": "string", "description": text} for name, text in self.parameters.items()}
        return {"type": "object", "properties": properties}


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """How one call goes: its outcome and the seconds that it works."""

    outcome: Outcome
    seconds: float


class Outcomes:
    """Draws the planned of each tool's calls: the n-th call of a tool has the same planned for the same seed."""

    def __init__(self, tools: Sequence[DemoTool], seed: int) -> None:
        self._tools = {
            tool.name: (tool, random.Random(f"{seed}:{tool.name}"))  # noqa: S311 - repeatable on purpose
            for tool in tools
        }

    def draw(self, name: str) -> PlannedCall:
        """The planned of the tool's next call.

        Raises:
            KeyError: no such tool.
        """
        tool, rng = self._tools[name]
        seconds = tool.median_ms / 1000 * rng.lognormvariate(0, tool.spread)
        outcome = rng.choices(
            [Outcome.OK, *tool.failures], [max(1 - sum(tool.failures.values()), 0), *tool.failures.values()]
        )
        return PlannedCall(outcome[0], seconds)


GITHUB: Final = (
    DemoTool(
        name="search_issues",
        description="Search the issues of a repository.",
        median_ms=35,
        read_only=True,
        parameters={"query": "Words to look for."},
    ),
    DemoTool(
        name="create_issue",
        description="Open an issue.",
        median_ms=90,
        failures={Outcome.JSONRPC_ERROR: 0.03},
        message="Validation Failed: the title is empty",
        parameters={"title": "One line.", "body": "Markdown."},
    ),
    DemoTool(
        name="merge_pull_request",
        description="Merge a pull request.",
        median_ms=140,
        failures={Outcome.TOOL_ERROR: 0.2},
        message="Pull request is not mergeable: merge conflict in gateway/app.py",
        parameters={"number": "The pull request."},
    ),
    DemoTool(
        name="index_repository",
        description="Build the search index anew; reports progress.",
        median_ms=1500,
        spread=0.1,
        steps=10,
        parameters={"repository": "owner/name"},
    ),
)
BILLING: Final = (
    DemoTool(
        name="get_invoice",
        description="One invoice by its number.",
        median_ms=25,
        read_only=True,
        failures={Outcome.TOOL_ERROR: 0.05},
        message="No invoice has this number",
        parameters={"number": "For instance INV-2041."},
    ),
    DemoTool(
        name="list_customers",
        description="All customers.",
        median_ms=60,
        read_only=True,
        parameters={"segment": "Only these."},
    ),
    DemoTool(
        name="refund_payment",
        description="Pay a payment back.",
        median_ms=120,
        failures={Outcome.JSONRPC_ERROR: 0.15},
        message="The payment provider refused: already refunded",
        parameters={"payment": "Its id."},
    ),
    DemoTool(
        name="export_ledger",
        description="The whole ledger as a file.",
        median_ms=600,
        spread=0.5,
        failures={Outcome.HANG: 0.25},
        parameters={"month": "YYYY-MM"},
    ),
)
FILES: Final = (
    DemoTool(
        name="read_file",
        description="A file's text.",
        median_ms=4,
        read_only=True,
        failures={Outcome.TOOL_ERROR: 0.08},
        message="No such file or directory",
        parameters={"path": "In the project."},
    ),
    DemoTool(
        name="list_folder",
        description="The names in a folder.",
        median_ms=3,
        read_only=True,
        parameters={"path": "In the project."},
    ),
    DemoTool(
        name="current_time",
        description="The time now.",
        median_ms=1,
        read_only=True,
        parameters={"zone": "An IANA time zone."},
    ),
)
WAREHOUSE: Final = (
    DemoTool(
        name="stock_level",
        description="How many pieces there are.",
        median_ms=30,
        failures={Outcome.HTTP_ERROR: 0.2, Outcome.GARBAGE: 0.04, Outcome.CUT: 0.04},
        message="Bad Gateway: warehouse-db does not answer",
        parameters={"article": "Its number."},
    ),
)
