"""What a version was built with can be written out: in a checkout, and from the wheel."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from click.testing import CliRunner

from gateway import bundled
from gateway.bundled import Kind, config_map
from gateway.commands import commands
from gateway.errors import CallscopeError
from tests.prometheus.programs import PROMTOOLS, Promtool

ROOT = Path(__file__).parent.parent
PATTERNS: dict[Kind, str] = {
    "dashboards": "dashboards/generated/*.json",
    "rules": "prometheus/rules/*.y*ml",
    "runbook": "docs/runbook.md",
}
CONFIG_MAP_BYTES = 2**20
"""Kubernetes takes no larger one."""
APPLIED_BYTES = 2**18
"""`kubectl apply` puts the whole object into an annotation, and annotations may have so much."""
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1123, as Kubernetes has it."""
RUNBOOK = "https://wiki.example.com/x?page=callscope"


def sources(*kinds: Kind) -> dict[str, bytes]:
    """What was built, by name."""
    return {path.name: path.read_bytes() for kind in kinds for path in sorted(ROOT.glob(PATTERNS[kind]))}


def written_by(group: str, folder: Path, *options: str) -> dict[str, bytes]:
    """What `export` with these options writes, by name."""
    result = CliRunner().invoke(commands, [group, "export", *options, str(folder)])
    assert result.exit_code == 0, result.output
    assert sorted(result.output.splitlines()) == [str(path) for path in sorted(folder.iterdir())]
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_dashboards_are_written_out_as_they_were_generated(tmp_path: Path) -> None:
    written = written_by("dashboards", tmp_path / "new" / "dashboards")

    assert written == sources("dashboards")
    assert {json.loads(content)["uid"] for content in written.values()} >= {"callscope-overview", "callscope-call"}


def test_the_rules_are_written_out_over_older_ones_with_their_runbook(tmp_path: Path) -> None:
    (tmp_path / "recording.yml").write_text("groups: []")

    assert written_by("rules", tmp_path) == sources("rules", "runbook")


def test_alerts_lead_to_the_runbook_where_it_is_and_nothing_else_of_the_rules_changes(tmp_path: Path) -> None:
    written = written_by("rules", tmp_path, "--runbook", RUNBOOK)

    plain = sources("rules", "runbook")
    lengths = {name: len(content) for name, content in written.items()}
    longer = len(RUNBOOK) - len("docs/runbook.md")
    assert lengths == {
        name: len(content) + longer * (0 if name == "runbook.md" else content.count(b"docs/runbook.md"))
        for name, content in plain.items()
    }
    assert {name: content.replace(RUNBOOK.encode(), b"docs/runbook.md") for name, content in written.items()} == plain
    for name in sources("rules"):
        before = list(alerts(plain[name]))
        assert [alert["annotations"].pop("runbook_url") for alert in alerts(written[name])] == [
            f"{RUNBOOK}#{alert['alert'].lower()}" for alert in before
        ]


def alerts(content: bytes) -> list[dict[str, Any]]:
    """The alerts of a rules file."""
    return [rule for group in yaml.safe_load(content)["groups"] for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize("address", ["docs.example.com/runbook", "https://a b", "https://a#b", "https://a/{{ x }}", ""])
def test_a_url_that_cannot_be_the_runbooks_is_refused(tmp_path: Path, address: str) -> None:
    result = CliRunner().invoke(commands, ["rules", "export", str(tmp_path / "rules"), "--runbook", address])

    assert result.exit_code == 2
    assert result.stderr.startswith(f"--runbook: {address!r} is not the URL of a page: write for example https://")
    assert not (tmp_path / "rules").exists()


@pytest.mark.parametrize("promtool", PROMTOOLS)
def test_a_rule_of_kubernetes_has_what_prometheus_takes(tmp_path: Path, promtool: Promtool) -> None:
    written = written_by("rules", tmp_path / "objects", "--format", "prometheusrule", "--runbook", RUNBOOK)

    assert written.pop("runbook.md") == sources("runbook")["runbook.md"]
    manifests = {name: yaml.safe_load(content) for name, content in written.items()}
    assert {(one["apiVersion"], one["kind"]) for one in manifests.values()} == {
        ("monitoring.coreos.com/v1", "PrometheusRule")
    }
    names = {one["metadata"]["name"] for one in manifests.values()}
    assert len(names) == len(manifests) == len(sources("rules"))
    assert all(OBJECT_NAME.fullmatch(name) for name in names), names
    for name, one in manifests.items():
        content = sources("rules")[name].replace(b"docs/runbook.md", RUNBOOK.encode())
        assert one["spec"] == yaml.safe_load(content)
        (tmp_path / name).write_text(yaml.safe_dump(one["spec"]))
    promtool.run("check", "rules", "--lint=all", "--lint-fatal", *(str(tmp_path / name) for name in manifests))


def test_a_config_map_has_its_dashboard_byte_for_byte(tmp_path: Path) -> None:
    written = written_by("dashboards", tmp_path, "--format", "configmap")

    boards = sources("dashboards")
    assert written.keys() == {Path(name).with_suffix(".yml").name for name in boards}
    found: dict[str, bytes] = {}
    for content in written.values():
        assert content.isascii()
        assert len(content) < min(CONFIG_MAP_BYTES, APPLIED_BYTES)
        manifest = yaml.load(content, yaml.CSafeLoader)
        assert (manifest["apiVersion"], manifest["kind"]) == ("v1", "ConfigMap")
        assert manifest["metadata"]["labels"] == {"grafana_dashboard": "1"}
        [(name, text)] = manifest["data"].items()
        assert manifest["metadata"]["name"] == json.loads(text)["uid"]
        assert OBJECT_NAME.fullmatch(manifest["metadata"]["name"])
        found[name] = text.encode()
    assert found == boards


def test_a_config_map_keeps_what_yaml_would_change() -> None:
    text = 'é😀\u2028\u0085\t "%" \\n: # {{x}}\r\n  \n\n'

    manifest = yaml.safe_load(config_map("Some_Board.json", text.encode()))

    assert manifest["data"] == {"Some_Board.json": text}
    assert manifest["metadata"]["name"] == "callscope-some-board"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    result = CliRunner().invoke(commands, ["dashboards", "export", str(tmp_path / "taken" / "dashboards")])

    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path}/taken/dashboards: dashboards cannot be written: Not a directory\n"


def test_an_installation_without_the_files_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "_CHECKOUT", tmp_path)

    with pytest.raises(CallscopeError, match="this installation has no rules: it was built without prometheus/rules"):
        bundled.bundled("rules")


def test_the_wheel_has_them_and_finds_them(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    program = (
        "import gateway.bundled as b, typing; print(b.__file__); "
        "[print(*b.bundled(kind)) for kind in typing.get_args(b.Kind)]"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    where, *found = done.stdout.splitlines()
    assert where == str(tmp_path / "site" / "gateway" / "bundled.py")
    assert found == [" ".join(sources(kind)) for kind in get_args(Kind)]
    assert [path.name for path in (tmp_path / "site").iterdir() if path.suffix != ".dist-info"] == ["gateway"]
