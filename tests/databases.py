"""A PostgreSQL cluster that is thrown away."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg

from tests.backends import missing

USER: Final = "postgres"
_SETTINGS: Final = "-c fsync=off -c listen_addresses=127.0.0.1 -c max_connections=40 -c log_min_messages=fatal"


def binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, the newest there is."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    found = [folder for folder in folders if (folder / "initdb").exists()]
    return found[-1] if found else None


class Cluster:
    """A server of its own in a temporary folder, run by the user `postgres` where this is root."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder
        self._programs = programs
        self._names = (f"ledger_{number}" for number in itertools.count())
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
        self._run("initdb", "--username", USER, "--auth", "trust", "--no-sync", "--locale", "C.UTF-8", "--pgdata")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments, str(self._folder / "data")]
        if os.geteuid() == 0:
            command = ["runuser", "-u", USER, "--", *command]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=60)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"{_SETTINGS} -c port={self.port} -c unix_socket_directories={self._folder}"
        self._run("pg_ctl", "start", "--wait", "--log", str(self._folder / "log"), "--options", options, "--pgdata")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `immediate` is as if it were killed."""
        self._run("pg_ctl", "stop", "--wait", "--mode", mode, "--pgdata")

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Where a database is."""
        return f"postgresql://{USER}@127.0.0.1:{port or self.port}/{database}"

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = next(self._names)
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return self.url(name)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A running cluster; skipped where there is no PostgreSQL, which in CI is a failure."""
    programs = binaries()
    if programs is None:
        missing("no PostgreSQL server here: `make test-tools` installs it")
    folder = Path(tempfile.mkdtemp(prefix="callscope-postgresql-"))
    started = Cluster(folder, programs)
    try:
        yield started
    finally:
        started.stop("immediate")
        shutil.rmtree(folder)
