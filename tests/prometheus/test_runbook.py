"""The runbook says of each alert what it means, what to look at and what to do, and what it names is there."""

import re
import shlex
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from gateway.commands import commands
from tests.dashboards.generated_boards import BOARDS, panels
from tests.dashboards.promql import groupings, parsed, selectors
from tests.dashboards.series import labels_of
from tests.prometheus.rule_files import ALERTS, RECORDED, ROOT

TEXT: Final = (ROOT / "docs" / "runbook.md").read_text()
SECTIONS: Final = {
    section.partition("\n")[0]: re.split(r"\n##? ", section.partition("\n")[2])[0]
    for section in TEXT.split("\n### ")[1:]
}
"""The text under each alert's heading."""
PARTS: Final = ("**Means.**", "**Look.**", "**Do.**", "**Resolves**")
SETTING: Final = re.compile(r"`((?:usage|journal|metrics|otlp|observer|workspaces|plans)\.[a-z_.<>]+)(?:: \w+)?`")
FILES: Final = {"metrics.state", "otlp.position"}
"""Files of `data_dir` that look like settings."""
UNITS: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day"}


def blocks(language: str) -> list[str]:
    """The fenced code of a language."""
    return re.findall(rf"```{language}\n(.+?)```", TEXT, re.DOTALL)


def queries() -> list[str]:
    """Every PromQL query; one a line."""
    inline = re.findall(r"`(up\{[^`]+)`", TEXT)
    return [line for block in blocks("promql") for line in block.splitlines()] + inline


def said() -> Iterator[str]:
    """Every line of the gateway's log that is quoted."""
    yield from re.findall(r"^ *> (.+)$", TEXT, re.MULTILINE)
    for row in re.findall(r"^\| `\w+`.*?\| (.+) \|$", SECTIONS["CallscopeTelemetryLost"], re.MULTILINE):
        yield from re.findall(r"`([^`]+)`", row)


def test_every_alert_has_a_section_and_nothing_else_has() -> None:
    assert list(SECTIONS) == list(dict.fromkeys(SECTIONS))
    assert SECTIONS.keys() == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_says_what_it_means_what_to_look_at_what_to_do_and_when_it_ends(name: str) -> None:
    _, *texts = re.split("|".join(map(re.escape, PARTS)), SECTIONS[name])

    assert re.findall("|".join(map(re.escape, PARTS)), SECTIONS[name]) == list(PARTS)
    assert all(len(text.split()) >= 3 for text in texts), texts
    assert re.search(r"`callscope-\w+`|```|As for Callscope", texts[1])


def test_sections_refer_to_sections_that_there_are() -> None:
    assert set(re.findall(r"\bCallscope[A-Z]\w+", TEXT)) <= SECTIONS.keys()


@pytest.mark.parametrize("query", queries())
def test_a_query_is_one_and_asks_for_what_there_is(query: str) -> None:
    expr = parsed(query)
    for selector in selectors(expr):
        labels = labels_of(selector.metric)
        assert labels is not None, selector.metric
        assert ":" not in selector.metric or selector.metric in {rule.name for rule in RECORDED}
        assert set(selector.matchers) <= labels, selector
    for grouped, inner in groupings(expr):
        having = [labels_of(selector.metric) or set() for selector in selectors(inner)]
        assert set(grouped) <= set().union(*having)


def test_a_command_takes_the_options_that_it_is_given() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("callscope ")]
    inline = re.findall(r"`(callscope (?:check|serve|top|tail|usage) --[^`]+)`", TEXT)

    assert lines
    assert inline
    for line in (*lines, *inline):
        _, name, *arguments = shlex.split(line.replace(" N", " 2"))
        command = commands.get_command(commands.make_context("callscope", [name]), name)
        assert command is not None, line
        required = [] if "--config" in arguments else ["--config", "callscope.yaml"]
        command.make_context(name, [*arguments, *required])


def test_dashboards_and_panels_are_those_that_there_are() -> None:
    boards = set(re.findall(r"`(callscope-\w+)`", TEXT))
    titles = {panel["title"] for board in BOARDS.values() for panel in [*panels(board), *rows(board)]}

    assert boards
    assert boards <= BOARDS.keys()
    for section in SECTIONS.values():
        named = set(re.findall(r"(?<![*\w])\*([A-Z][^*]+)\*", section))
        assert named <= titles, named - titles


def rows(board: dict[str, Any]) -> list[dict[str, Any]]:
    """The headings of a dashboard's rows."""
    return [panel for panel in board["panels"] if panel["type"] == "row"]


def test_settings_are_those_that_there_are() -> None:
    documented = (ROOT / "docs" / "configuration.md").read_text()
    named = set(SETTING.findall(TEXT)) - FILES

    assert {"usage.enforce", "journal.max_bytes", "metrics.max_series"} <= named
    assert all(f"`{name}`" in documented for name in named), named


@pytest.mark.parametrize("line", sorted(set(said())))
def test_the_log_says_what_is_quoted(line: str) -> None:
    """`…` stands for what a message is made with: in the source, `%s` and the like."""
    general = re.sub(r"^(?:observer|relay-0)(?= ended)|ledger(?= sink)", "…", line)
    pattern = re.compile(r'["\'].*' + r"[^\"']*".join(re.escape(part) for part in general.split("…")) + r'.*["\']')
    sources = [path.read_text() for path in (ROOT / "gateway").rglob("*.py")]

    assert any(pattern.search(_joined(source)) for source in sources)


def _joined(source: str) -> str:
    """A source text whose literals that follow one another are one."""
    return re.sub(r'"\s*\n\s*f?"', "", source)


def test_the_head_says_where_alerts_go() -> None:
    routing = yaml.safe_load((ROOT / "alertmanager" / "config.yml").read_text())["route"]
    rows = re.findall(r"^\| `(\w+)` \| .+? \| `(\w+)`, after (.+?) \| each (.+?) \|$", TEXT, re.MULTILINE)

    said_of = {severity: (receiver, wait, again) for severity, receiver, wait, again in rows}
    assert said_of == {
        re.findall(r'"(\w+)"', route["matchers"][0])[0]: (
            route["receiver"],
            words(route.get("group_wait", routing["group_wait"]), one="a"),
            words(route.get("repeat_interval", routing["repeat_interval"])),
        )
        for route in routing["routes"]
    }
    assert f"`{routing['receiver']}`" in TEXT
    assert routing["group_by"] == ["alertname", "workspace"]


def words(duration: str, *, one: str = "") -> str:
    """`12h` as `12 hours`, and `1h` as `hour`."""
    number, unit = int(duration[:-1]), UNITS[duration[-1]]
    return f"{one} {unit}".strip() if number == 1 else f"{number} {unit}s"
