"""The rules with a mistake in each alert, and which promtool tests notice it."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import promql_parser as promql
import yaml

from tests.dashboards.promql import parsed
from tests.prometheus.programs import Promtool
from tests.prometheus.rule_files import Rule, Tree, groups, promtool_tests

_FAILED: Final = re.compile(r"alertname: (\w+), time: \S+\s+exp:\[(\])?")
"""What promtool says of a check that fails; whether nothing was expected."""


class Mutant(NamedTuple):
    """An alert with a mistake."""

    alert: Rule
    changed: Tree


class Mutation(NamedTuple):
    """A kind of mistake."""

    name: str
    mutants: Callable[[Rule], list[Tree]]
    """The ways in which it can be made in a rule."""
    shows: Literal["fires", "silent", "either"]
    """In which tests of the alert: those that expect it, those that do not."""
    reads_recorded: bool = True
    """Whether what is left of the rule needs the recording rules."""


def turns(alerts: Iterable[Rule], mutation: Mutation) -> Iterator[list[Mutant]]:
    """The mutants, so that in each turn no two alerts of one name are changed at once."""
    by_name: dict[str, list[Mutant]] = defaultdict(list)
    for alert in alerts:
        by_name[alert.name] += [Mutant(alert, changed) for changed in mutation.mutants(alert)]
    longest = max(map(len, by_name.values()), default=0)
    for turn in range(longest):
        yield [mutants[turn] for mutants in by_name.values() if turn < len(mutants)]


def unnoticed(folder: Path, tests: Path, mutation: Mutation, mutants: Sequence[Mutant], promtool: Promtool) -> set[str]:
    """The alerts of which no test fails that should; `tests` is a file of promtool's."""
    names = {mutant.alert.name for mutant in mutants}
    tree = promtool_tests(tests)
    kept = []
    for file in tree["rule_files"]:
        path = (tests.parent / file).resolve()
        changed = [mutant for mutant in mutants if mutant.alert.file == path]
        if changed or mutation.reads_recorded:
            kept.append(path.name)
            (folder / path.name).write_text(yaml.safe_dump({"groups": _with(groups(path), changed)}))
    tree["rule_files"] = kept
    there = {group["name"] for name in kept for group in groups(folder / name)}
    tree["group_eval_order"] = [name for name in tree["group_eval_order"] if name in there]
    tree["tests"] = [test for test in map(_checks_of(names), tree["tests"]) if test["alert_rule_test"]]
    (folder / "tests.yml").write_text(yaml.safe_dump(tree))

    done = promtool.ask("test", "rules", folder / "tests.yml")

    failed = {(name, "silent" if silent else "fires") for name, silent in _FAILED.findall(done.stdout + done.stderr)}
    kinds = ("fires", "silent") if mutation.shows == "either" else (mutation.shows,)
    assert failed or done.returncode == 0, done.stdout + done.stderr
    return {name for name in names if not any((name, kind) in failed for kind in kinds)}


def _with(tree: list[Tree], mutants: Sequence[Mutant]) -> list[Tree]:
    for group in tree:
        for rule in group["rules"]:
            for mutant in mutants:
                if rule == mutant.alert.tree:
                    rule.update(mutant.changed)
    return tree


def _checks_of(names: set[str]) -> Callable[[Tree], Tree]:
    def kept(test: Tree) -> Tree:
        checks = [check for check in test.get("alert_rule_test", ()) if check["alertname"] in names]
        return {key: value for key, value in test.items() if key != "promql_expr_test"} | {"alert_rule_test": checks}

    return kept


def without_each_condition(expr: str) -> list[str]:
    """An expression without one of its `and …` or `unless …`, for each that it has."""
    tree = parsed(expr)
    return [str(tree).replace(str(node), f"({node.lhs})", 1) for node in _conditions(tree)]


def _conditions(expr: Any) -> Iterator[Any]:
    match expr:
        case promql.BinaryExpr():
            if str(expr.op) in ("and", "unless"):
                yield expr
            yield from _conditions(expr.lhs)
            yield from _conditions(expr.rhs)
        case promql.ParenExpr():
            yield from _conditions(expr.expr)
        case _:
            pass
