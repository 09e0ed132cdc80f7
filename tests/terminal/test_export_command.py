"""`callscope export`: every byte, or no file."""

import csv
import io
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from gateway.terminal.export_command import RowCounter
from tests.terminal.conftest import MESSAGE
from tests.terminal.observer_process import Observer, run
from tests.terminal.scripted_server import Answer, Requested, scripted
from tests.terminal.test_api_client import bearer

LINES = b"".join(b'{"call_id": "c%d"}\n' % i for i in range(1000))


def export(url: str, *options: str) -> Result:
    return run("export", "--url", url, "--jwt", bearer("engineering"), *options)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    ("format_", "reader"), [("csv", "read_csv"), ("jsonl", "read_json"), ("parquet", "read_parquet")]
)
def test_the_observers_calls_are_in_the_file_as_they_were_recorded(
    observer: Observer, tmp_path: Path, format_: str, reader: str
) -> None:
    file = tmp_path / f"calls.{format_}"
    config = str(observer.config)
    done = run("export", "--config", config, "--format", format_, "--output", str(file), "--status", "error")

    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    assert re.fullmatch(rf"3 calls, .+ in {file}\n", done.stderr)
    rows = getattr(duckdb, reader)(str(file)).order("call_id").project("call_id, tool_name, error_message").fetchall()
    assert rows == [(f"c{number}", "search", MESSAGE) for number in (6, 7, 8)]


@pytest.fixture
def parquet(tmp_path: Path) -> bytes:
    file = tmp_path / "given.parquet"
    duckdb.execute(f"copy (from range(77)) to '{file}' (format parquet)")
    data = file.read_bytes()
    file.unlink()
    return data


def test_a_file_has_every_byte_and_it_says_how_many_calls(tmp_path: Path) -> None:
    requests: list[Requested] = []
    file = tmp_path / "calls.jsonl"
    with scripted(Answer(LINES), requests=requests) as url:
        done = export(url, "--format", "jsonl", "--output", str(file), "--period", "30d", "--server", "a&b")

    assert file.read_bytes() == LINES
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"1,000 calls, 19.9 kB in {file}\n"
    [request] = requests
    assert request.path == (
        "/api/community/mcp/workspaces/engineering/analytics/export?format=jsonl&period=30d&tz=UTC&server=a%26b"
    )
    assert names(tmp_path) == ["calls.jsonl"]


def test_without_a_file_it_goes_to_standard_output() -> None:
    with scripted(Answer(b"call_id\n1\n")) as url:
        done = export(url, "--format", "csv")

    assert done.stdout == "call_id\n1\n"
    assert done.stderr == "1 call, 10 bytes\n"


def test_parquet_is_counted_by_its_own_footer(tmp_path: Path, parquet: bytes) -> None:
    file = tmp_path / "calls.parquet"
    with scripted(Answer(parquet)) as url:
        done = export(url, "--format", "parquet", "--output", str(file))
        piped = export(url, "--format", "parquet", "--output", "-")

    assert done.stderr.startswith("77 calls, ")
    assert file.read_bytes() == parquet == piped.stdout_bytes
    assert "call" not in piped.stderr


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_an_export_that_breaks_off_leaves_what_was_there(tmp_path: Path, before: bytes | None) -> None:
    file = tmp_path / "calls.jsonl"
    if before is not None:
        file.write_bytes(before)
    with scripted(Answer(LINES, whole=False)) as url:
        broken = export(url, "--format", "jsonl", "--output", str(file))

    assert (broken.exit_code, broken.stdout) == (2, "")
    assert broken.stderr.startswith(f"{url}: the connection broke: ")
    assert broken.stderr.count("\n") == 1
    assert (file.read_bytes() if file.exists() else None) == before
    assert len(names(tmp_path)) == (before is not None)


def test_a_part_of_a_parquet_file_is_not_taken_for_one(tmp_path: Path, parquet: bytes) -> None:
    with scripted(Answer(parquet[:-50])) as url:
        broken = export(url, "--format", "parquet", "--output", str(tmp_path / "calls.parquet"))

    assert broken.exit_code == 2
    assert "did not send a complete Parquet file" in broken.stderr
    assert names(tmp_path) == []


def test_until_it_is_whole_the_file_has_no_name_of_its_own(tmp_path: Path) -> None:
    seen: list[str] = []
    file = tmp_path / "calls.jsonl"
    with scripted(Answer(LINES, meanwhile=lambda: seen.extend(names(tmp_path)))) as url:
        export(url, "--format", "jsonl", "--output", str(file))

    assert len(seen) == 1
    assert seen[0].startswith(".calls.jsonl.")
    assert seen[0].endswith(".draft")
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "calls.jsonl")
    with scripted(Answer(LINES)) as url:
        export(url, "--format", "jsonl", "--output", str(link))
        nowhere = export(url, "--format", "jsonl", "--output", "/dev/null")

    assert link.is_symlink()
    assert (tmp_path / "calls.jsonl").read_bytes() == LINES
    assert nowhere.exit_code == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize(
    ("output", "why"), [("missing/calls.jsonl", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, output: str, why: str) -> None:
    with scripted(Answer(LINES)) as url:
        refused = export(url, "--format", "jsonl", "--output", str(tmp_path / output))

    assert refused.exit_code == 2
    assert refused.stderr == f"--output: {tmp_path / output} cannot be written: {why}\n"


def test_a_full_disk_is_said() -> None:
    with scripted(Answer(LINES)) as url:
        refused = export(url, "--format", "jsonl", "--output", "/dev/full")

    assert refused.stderr == "--output: /dev/full cannot be written: No space left on device\n"


def test_a_mistake_is_told_of_the_option_and_leaves_no_file(tmp_path: Path) -> None:
    body = {"error": "period: 'x' is no period", "parameter": "period", "allowed": ["today"]}
    with scripted(Answer(json.dumps(body).encode(), status=400)) as url:
        refused = export(url, "--format", "csv", "--period", "x", "--output", str(tmp_path / "calls.csv"))

    assert refused.exit_code == 2
    assert refused.stderr == "--period: 'x' is no period (allowed: today)\n"
    assert names(tmp_path) == []


def test_when_nobody_reads_any_more_it_ends_quietly() -> None:
    with scripted(Answer(LINES * 100)) as url:
        command = [sys.executable, "-m", "gateway", "export", "--url", url, "--format", "jsonl"]
        environ = {**os.environ, "CALLSCOPE_JWT": bearer("engineering")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b'{"call_id": "c0"}\n'
            process.stdout.close()

            assert process.wait(timeout=60) == 141
            assert process.stderr.read() == b""


# -- how many calls there were, counted as the bytes go by

cells = st.text(alphabet=st.sampled_from(['"', "\n", "\r", ",", "x", "é"]), max_size=6)


@given(st.lists(st.tuples(cells, cells), max_size=6), st.integers(1, 5))
def test_a_csv_has_as_many_rows_as_a_reader_finds_however_it_comes(rows: list[tuple[str, str]], size: int) -> None:
    page = io.StringIO(newline="")
    csv.writer(page).writerows([("error_message", "tool_name"), *rows])
    data = page.getvalue().encode()
    counter = RowCounter("csv")
    for start in range(0, len(data), size):
        counter.feed(data[start : start + size])

    assert counter.total(None) == len(rows)


def test_json_lines_are_counted() -> None:
    counter = RowCounter("jsonl")
    counter.feed(b'{"a": 1}\n{"a"')
    counter.feed(b": 2}\n")

    assert counter.total(None) == 2
