"""A mistake in an alert is noticed by its promtool tests: each kind of mistake, in each alert."""

from pathlib import Path
from typing import Final

import pytest

from tests.prometheus.mutations import Mutation, turns, unnoticed, without_each_condition
from tests.prometheus.programs import one_promtool
from tests.prometheus.rule_files import ALERTS, TESTS, Rule, promtool_tests

pytestmark = pytest.mark.backend

MUTATIONS: Final = [
    Mutation("never fires", lambda _: [{"expr": "vector(0) > 1"}], "fires", reads_recorded=False),
    Mutation("always fires", lambda _: [{"expr": "vector(1)"}], "silent", reads_recorded=False),
    Mutation("fires at once", lambda alert: [{"for": "0s"}] if "for" in alert.tree else [], "silent"),
    Mutation(
        "lacks a condition", lambda alert: [{"expr": one} for one in without_each_condition(alert.expr)], "either"
    ),
]


def alerts_of(tests: Path) -> list[Rule]:
    """The alerts that a file of promtool's tests."""
    read = [(tests.parent / file).resolve() for file in promtool_tests(tests)["rule_files"]]
    return [alert for alert in ALERTS if alert.file in read]


@pytest.mark.parametrize("tests", TESTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mistake_in_an_alert_is_noticed(tmp_path: Path, mutation: Mutation, tests: Path) -> None:
    for number, mutants in enumerate(turns(alerts_of(tests), mutation)):
        folder = tmp_path / str(number)
        folder.mkdir()
        missed = unnoticed(folder, tests, mutation, mutants, one_promtool())
        assert not missed, [mutant.changed for mutant in mutants if mutant.alert.name in missed]


def test_a_mistake_that_is_none_is_not_noticed(tmp_path: Path) -> None:
    """So that the test above can fail."""
    harmless = Mutation("is the same", lambda alert: [{"expr": f"({alert.expr})"}], "either")
    [tests] = [path for path in TESTS if path.stem == "objectives"]
    [mutants] = turns(alerts_of(tests), harmless)

    assert unnoticed(tmp_path, tests, harmless, mutants, one_promtool()) == {alert.name for alert in alerts_of(tests)}
