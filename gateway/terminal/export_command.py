"""`callscope export`: the calls of a range, into a file that is whole or not there."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import click
import httpx
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from gateway.errors import CallscopeError
from gateway.terminal.api import ApiClient, Parameters
from gateway.terminal.exit_codes import reports_errors
from gateway.terminal.export_progress import CsvCounter, JsonLinesCounter, ParquetCounter, RowCounter
from gateway.terminal.formatting import plural, size
from gateway.terminal.observer_connection import ObserverConnection
from gateway.terminal.options import ONE_WORKSPACE, connected, filtered, ranged

PERIOD: Final = "7d"
SILENCE_S: Final = 3600.0
"""As long as the observer lets an export run: a Parquet file is sent when all of it is there."""
STDOUT: Final = "-"
FORMATS: Final[Mapping[str, type[RowCounter]]] = {
    "parquet": ParquetCounter,
    "csv": CsvCounter,
    "jsonl": JsonLinesCounter,
}


class Output(NamedTuple):
    """What is written to; `path` is None for what is no regular file, and cannot be read again."""

    file: BinaryIO
    path: Path | None


@click.command()
@click.option("--format", "format_", type=click.Choice(list(FORMATS)), required=True)
@click.option("--output", metavar="FILE", default=STDOUT, help="Where to; - is standard output, the default.")
@ONE_WORKSPACE
@reports_errors
@connected
@ranged(PERIOD)
@filtered
def export(
    connection: ObserverConnection,
    workspace: str | None,
    span: Parameters,
    filters: Parameters,
    format_: str,
    output: str,
) -> None:
    """Every call of a range, as Parquet, CSV or JSON Lines.

    A file has its name when it is complete; an export that breaks off leaves none, and what was there before stays.
    """
    if output == STDOUT and format_ == "parquet" and sys.stdout.isatty():
        raise CallscopeError("--output: is missing: Parquet is no text for a terminal")
    slug = connection.one(workspace)
    asked = [("format", format_), *span, *filters]
    with ApiClient(connection) as api, _target(output) as target:
        with api.stream(slug, "/analytics/export", asked, silence_s=SILENCE_S) as response:
            rows, written = _copy(response, target.file, FORMATS[format_]())
        target.file.flush()
        calls = rows.total(target.path)
    known = [] if calls is None else [plural(calls, "call")]
    click.echo(f"{', '.join([*known, size(written)])}{'' if output == STDOUT else f' in {output}'}", err=True)


def _copy(response: httpx.Response, file: BinaryIO, rows: RowCounter) -> tuple[RowCounter, int]:
    """Every byte from the one to the other; how many there were, and the counter that saw them."""
    shown = sys.stderr.isatty() and not file.isatty()
    columns = (TextColumn("exporting"), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=None)
        for chunk in response.iter_bytes():
            file.write(chunk)
            rows.see(chunk)
            progress.advance(task, len(chunk))
        return rows, int(progress.tasks[task].completed)


@contextlib.contextmanager
def _target(output: str) -> Iterator[Output]:
    """Standard output, or a file that takes its name when the block ends well, and is gone when it does not.

    Raises:
        CallscopeError: it cannot be written.
    """
    try:
        path = Path(os.path.realpath(output))  # of a link, where it leads: the link stays
        if output == STDOUT:
            yield Output(sys.stdout.buffer, None)
        elif path.exists() and not path.is_file():  # a pipe, a device: there is no name to be taken
            with path.open("wb") as file:
                yield Output(file, None)
        else:
            with _draft(path) as file:
                yield Output(file, Path(file.name))
    except BrokenPipeError:
        raise  # nobody reads it any more, which is no mistake
    except OSError as error:
        raise CallscopeError(f"--output: {output} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[BinaryIO]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with draft.open("xb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
