"""Runs the official MCP conformance suite against a URL, and says what it found.

`python -m tests.conformance.suite > tests/conformance/matrix.json` records the matrix of eras: which of a revision's
required scenarios pass through a workspace whose server speaks older revisions only, or the newest only.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from tests.system.gateway_process import Gateway, running

Revision = Literal["2025-11-25", "2026-07-28"]
Era = Literal["both", "legacy", "modern"]

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
MODULES: Final = ROOT / ".tools" / "conformance" / "node_modules"
PACKAGE: Final = MODULES / "@modelcontextprotocol" / "conformance"
MISSING: Final = "the MCP conformance suite is not installed: `make conformance-tools` installs it (with npm)"
REVISIONS: Final[tuple[Revision, ...]] = ("2025-11-25", "2026-07-28")
MATRIX: Final[tuple[tuple[Era, Revision], ...]] = (
    ("legacy", "2025-11-25"),
    ("legacy", "2026-07-28"),
    ("modern", "2025-11-25"),
)
"""The server's era, and what its client speaks. A modern server's modern client is what a server of both eras gives."""
RECORDED: Final = HERE / "matrix.json"
"""The matrix as it was measured last, for the documentation."""
SERVER: Final = "everything"
MEMBER: Final = "suite"
NODE: Final = 22
"""The oldest major version of Node that runs the suite."""
LIMIT_S: Final = 170
"""Of one run; a scenario by itself has 30 s."""
_FOLDER: Final = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that the suite looked at and found wrong."""

    id: str
    status: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run. `failures` has the scenarios with a failed check or a warning; the others passed."""

    revision: Revision
    exit_code: int
    required: tuple[str, ...]
    """The scenarios that the revision demands."""
    failures: Mapping[str, tuple[Check, ...]] = field(repr=False)
    """By scenario; those that are reported only are among them."""
    output: str = field(repr=False)

    @property
    def failed(self) -> tuple[str, ...]:
        """The required scenarios that did not pass."""
        return tuple(name for name in self.required if name in self.failures)

    @property
    def passed(self) -> tuple[str, ...]:
        """The required scenarios that passed."""
        return tuple(name for name in self.required if name not in self.failures)

    def __str__(self) -> str:
        lines = [f"{self.revision}: {len(self.passed)} of {len(self.required)} required scenarios pass"]
        for scenario in self.failed:
            lines += [f"  {scenario}", *(f"    {c.status} {c.id}: {c.error}" for c in self.failures[scenario])]
        if self.exit_code and not self.failed:
            lines += [f"  the suite ended with status {self.exit_code}:", self.output]
        return "\n".join(lines)


def node() -> str | None:
    """A Node that can run the suite: the one beside it, or the machine's; None if there is none, or no suite."""
    if not (PACKAGE / "dist" / "index.js").is_file():
        return None
    beside = sorted(MODULES.glob("node-*/bin/node"))
    found = str(beside[0]) if beside else shutil.which("node")
    if found is None:
        return None
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    major = re.match(r"v(\d+)", version)
    return found if major and int(major[1]) >= NODE else None


def required(revision: Revision) -> tuple[str, ...]:
    """The scenarios that a server of this revision has to pass, from the suite's own frozen list."""
    listed = yaml.safe_load((PACKAGE / "requirements" / f"{revision}.yaml").read_text())
    return tuple(listed["server"])


def run(url: str, revision: Revision) -> Report:
    """Run every scenario that the revision requires, and those that the suite reports beside them."""
    found = node()
    assert found is not None, MISSING
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        arguments = ("--url", url, "--requirements", revision, "--output-dir", folder)
        expected = ("--expected-failures", str(HERE / f"expected-failures.{revision}.yml"))
        ended = subprocess.run(
            [found, str(PACKAGE / "dist" / "index.js"), "server", *arguments, *expected],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        checked = dict(_checks(Path(folder)))
    scenarios = required(revision)
    never_ran = (Check(id="run", status="FAILURE", error="the scenario left no checks: see the suite's output"),)
    failures = {scenario: checks for scenario, checks in checked.items() if checks}
    failures |= {scenario: never_ran for scenario in scenarios if scenario not in checked}
    return Report(
        revision=revision, exit_code=ended.returncode, required=scenarios, failures=failures, output=ended.stdout
    )


def _checks(folder: Path) -> Iterator[tuple[str, tuple[Check, ...]]]:
    """What was found wrong, by scenario: nothing if it passed."""
    for file in sorted(folder.glob("server-*/checks.json")):
        named = _FOLDER.fullmatch(file.parent.name)
        assert named, file
        wrong = [it for it in json.loads(file.read_text()) if it["status"] in ("FAILURE", "WARNING")]
        yield (
            named["scenario"],
            tuple(
                Check(id=it["id"], status=it["status"], error=it.get("errorMessage") or it["description"])
                for it in wrong
            ),
        )


@contextlib.contextmanager
def serving(module: str, *arguments: str) -> Iterator[str]:
    """A process of this folder, `fixture` or `adapter`, while the block runs: its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.conformance.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, f"tests.conformance.{module} did not start"
        try:
            yield url
        finally:
            process.communicate(timeout=60)


@contextlib.contextmanager
def workspace(folder: Path, era: Era) -> Iterator[tuple[str, Gateway]]:
    """A workspace with one server of this era, and the URL at which the suite finds it."""
    with (
        serving("fixture", f"--era={era}") as fixture,
        running(folder, {SERVER: {"url": fixture}}, {MEMBER: {}}) as gateway,
        serving("adapter", f"--to={gateway.url}", f"--token={gateway.secrets[MEMBER]}", f"--prefix={SERVER}__") as url,
    ):
        yield url, gateway


def through_a_workspace(folder: Path, era: Era, revision: Revision) -> Report:
    """Run the suite against a server of this era behind Callscope."""
    with workspace(folder, era) as (url, _):
        return run(url, revision)


def pair(era: Era, revision: Revision) -> str:
    """How the matrix calls a server and its client."""
    return f"{era} server, {revision} client"


def matrix(folder: Path) -> dict[str, dict[str, Any]]:
    """What clients get from servers of one era, measured now.

    `{"legacy server, 2026-07-28 client": {"passed": [...], "failed": {scenario: [why, ...]}}, ...}`, of the scenarios
    that the client's revision requires.
    """
    table = {}
    for era, revision in MATRIX:
        beneath = folder / f"{era}-{revision}"
        beneath.mkdir()
        report = through_a_workspace(beneath, era, revision)
        table[pair(era, revision)] = {
            "passed": list(report.passed),
            "failed": {name: [check.error for check in report.failures[name]] for name in report.failed},
        }
    return table


def recorded() -> dict[str, dict[str, Any]]:
    """The matrix in `matrix.json`."""
    table: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text())
    return table


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        print(json.dumps(matrix(Path(scratch)), indent=2))  # noqa: T201 - what it is called for
