"""LogQL and TraceQL, parsed by the grammars of Grafana's own query editors."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final, Literal

from tests.backends import missing
from tests.dashboards.generated_boards import ROOT

SCRIPT: Final = Path(__file__).parent / "grammars" / "parse.mjs"
INSTALLED: Final = ROOT / ".tools" / "grammars"

Language = Literal["logql", "traceql"]


def names(language: Language, *queries: str) -> list[list[str] | None]:
    """The names that each query uses; None for a query with a syntax error.

    A name is an attribute with its scope in TraceQL, such as `span.mcp.call.id`, and a label in LogQL.
    """
    node = shutil.which("node")
    if node is None or not (INSTALLED / "node_modules").is_dir():
        missing("the grammars of LogQL and TraceQL are not installed: `make grammar-tools` installs them (with npm)")
    command = [node, "--input-type=module", "--eval", SCRIPT.read_text(), language, json.dumps(queries)]
    done = subprocess.run(command, cwd=INSTALLED, capture_output=True, text=True, check=True, timeout=60)
    found: list[list[str] | None] = json.loads(done.stdout)
    return found
