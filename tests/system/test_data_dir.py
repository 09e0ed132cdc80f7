"""Who may read what Callscope keeps: the user and the group that it runs as."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.clients import call, post
from tests.system.gateway_process import STDIO, eventually, running
from tests.system.signal_counts import from_api


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Whatever the tests run with, the gateway is started with the umask that most machines have."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_nothing_in_the_data_directory_is_every_users(tmp_path: Path) -> None:
    with running(tmp_path, {"local": STDIO}, {"alice": {}}) as gateway:
        assert post(gateway, call("local__echo"), "alice").status_code == 200
        assert eventually(lambda: from_api(gateway).total() == 1)
        assert eventually((gateway.data / "metrics.state").exists)
        found = {path.relative_to(tmp_path): path.stat().st_mode for path in (gateway.data, *gateway.data.rglob("*"))}

    assert stat.S_IMODE(found[Path("data")]) == 0o750
    assert {Path("data/ledger.duckdb"), Path("data/metrics.state"), Path("data/run/supervisor.pid")} <= set(found)
    assert [path for path, mode in found.items() if mode & stat.S_IRWXO] == []


def test_a_folder_that_is_open_to_everybody_is_told_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    with running(tmp_path, {}, {}) as gateway:
        assert f"chmod o-rwx {gateway.data}" in gateway.log()
        assert stat.S_IMODE(gateway.data.stat().st_mode) == 0o755
