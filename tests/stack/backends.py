"""The native back ends, or a skip that says how to get them."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from stack import build


def binary(module: build.Module, name: str) -> Path:
    """A program of a module that `make stack-tools` has built."""
    folder = build.built(module, build.cache(os.environ))
    if folder is None:
        missing(f"{module.name} is not built for these sources: `make stack-tools` does that")
    return folder / name


def missing(message: str) -> NoReturn:
    """A back end is not there: a skip, but in CI a failure."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
