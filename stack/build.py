"""Builds the native back ends from source, outside the checkout. A build is kept until its sources change.

Prometheus 3 is a Go tool module (`go.mod` with `tool` lines, and `go.sum`). The OpenTelemetry Collector is assembled
from `collector/manifest.yaml` by its builder, which is a tool module too. Alertmanager comes from Debian, because its
Go module lacks generated files. Loki, Tempo and Grafana are not built: their license is the AGPL.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A folder with a Go module, and how it is built."""

    name: str
    binaries: tuple[str, ...]
    """The programs that the build results in."""
    tags: str = ""
    ldflags: str = "-s -w"
    manifest: str = ""
    """The manifest of the Collector's builder; its `dist.name` is the program."""
    program: str = ""
    """The source file, if the program is our own; else the module only has `tool` lines."""

    @property
    def folder(self) -> Path:
        """The folder of `go.mod` and `go.sum`."""
        return HERE / self.name

    @property
    def key(self) -> str:
        """A digest of the sources and options; the Go toolchain is not part of it."""
        digest = hashlib.sha256(f"{self.tags}\0{self.ldflags}\0".encode())
        for name in ("go.mod", "go.sum", self.manifest, self.program):
            if name:
                digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()[:16]


PROMETHEUS: Final = Module(
    name="prometheus",
    binaries=("prometheus", "promtool"),
    tags="netgo,remove_all_sd",  # without the clouds' service discovery, which is half of the build
    ldflags="-s -w -X github.com/prometheus/common/version.Version=3.14.0",
)
COLLECTOR: Final = Module(name="collector", binaries=("otelcol",), manifest="manifest.yaml")
COMPOSE: Final = Module(name="compose", binaries=("compose",), program="main.go")
"""The reference implementation of the Compose Specification: it validates compose.yaml."""
MODULES: Final = (COMPOSE, COLLECTOR, PROMETHEUS)


def cache(environ: Mapping[str, str]) -> Path:
    """The folder where builds are kept: `CALLSCOPE_STACK_TOOLS`, or one in the user's cache."""
    chosen = environ.get("CALLSCOPE_STACK_TOOLS")
    if chosen:
        return Path(chosen)
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "callscope" / "stack"


def built(module: Module, kept: Path) -> Path | None:
    """The folder with the module's programs; None if they have not been built."""
    folder = kept / f"{module.name}-{module.key}"
    return folder if all((folder / binary).is_file() for binary in module.binaries) else None


def build(module: Module, kept: Path, environ: Mapping[str, str]) -> Path:
    """Build the module's programs, unless they are there: the folder with them.

    Raises:
        subprocess.CalledProcessError: Go failed; its stderr says why.
    """
    found = built(module, kept)
    if found is not None:
        return found
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept, prefix=f".{module.name}-") as made:
        draft = Path(made) / "bin"
        draft.mkdir()
        go = {**environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        options = ["-trimpath", "-buildvcs=false", "-mod=readonly", f"-ldflags={module.ldflags}"]
        if module.tags:
            options.append(f"-tags={module.tags}")
        what = "." if module.program else "tool"
        _run("go", "build", *options, "-o", f"{draft}{os.sep}", what, folder=module.folder, environ=go)
        if module.manifest:
            _assemble(module, draft, Path(made), go)
        target = kept / f"{module.name}-{module.key}"
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    return kept / f"{module.name}-{module.key}"


def _assemble(module: Module, draft: Path, made: Path, go: Mapping[str, str]) -> None:
    """Make the Collector of the manifest, with the builder in `draft`."""
    manifest = yaml.safe_load((module.folder / module.manifest).read_text())
    source = made / "source"
    manifest["dist"]["output_path"] = str(source)
    placed = made / "manifest.yaml"
    placed.write_text(yaml.safe_dump(manifest))
    _run(str(draft / "builder"), f"--config={placed}", "--skip-compilation", folder=made, environ=go)
    options = ("-trimpath", "-buildvcs=false", f"-ldflags={module.ldflags}")
    _run("go", "build", *options, "-o", str(draft / manifest["dist"]["name"]), ".", folder=source, environ=go)


def _run(*command: str, folder: Path, environ: Mapping[str, str]) -> None:
    subprocess.run(command, cwd=folder, env=dict(environ), check=True)
