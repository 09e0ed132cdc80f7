"""Programs that `make setup` does not install: where they are, or a skip that names the make target that brings them.

A test that needs one is marked `backend`, so that `make test` leaves it out.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from stack import build, processes


def native(module: build.Module, name: str) -> Path:
    """A program that `make stack-tools` has built."""
    folder = build.built(module, build.cache(os.environ))
    if folder is None:
        missing(f"{module.name} is not built for these sources: `make stack-tools` builds it")
    return folder / name


def installed(name: str) -> Path:
    """A program of the distribution."""
    found = shutil.which(name)
    if found is None:
        missing(f"no {name} on the PATH: `make test-tools` installs it")
    return Path(found)


def loki() -> Path:
    """A Loki of the machine's own. Without one the test is skipped, in CI too, because no make target brings it."""
    found = processes.loki(os.environ)
    if found is None:
        pytest.skip(processes.NO_LOKI)
    return found


def missing(message: str) -> NoReturn:
    """Skip the test; fail it in CI, where every make target has run."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
