"""TraceQL as a test reads it, by Grafana's own grammar for its editor."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.dashboards.reading import ROOT

SCRIPT: Final = Path(__file__).parent / "traceql_grammar" / "parse.mjs"
GRAMMAR: Final = ROOT / ".tools" / "traceql"


def attributes(*queries: str) -> list[list[str] | None]:
    """Of each query the attributes that it names, with their scope as `span.mcp.call.id`; None if it is no TraceQL."""
    node = shutil.which("node")
    if node is None or not (GRAMMAR / "node_modules").is_dir():
        message = "no TraceQL grammar is installed: `make stack-tools` does that (it takes npm)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    command = [node, "--input-type=module", "--eval", SCRIPT.read_text(), json.dumps(queries)]
    done = subprocess.run(command, cwd=GRAMMAR, capture_output=True, text=True, check=True, timeout=60)
    found: list[list[str] | None] = json.loads(done.stdout)
    return found
