"""What the image would hold, laid out in a folder as the Dockerfile says, for which nobody has the right to write."""

import compileall
import os
import posixpath
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.backends import missing
from tests.stack.dockerfile import ROOT, Instruction, ignore_patterns, instructions, let_through

FILE: Final = instructions((ROOT / "Dockerfile").read_text())
IGNORED: Final = ignore_patterns((ROOT / ".dockerignore").read_text())
FINAL: Final = FILE[-1].stage
WITHOUT_RIGHTS: Final = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
"""What is left of root without capabilities: a user who may write what it has the permission to."""


def only(name: str) -> Instruction:
    """The only instruction of a name in the final stage."""
    [found] = [one for one in FILE if (one.stage, one.name) == (FINAL, name)]
    return found


def variables(stage: int) -> dict[str, str]:
    """`ENV` of a stage."""
    pairs = [word.partition("=") for one in FILE if (one.stage, one.name) == (stage, "ENV") for word in one.words]
    return {name: value for name, _, value in pairs}


def copied(stage: int) -> list[tuple[str, str]]:
    """What a stage takes from the build's context: the path there, and the absolute path in the image."""
    folder = next((one.text for one in FILE if (one.stage, one.name) == (stage, "WORKDIR")), "/")
    found = []
    for one in FILE:
        if (one.stage, one.name) == (stage, "COPY") and "from" not in one.flags:
            *sources, target = one.words
            below = posixpath.normpath(posixpath.join(folder, target))
            into = target.endswith("/")
            found += [(source, f"{below}/{Path(source).name}" if into else below) for source in sources]
    return found


class Image(NamedTuple):
    """A folder that stands for the image's root."""

    root: Path

    def command(self, *words: str) -> list[str]:
        """A command of the image: its `python` is this one, without any right but its user's."""
        python = [sys.executable if word == "python" else word for word in words]
        if os.geteuid() != 0:
            return python
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            missing("no setpriv on the PATH, without which root may write everywhere: util-linux has it")
        return [setpriv, *WITHOUT_RIGHTS, *python]

    def environment(self, **more: str) -> dict[str, str]:
        """The image's variables, in its place: there is no home folder."""
        search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {name: value for name, value in variables(FINAL).items() if name != "PATH"}
        return {**own, "PYTHONPATH": f"{self.root}{own['PYTHONPATH']}", "PATH": search, "HOME": "/nonexistent", **more}

    def run(self, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of the image to its end."""
        return subprocess.run(
            self.command(*words),
            cwd="/",
            env=self.environment(**(environ or {})),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def laid_out(folder: Path) -> Image:
    """Do what the Dockerfile does but for installing packages, and take the right to write away."""
    stages: dict[str, Path] = {}
    for stage in range(FINAL + 1):
        root = folder / str(stage)
        name = next(one.words[-1] for one in FILE if (one.stage, one.name) == (stage, "FROM"))
        stages[name] = root
        for source, target in copied(stage):
            _copy(ROOT / source, Path(f"{root}{target}"))
        for one in FILE:
            if (one.stage, one.name) == (stage, "COPY") and "from" in one.flags:
                source, target = one.words
                shutil.copytree(f"{stages[one.flags['from']]}{source}", f"{root}{target}")
    image = Image(folder / str(FINAL))
    compileall.compile_dir(image.root, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    for path in (image.root, *image.root.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    return image


def _copy(source: Path, target: Path) -> None:
    def not_sent(where: str, names: Sequence[str]) -> set[str]:
        below = Path(where).relative_to(ROOT)
        return {name for name in names if not let_through(str(below / name), IGNORED)}

    if source.is_dir():
        shutil.copytree(source, target, ignore=not_sent)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
