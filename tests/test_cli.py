"""Ctrl-C at any time ends a command without a traceback, with the status that shells give to it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

IMPORT_WITHOUT_END = """
import threading
print("importing", flush=True)
threading.Event().wait()
"""


def start(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The status after Ctrl-C, and what was said."""
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    return process.returncode, said + complained


@pytest.mark.parametrize(("module", "command"), [("click", "check"), ("httpx", "usage")])
def test_while_it_imports_what_it_needs(tmp_path: Path, module: str, command: str) -> None:
    (tmp_path / f"{module}.py").write_text(IMPORT_WITHOUT_END)
    with start(command, "--config", "x", environ={"PYTHONPATH": str(tmp_path)}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"

        assert interrupt(process) == (130, "")


def test_while_it_works(tmp_path: Path) -> None:
    config = tmp_path / "callscope.yaml"
    os.mkfifo(config)
    with start("check", "--config", str(config)) as process, config.open("w"):  # opens when the other end does
        assert interrupt(process) == (130, "")
