"""The rules, and the promtool tests of them, as a test reads them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

ROOT: Final = Path(__file__).parent.parent.parent
FOLDER: Final = ROOT / "prometheus"
RULES: Final = sorted((FOLDER / "rules").glob("*.y*ml"))
TESTS: Final = sorted((FOLDER / "tests").glob("*.y*ml"))

Tree = dict[str, Any]


class _Texts(yaml.SafeLoader):
    """Takes every scalar for a text, as promtool does: to YAML `0x60` is 96, to promtool it is a 0 and sixty more."""


_Texts.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:merge"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Rule(NamedTuple):
    """A recording rule, or an alert."""

    file: Path
    name: str
    tree: Tree

    def __str__(self) -> str:
        return f"{self.name} {self.tree.get('labels', {}).get('severity', '')}".rstrip()

    @property
    def expr(self) -> str:
        """Its PromQL."""
        return str(self.tree["expr"])


class Check(NamedTuple):
    """What a promtool test says of an alert at one time."""

    file: Path
    alert: str
    time: str
    expected: list[Tree]
    """`exp_labels` and `exp_annotations` of each that fires."""


def groups(path: Path) -> list[Tree]:
    """The groups of a rules file."""
    found: list[Tree] = yaml.safe_load(path.read_text())["groups"]
    return found


def rules(kind: str) -> list[Rule]:
    """All rules of a kind, `alert` or `record`."""
    return [
        Rule(path, rule[kind], rule)
        for path in RULES
        for group in groups(path)
        for rule in group["rules"]
        if kind in rule
    ]


def promtool_tests(path: Path) -> Tree:
    """A file of promtool's tests, whose scalars are texts."""
    tree: Tree = yaml.load(path.read_text(), _Texts)  # noqa: S506 - a SafeLoader
    return tree


def checks(path: Path) -> Iterator[Check]:
    """What a file of tests says of alerts."""
    for test in promtool_tests(path)["tests"]:
        for check in test.get("alert_rule_test", ()):
            yield Check(path, check["alertname"], check["eval_time"], check.get("exp_alerts") or [])


ALERTS: Final = rules("alert")
RECORDED: Final = rules("record")
CHECKS: Final = [check for path in TESTS for check in checks(path)]
