"""The official MCP conformance suite: the fixture by itself, and Callscope in front of it, in both eras."""

from pathlib import Path

import pytest

from tests.backends import missing
from tests.conformance import suite
from tests.conformance.suite import Era, Revision

pytestmark = [pytest.mark.backend, pytest.mark.usefixtures("installed")]


@pytest.fixture(scope="module")
def installed() -> None:
    """The suite is there, or these tests say how to get it."""
    if suite.node() is None:
        missing(suite.MISSING)


@pytest.mark.parametrize("revision", suite.REVISIONS)
def test_the_fixture_by_itself_passes(revision: Revision) -> None:
    with suite.serving("fixture") as url:
        report = suite.run(url, revision)

    assert not report.failed, str(report)
    assert report.exit_code == 0, str(report)


@pytest.mark.parametrize("revision", suite.REVISIONS)
def test_the_adapter_changes_nothing_that_the_suite_sees(revision: Revision) -> None:
    with (
        suite.serving("fixture") as fixture,
        suite.serving("adapter", f"--to={fixture}", "--token=", "--prefix=") as url,
    ):
        report = suite.run(url, revision)

    assert not report.failed, str(report)
    assert report.exit_code == 0, str(report)


@pytest.mark.parametrize("revision", suite.REVISIONS)
def test_a_workspace_passes(tmp_path: Path, revision: Revision) -> None:
    report = suite.through_a_workspace(tmp_path, "both", revision)

    assert not report.failed, str(report)
    assert report.exit_code == 0, str(report)


@pytest.mark.parametrize(("era", "revision"), suite.MATRIX)
def test_between_the_eras_no_scenario_is_lost_that_the_matrix_has_as_passed(
    tmp_path: Path, era: Era, revision: Revision
) -> None:
    report = suite.through_a_workspace(tmp_path, era, revision)

    recorded = suite.recorded()[suite.pair(era, revision)]
    assert set(recorded["passed"]) <= set(report.passed), str(report)
    assert {*recorded["passed"], *recorded["failed"]} == set(report.required)


def test_the_documentation_has_the_matrix_and_a_reason_for_every_miss() -> None:
    page = (suite.ROOT / "docs" / "mcp.md").read_text()
    table = {row.split("|")[1].split()[0]: row for row in page.splitlines() if "/37 |" in row}
    for era, revision in suite.MATRIX:
        recorded = suite.recorded()[suite.pair(era, revision)]
        passed, failed = len(recorded["passed"]), recorded["failed"]
        column = table[era].split("|")[2 + suite.REVISIONS.index(revision)].strip()
        assert column == f"{passed}/{passed + len(failed)}"
        for scenario in failed:
            assert f"| `{scenario}` |" in page
