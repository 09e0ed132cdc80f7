"""The rules are what Prometheus 2 and 3 take, ask for what there is, and say what a person who is paged needs."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.dashboards.promql import groupings, matchings, parsed, selectors
from tests.dashboards.series import LABELS, labels_of, level
from tests.prometheus.programs import PROMTOOLS, Promtool
from tests.prometheus.rule_files import ALERTS, CHECKS, RECORDED, RULES, TESTS, Rule, groups, promtool_tests

SEVERITIES: Final = {"critical", "warning", "info"}
JOINED: Final = {"name", "kind"}
"""Labels that an expression takes over from another series."""
COUNTERS: Final = ("_total", "_bucket", "_count", "_sum")
READ_WHOLE: Final = {"increase", "rate"}
EVERY_RULE: Final = [*ALERTS, *RECORDED]


@pytest.mark.parametrize("promtool", PROMTOOLS)
def test_promtool_takes_the_rules_and_finds_nothing_to_improve(promtool: Promtool) -> None:
    promtool.run("check", "rules", "--lint=all", "--lint-fatal", *RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("promtool", PROMTOOLS)
def test_alerts_fire_and_are_silent_when_they_should(promtool: Promtool, path: Path) -> None:
    promtool.run("test", "rules", path)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_a_promtool_test_says_the_same_each_time(path: Path) -> None:
    """In any order of groups, alerts may not see what was recorded; at a sample's time, 2 and 3 see different ones."""
    tree = promtool_tests(path)
    read = [group["name"] for file in tree["rule_files"] for group in groups(path.parent / file)]

    assert sorted(tree["group_eval_order"]) == sorted(read)
    for test in tree["tests"]:
        asked = [*test.get("alert_rule_test", ()), *test.get("promql_expr_test", ())]
        assert all(check["eval_time"].endswith("7s") for check in asked)


def test_no_two_groups_or_recording_rules_have_one_name() -> None:
    names = [group["name"] for path in RULES for group in groups(path)]
    records = [rule.name for rule in RECORDED]

    assert len(set(names)) == len(names)
    assert len(set(records)) == len(records)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_rule_asks_for_series_and_labels_that_there_are(rule: Rule) -> None:
    recorded = {record.name for record in RECORDED}
    for selector in selectors(parsed(rule.expr)):
        labels = labels_of(selector.metric)
        assert labels is not None, f"{selector.metric} is not exported"
        assert selector.metric in recorded or ":" not in selector.metric, f"{selector.metric} is not recorded"
        assert set(selector.matchers) <= labels, selector


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_rule_groups_and_matches_by_labels_that_there_are(rule: Rule) -> None:
    expr = parsed(rule.expr)
    for labels, inner in [*groupings(expr), *matchings(expr)]:
        having = [labels_of(selector.metric) or set() for selector in selectors(inner)]
        assert set(labels) <= set().union(*having, JOINED), labels


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_rule_reads_counters_by_their_increase_or_records_whole_ones_of_each_observer(rule: Rule) -> None:
    whole = rule.name.startswith("instance_") and rule.name.endswith(":sum")
    for selector in selectors(parsed(rule.expr)):
        if ":" not in selector.metric and selector.metric.endswith(COUNTERS):
            assert selector.within in ({"sum"} if whole else READ_WHOLE), selector


@pytest.mark.parametrize("rule", RECORDED, ids=str)
def test_a_recording_rule_is_named_for_its_labels_its_metric_and_what_was_done(rule: Rule) -> None:
    """`level:metric:operations`, where the level is what the outermost aggregation keeps beside the job."""
    match = re.fullmatch(r"[a-z_]+:mcp_gateway_[a-z_]+:[a-z0-9_]+", rule.name)
    labels = level(rule.name)
    outermost = next((labels for labels, _ in groupings(parsed(rule.expr))), None)

    assert match is not None
    assert set(labels) <= LABELS
    if type(parsed(rule.expr)).__name__ == "AggregateExpr":
        assert outermost is not None
        assert sorted(outermost) == sorted({*labels, "job"})


@pytest.mark.parametrize("alert", ALERTS, ids=str)
def test_an_alert_says_how_bad_it_is_and_what_is_wrong(alert: Rule) -> None:
    annotations = alert.tree["annotations"]

    assert alert.tree["labels"].keys() == {"severity"}
    assert alert.tree["labels"]["severity"] in SEVERITIES
    assert re.fullmatch(r"Callscope([A-Z][a-z]+)+", alert.name)
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert re.fullmatch(r"[A-Z][^{}]+[a-z]\.", annotations["summary"])
    assert annotations["description"].endswith(".")
    of_something = not alert.expr.startswith("absent(")  # what is nowhere has no labels to speak of
    assert ("{{ $labels." in annotations["description"]) == of_something
    assert annotations["runbook_url"] == f"docs/runbook.md#{alert.name.lower()}"


@pytest.mark.parametrize("alert", ALERTS, ids=str)
def test_an_alert_has_a_test_in_which_it_fires_and_one_in_which_it_is_silent(alert: Rule) -> None:
    severity = alert.tree["labels"]["severity"]
    fires = [
        one
        for check in CHECKS
        if check.alert == alert.name
        for one in check.expected
        if one["exp_labels"]["severity"] == severity
    ]
    silent = [check for check in CHECKS if check.alert == alert.name and not check.expected]

    assert fires
    assert all(one["exp_annotations"].keys() == {"summary", "description", "runbook_url"} for one in fires)
    assert silent


def test_the_tests_speak_of_no_other_alerts() -> None:
    assert {check.alert for check in CHECKS} == {alert.name for alert in ALERTS}


def test_alerts_of_one_name_differ_in_severity() -> None:
    assert len({(alert.name, alert.tree["labels"]["severity"]) for alert in ALERTS}) == len(ALERTS)
