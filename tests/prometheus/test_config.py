"""What Prometheus and Alertmanager are started with: it is valid, and alerts go where it says."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest
import yaml

from tests.backends import installed
from tests.prometheus.programs import PROMTOOLS, Promtool, alertmanager, asked
from tests.prometheus.rule_files import ALERTS, CHECKS, FOLDER, ROOT
from tests.system.gateway_process import TLS, eventually

CONFIG: Final = ROOT / "alertmanager" / "config.yml"
RUNBOOK: Final = ROOT / "docs" / "runbook.md"
ROUTES: Final = {"critical": "page", "warning": "ticket", "info": "note", "strange": "nobody"}
QUIET: Final = {
    "CallscopeGatewayFaultsFast": "GatewayFaultsSlow",
    "CallscopeServerFailuresFast": "ServerFailuresSlow",
    "CallscopeUpstreamDown": "ServerFailuresFast ServerFailuresSlow ServerSlow ErrorSpike",
    "CallscopeObserverDown": "TelemetryLate TelemetryStale LedgerSilent RelayDown EventLoopLag ScrapeSlow"
    " ObserverRestarting SeriesOverflow",
    "CallscopeTelemetryStale": "TelemetryLate",
    "CallscopeLedgerSilent": "TelemetryLate TelemetryStale",
    "CallscopePlanRefusesCalls": "PlanNearingLimit PlanNearlyUsed PlanProjectedOver PlanUsed",
    "CallscopePlanUsed": "PlanNearingLimit PlanNearlyUsed PlanProjectedOver",
    "CallscopePlanNearlyUsed": "PlanNearingLimit PlanProjectedOver",
}
"""Which alerts an alert keeps quiet, of the same thing. CallscopeAbsent, which is of nothing, and CallscopeBackEndDown,
which is of another job, have tests of their own."""
PAIRS: Final = {(source, f"Callscope{target}") for source, targets in QUIET.items() for target in targets.split()}
SAME: Final = {"instance": "a:9464", "workspace": "eng", "server": "github", "sink": "ledger"}
EXAMPLES: Final = {
    check.alert: {"alertname": check.alert, **check.expected[0]["exp_labels"]} for check in CHECKS if check.expected
}
"""An alert's labels, by its name."""
_MATCHER: Final = re.compile(r'(\w+)(=~|=)"([^"]*)"')

Labels = dict[str, str]


@pytest.mark.parametrize("promtool", PROMTOOLS)
def test_prometheus_takes_its_configuration_with_all_files_that_it_names(tmp_path: Path, promtool: Promtool) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "demo-targets").mkdir()
    (tmp_path / "demo-targets" / "demo.yml").write_text('- targets: ["demo:9464"]\n')

    done = promtool.ask("check", "config", "--lint=all", "--lint-fatal", tmp_path / "prometheus.yml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


@pytest.mark.backend
def test_alertmanager_takes_its_configuration() -> None:
    done = asked(installed("amtool"), "check-config", CONFIG)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.backend
@pytest.mark.parametrize(("severity", "receiver"), ROUTES.items())
def test_an_alert_goes_to_the_receiver_of_its_severity(severity: str, receiver: str) -> None:
    done = asked(
        installed("amtool"), "config", "routes", "test", f"--config.file={CONFIG}",
        f"--verify.receivers={receiver}", "alertname=CallscopeUpstreamDown", f"severity={severity}",
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_severity_of_the_rules_has_a_route() -> None:
    assert {alert.tree["labels"]["severity"] for alert in ALERTS} == set(ROUTES) - {"strange"}


def matchers(texts: list[str]) -> dict[str, str]:
    """Patterns by label."""
    found = {}
    for text in texts:
        match = _MATCHER.fullmatch(text)
        assert match is not None, text
        label, operator, value = match.groups()
        found[label] = value if operator == "=~" else re.escape(value)
    return found


@pytest.mark.parametrize("rule", yaml.safe_load(CONFIG.read_text())["inhibit_rules"], ids=lambda rule: str(rule)[:80])
def test_what_keeps_alerts_quiet_names_alerts_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    for side in ("source_matchers", "target_matchers"):
        patterns = matchers(rule[side])
        for name in alternatives(patterns.pop("alertname")):
            alerts = [alert for alert in EXAMPLES if re.fullmatch(name, alert)]
            assert alerts, name
            for alert in alerts:
                assert {*patterns, *rule.get("equal", ())} <= EXAMPLES[alert].keys(), alert


def alternatives(pattern: str) -> list[str]:
    """`ab` and `ac` of `a(b|c)`; what stands outside of parentheses is split as well."""
    parts = re.findall(r"(?:\([^()]*\)|[^|()])+", pattern)
    return [
        part[: group.start()] + one + part[group.end() :] if group else part
        for part in parts
        for group in [re.search(r"\(([^()]*)\)", part)]
        for one in (group[1].split("|") if group else [""])
    ]


class Scene(NamedTuple):
    """Two alerts that fire."""

    source: Labels
    target: Labels
    quiet: bool
    """Whether the first is to keep the second quiet."""


def about(alert: str, job: str, **others: str) -> Labels:
    """An alert's labels, of a certain thing."""
    example = EXAMPLES[alert]
    return example | {label: value for label, value in (SAME | others | {"job": job}).items() if label in example}


def scenes() -> Iterator[Scene]:
    """Any two alerts of the same thing, and those that keep each other quiet of things that differ in one label."""
    for number, pair in enumerate(permutations(sorted(EXAMPLES.keys() - {"CallscopeAbsent"}), 2)):
        source, target = pair
        yield Scene(about(source, f"{number}"), about(target, f"{number}"), pair in PAIRS)
        if pair not in PAIRS:
            continue
        yield Scene(about(source, f"{number} here"), about(target, f"{number} there"), quiet=False)
        for label in (EXAMPLES[source].keys() & EXAMPLES[target].keys()) - {"job", "alertname", "severity"}:
            job = f"{number} {label}"
            yield Scene(about(source, job), about(target, job, **{label: "another"}), quiet=False)
    for target in ("CallscopeTelemetryLate", "CallscopeTelemetryStale"):
        job = f"other sink {target}"
        yield Scene(about("CallscopeLedgerSilent", job), about(target, job, sink="otlp"), quiet=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Alertmanager with the configuration."""
    with alertmanager(CONFIG, tmp_path_factory.mktemp("alertmanager")) as url:
        yield url


def fire(url: str, *alerts: Labels) -> None:
    """Let alerts fire."""
    answer = httpx.post(f"{url}/api/v2/alerts", json=[{"labels": labels} for labels in alerts], timeout=30, verify=TLS)
    assert answer.is_success, answer.text


def statuses(url: str) -> dict[frozenset[tuple[str, str]], dict[str, Any]]:
    """What Alertmanager does with each alert, by its labels."""
    alerts = httpx.get(f"{url}/api/v2/alerts", timeout=30, verify=TLS).json()
    return {frozenset(alert["labels"].items()): alert["status"] for alert in alerts}


@pytest.mark.backend
def test_an_alert_keeps_quiet_what_it_explains_of_the_same_thing_and_nothing_else(running: str) -> None:
    everything = list(scenes())
    absent = EXAMPLES["CallscopeAbsent"]
    fire(running, absent)
    eventually(lambda: frozenset(absent.items()) in statuses(running))
    assert not statuses(running)[frozenset(absent.items())]["inhibitedBy"]

    fire(running, *(labels for scene in everything for labels in (scene.source, scene.target)))

    def as_they_should_be() -> bool:
        found = statuses(running)
        wrong = [
            (scene.source, scene.target)
            for scene in everything
            if bool(found[frozenset(scene.target.items())]["inhibitedBy"]) != scene.quiet
        ]
        assert not wrong, wrong[:3]
        return bool(found[frozenset(absent.items())]["inhibitedBy"])

    assert sum(scene.quiet for scene in everything) == len(PAIRS)
    eventually(as_they_should_be)


@pytest.mark.backend
@pytest.mark.parametrize(("away", "there"), [("loki", "tempo"), ("tempo", "loki")])
def test_a_back_end_that_is_down_keeps_quiet_that_the_collector_cannot_send_to_it(
    tmp_path: Path, away: str, there: str
) -> None:
    down = about("CallscopeBackEndDown", away)
    explained, other = (
        {**EXAMPLES["CallscopeCollectorStuck"], "exporter": f"otlp_http/{name}"} for name in (away, there)
    )

    with alertmanager(CONFIG, tmp_path) as url:
        fire(url, down, explained, other)

        eventually(lambda: statuses(url)[frozenset(explained.items())]["inhibitedBy"])
        assert not statuses(url)[frozenset(other.items())]["inhibitedBy"]


@pytest.mark.backend
def test_an_alert_is_silenced_as_the_runbook_says(running: str) -> None:
    [block] = re.findall(r"```sh\n(amtool silence add.+?)```", RUNBOOK.read_text(), re.DOTALL)
    add, query, expire = block.replace("\\\n", " ").replace("http://localhost:9093", running).splitlines()
    here, there = about("CallscopeUpstreamDown", "silenced", workspace="engineering"), EXAMPLES["CallscopeUpstreamDown"]
    installed("amtool")

    made = shell(add).strip()
    fire(running, here, there)

    eventually(lambda: statuses(running)[frozenset(here.items())]["silencedBy"] == [made])
    assert not statuses(running)[frozenset(there.items())]["silencedBy"]
    assert made in shell(query)
    shell(expire.replace("ID", made))
    eventually(lambda: not statuses(running)[frozenset(here.items())]["silencedBy"])


def shell(command: str) -> str:
    """What a line of the runbook prints."""
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "USER": "somebody"}
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
