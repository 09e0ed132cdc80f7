"""The native stack runs with a Loki of the machine's own, or without one; none is built."""

import re
from pathlib import Path

import pytest

from stack.__main__ import directions
from stack.processes import ROOT, NotBuiltError, Stack, loki

AGPL = re.compile(r"github\.com/grafana/(?:loki|tempo|grafana)\b")


def test_loki_is_the_one_that_is_named_else_the_one_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert loki({}) is None

    on_path, named = tmp_path / "loki", tmp_path / "loki-3.7"
    for file in (on_path, named):
        file.touch(mode=0o755)
    assert loki({}) == on_path
    assert loki({"CALLSCOPE_LOKI": str(named)}) == named


def test_a_loki_that_is_named_and_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match=r"CALLSCOPE_LOKI names .*nowhere, and there is no such file"):
        loki({"CALLSCOPE_LOKI": str(tmp_path / "nowhere")})


@pytest.mark.parametrize("address", ["http://127.0.0.1:3100", None])
def test_the_directions_say_where_log_records_are(tmp_path: Path, address: str | None) -> None:
    stack = Stack(
        prometheus="http://127.0.0.1:9090",
        alertmanager="http://127.0.0.1:9093",
        loki=address,
        otlp="http://127.0.0.1:4318",
        observer="127.0.0.1:9464",
        traces=tmp_path / "traces.jsonl",
        logs=tmp_path / "logs.jsonl",
        folder=tmp_path,
    )

    assert (address or "LogQL cannot be run") in directions(stack)
    assert str(stack.logs) in directions(stack)


def test_no_module_under_the_agpl_is_built() -> None:
    built = [*(ROOT / "stack").rglob("go.*"), *(ROOT / "stack").rglob("*.yaml")]

    assert built
    assert not [path for path in built if AGPL.search(path.read_text())]
