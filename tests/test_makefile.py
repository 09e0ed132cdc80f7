"""`make setup` finds a Python that is new enough, or says what to do. The Pythons here are stand-ins."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"
TOOLS = ("sh", "make", "rm", "mkdir", "cp", "touch", "grep", "sed", "sort")
PYTHON = """#!/bin/sh
# Python 3.{minor}: it knows its version, makes a .venv with itself in it, and installs nothing
case "$1 $2" in
  "-V "*) echo "Python 3.{minor}.1" ;;
  "-c "*) [ {minor} -ge 11 ] ;;
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo {minor} >"$3/made-by" && [ {minor} != 12 ] ;;
  "-m pip") : ;;
esac
"""


class Machine:
    """A checkout on a machine with these Pythons, by command: the minor version of each."""

    def __init__(self, folder: Path, pythons: Mapping[str, int]) -> None:
        self.checkout = folder / "checkout"
        self._commands = folder / "bin"
        self._commands.mkdir()
        (self.checkout / "requirements").mkdir(parents=True)
        (self.checkout / "requirements" / "dev.txt").touch()
        (self.checkout / "pyproject.toml").touch()
        shutil.copy(MAKEFILE, self.checkout)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self._commands / tool).symlink_to(found)
        for command, minor in pythons.items():
            self.install(command, minor)

    def install(self, command: str, minor: int) -> None:
        path = self._commands / command
        path.write_text(PYTHON.format(minor=minor))
        path.chmod(0o755)

    def setup(self, *arguments: str) -> tuple[int, str]:
        """The status of `make … setup` and what it said on stderr."""
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))
        }
        run = subprocess.run(
            ["make", *arguments, "setup"],  # noqa: S607 - found in the machine's own PATH
            cwd=self.checkout,
            env={**environ, "PATH": str(self._commands)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return run.returncode, run.stderr

    @property
    def venv_made_by(self) -> int:
        return int((self.checkout / ".venv" / "made-by").read_text())


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3": 11}, 11),
        ({"python3": 14, "python3.11": 11}, 14),
        ({"python3": 9, "python3.13": 13, "python3.11": 11}, 13),
        ({"python3": 10, "python3.11": 11}, 11),
        ({"python3.11": 11}, 11),
    ],
)
def test_the_first_python_that_is_new_enough_makes_the_venv(
    tmp_path: Path, pythons: dict[str, int], taken: int
) -> None:
    machine = Machine(tmp_path, pythons)

    assert machine.setup() == (0, "")
    assert machine.venv_made_by == taken


def test_without_a_python_that_is_new_enough_it_says_what_to_do(tmp_path: Path) -> None:
    status, said = Machine(tmp_path, {"python3": 9, "python3.10": 10}).setup()

    assert status != 0
    assert (
        "needs Python 3.11 or newer, and python3 is Python 3.9.1: install one, or name one: make setup PYTHON=" in said
    )


def test_the_python_that_is_named_is_checked_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"python3": 13, "python3.10": 10, "python3.11": 11})

    status, said = machine.setup("PYTHON=python3.10")
    assert status != 0
    assert "python3.10 is Python 3.10.1" in said

    assert machine.setup("PYTHON=python3.11") == (0, "")
    assert machine.venv_made_by == 11


@pytest.mark.parametrize("fate", ["too old", "vanished"])
def test_a_venv_whose_python_is_of_no_use_is_made_anew(tmp_path: Path, fate: str) -> None:
    machine = Machine(tmp_path, {"python3": 11})
    machine.setup()
    python = machine.checkout / ".venv" / "bin" / "python"
    if fate == "vanished":
        python.unlink()
        python.symlink_to("/nowhere/python3")
    else:
        python.write_text(PYTHON.format(minor=9))
    machine.install("python3", 13)

    assert machine.setup() == (0, "")
    assert machine.venv_made_by == 13


def test_a_venv_that_works_stays(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"python3": 11})
    machine.setup()
    machine.install("python3", 9)

    assert machine.setup() == (0, "")
    assert machine.venv_made_by == 11


def test_after_make_clean_it_is_made_anew_in_the_same_run(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"python3": 11})
    machine.setup()
    machine.install("python3", 13)

    assert machine.setup("clean") == (0, "")
    assert machine.venv_made_by == 13


def test_a_venv_that_was_made_by_half_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"python3": 12})  # makes a folder and fails, as Debian's does without python3-venv

    status, said = machine.setup()

    assert status != 0
    assert "install its venv (Debian: python3-venv)" in said
    assert not (machine.checkout / ".venv").exists()
