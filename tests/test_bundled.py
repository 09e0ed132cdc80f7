"""What a version was built with can be written out: in a checkout, and from the wheel."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway import bundled
from gateway.bundled import Kind
from gateway.bundled_commands import dashboards, rules
from gateway.errors import CallscopeError

ROOT = Path(__file__).parent.parent
SOURCES: dict[Kind, Path] = {"dashboards": ROOT / "dashboards" / "generated", "rules": ROOT / "prometheus" / "rules"}


def test_the_dashboards_are_written_out_as_they_were_generated(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "dashboards"

    result = CliRunner().invoke(dashboards, ["export", str(folder)])

    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [str(path) for path in sorted(folder.iterdir())]
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert written == {path.name: path.read_bytes() for path in SOURCES["dashboards"].glob("*.json")}
    assert {json.loads(content)["uid"] for content in written.values()} >= {"callscope-overview", "callscope-call"}


def test_the_rules_are_written_out_over_older_ones(tmp_path: Path) -> None:
    (tmp_path / "recording.yml").write_text("groups: []")

    result = CliRunner().invoke(rules, ["export", str(tmp_path)])

    assert result.exit_code == 0, result.output
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in SOURCES["rules"].glob("*.y*ml")}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    result = CliRunner().invoke(dashboards, ["export", str(tmp_path / "taken" / "dashboards")])

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
        "import gateway.bundled as b; print(b.__file__); [print(*b.bundled(kind)) for kind in ('dashboards', 'rules')]"
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
    assert found == [
        " ".join(sorted(path.name for path in SOURCES["dashboards"].glob("*.json"))),
        " ".join(sorted(path.name for path in SOURCES["rules"].glob("*.y*ml"))),
    ]
    assert not (tmp_path / "site" / "dashboards").exists()
