"""`callscope export`: the calls of a range, in a file that appears when it is complete."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
import httpx
from rich.console import Console
from rich.filesize import decimal
from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from gateway import atomic_file
from gateway.errors import CallscopeError
from gateway.terminal.formatting import plural
from gateway.terminal.options import CONNECTION, FILTERS, RANGE, WORKSPACE, connected, filters, span

TIMEOUT_S: Final = 3600.0
"""As long as the observer lets an export run: it sends a Parquet file after its last row is written."""
STDOUT: Final = "-"


@click.command()
@click.option("--format", "format_", type=click.Choice(["parquet", "csv", "jsonl"]), required=True)
@click.option("--output", metavar="FILE", default=STDOUT, help="Standard output by default, or as -.")
@WORKSPACE
@CONNECTION
@RANGE
@FILTERS
def export(format_: str, output: str, workspace: str | None, **options: Any) -> None:
    """Every call of a range, by default of 7 days, as Parquet, CSV or JSON Lines.

    The file appears when it is complete. An export that breaks off leaves an older file as it was.
    """
    if output == STDOUT and format_ == "parquet" and sys.stdout.isatty():
        raise CallscopeError("--output: is missing: a terminal cannot show Parquet, so name a file")
    parameters = [("format", format_), *span(options, "7d"), *filters(options)]
    counter = RowCounter(format_)
    with connected(options) as api:
        slug = api.one(workspace)  # a mistake in it is reported before the output is opened
        with _opened(output) as (file, path):
            with api.stream(slug, "/analytics/export", parameters, timeout_s=TIMEOUT_S) as response:
                written = _copy(response, file, counter)
            file.flush()
            rows = counter.total(path)
    summary = [] if rows is None else [plural(rows, "call")]
    summary.append(decimal(written))
    click.echo(", ".join(summary) + ("" if output == STDOUT else f" in {output}"), err=True)


def _copy(response: httpx.Response, file: BinaryIO, counter: "RowCounter") -> int:
    """Copy the response, with a progress bar on a terminal: the number of bytes."""
    visible = sys.stderr.isatty() and not file.isatty()
    columns = (TextColumn("exporting"), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not visible) as progress:
        task = progress.add_task("", total=None)
        for chunk in response.iter_bytes():
            file.write(chunk)
            counter.feed(chunk)
            progress.advance(task, len(chunk))
        return int(progress.tasks[task].completed)


@contextlib.contextmanager
def _opened(output: str) -> Iterator[tuple[BinaryIO, Path | None]]:
    """The file to write, and its path if it is a regular file, which can be read again.

    Raises:
        CallscopeError: it cannot be written.
    """
    path = Path(os.path.realpath(output))  # a link stays a link: the file that it leads to is replaced
    try:
        if output == STDOUT:
            yield sys.stdout.buffer, None
        elif path.exists() and not path.is_file():  # a pipe or a device, which cannot be replaced by a file
            with path.open("wb") as file:
                yield file, None
        else:
            path.parent.stat()  # a folder with a mistyped name is an error, and not created
            with atomic_file.replacing(path, mode=0o666) as file:
                yield file, Path(file.name)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CallscopeError(f"--output: {output} cannot be written: {error.strerror}") from error


class RowCounter:
    """Counts the calls of an export while its bytes pass."""

    def __init__(self, format_: str) -> None:
        self._format = format_
        self._lines = 0
        self._quoted = False

    def feed(self, chunk: bytes) -> None:
        """Count the line breaks of a chunk; in CSV (RFC 4180) not those between quotes."""
        for i, part in enumerate(chunk.split(b'"') if self._format == "csv" else [chunk]):
            self._quoted ^= i > 0  # a doubled quote, which stands for one, closes and opens again
            self._lines += 0 if self._quoted else part.count(b"\n")

    def total(self, file: Path | None) -> int | None:
        """The number of calls; None for Parquet that was not written to a file, whose footer says it.

        Raises:
            CallscopeError: the file is not complete Parquet.
        """
        if self._format != "parquet":
            return max(self._lines - (self._format == "csv"), 0)  # CSV begins with the names of the columns
        if file is None:
            return None
        import duckdb  # noqa: PLC0415 - no other command needs it, and its import takes long

        try:
            with duckdb.connect(":memory:") as database:
                [(rows,)] = database.execute("select num_rows from parquet_file_metadata($1)", [str(file)]).fetchall()
        except duckdb.Error as error:
            raise CallscopeError(f"the observer did not send a complete Parquet file: {error}") from error
        return int(rows)
