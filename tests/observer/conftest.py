"""A journal for the tests of the live stream."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.journal import Writer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def writer(root: Path) -> Iterator[Writer]:
    writer = Writer(root, "relay-0")
    yield writer
    writer.close()
