"""Calls of an export, counted as its bytes go by."""

import csv
import io
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import CallscopeError
from gateway.terminal.export_progress import CsvCounter, JsonLinesCounter, ParquetCounter

cells = st.text(alphabet=st.sampled_from(['"', "\n", "\r", ",", "x", "é"]), max_size=6)


@given(st.lists(st.tuples(cells, cells), max_size=6), st.integers(1, 5))
def test_a_csv_has_as_many_rows_as_a_reader_finds_however_it_comes(rows: list[tuple[str, str]], size: int) -> None:
    page = io.StringIO(newline="")
    csv.writer(page).writerows([("error_message", "tool_name"), *rows])
    data = page.getvalue().encode()
    counter = CsvCounter()
    for start in range(0, len(data), size):
        counter.see(data[start : start + size])

    assert counter.total(None) == len(rows)


def test_json_lines_are_counted() -> None:
    counter = JsonLinesCounter()
    counter.see(b'{"a": 1}\n{"a"')
    counter.see(b": 2}\n")

    assert counter.total(None) == 2


def write_parquet(file: Path) -> None:
    duckdb.execute(f"copy (from range(12345)) to '{file}' (format parquet)")


def test_a_parquet_file_says_itself_how_many_rows_it_has(tmp_path: Path) -> None:
    file = tmp_path / "calls.parquet"
    write_parquet(file)

    assert ParquetCounter().total(file) == 12345
    assert ParquetCounter().total(None) is None


def test_a_part_of_a_parquet_file_is_none(tmp_path: Path) -> None:
    file = tmp_path / "calls.parquet"
    write_parquet(file)
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(CallscopeError, match="is no complete Parquet file"):
        ParquetCounter().total(file)
