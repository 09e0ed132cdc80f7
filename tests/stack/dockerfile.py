"""The Dockerfile as a test reads it: instructions by stage; and what .dockerignore lets through."""

import fnmatch
import json
import re
import shlex
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent.parent


class Instruction(NamedTuple):
    """One instruction of a stage."""

    stage: int
    name: str
    flags: dict[str, str]
    """`--from=build` is {"from": "build"}."""
    text: str
    """What follows the flags."""

    @property
    def words(self) -> list[str]:
        """The JSON form's elements, or the shell form's words; of a health check, those of its command."""
        text = self.text.removeprefix("CMD").lstrip() if self.name == "HEALTHCHECK" else self.text
        return json.loads(text) if text.startswith("[") else shlex.split(text)


def instructions(text: str) -> list[Instruction]:
    """A Dockerfile's instructions in order: comments are gone, and lines that go on are one."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: list[Instruction] = []
    stage = -1
    for line in re.sub(r"\\\n", " ", kept).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            stage += name == "FROM"
            found.append(_instruction(stage, name, rest.strip()))
    return found


def _instruction(stage: int, name: str, rest: str) -> Instruction:
    flags = {}
    while match := re.match(r"--([\w-]+)=(\S+)\s+", rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(stage, name, flags, rest)


def let_through(path: str, patterns: list[str]) -> bool:
    """Whether a path of the build's context reaches the builder: the last pattern that fits it, or its folder, decides.

    Source: https://docs.docker.com/build/concepts/context/#dockerignore-files
    """
    ignored = False
    folders = path.split("/")
    ways = ["/".join(folders[: i + 1]) for i in range(len(folders))]
    for pattern in patterns:
        if any(_fits(way, pattern.removeprefix("!").strip("/")) for way in ways):
            ignored = not pattern.startswith("!")
    return not ignored


def ignore_patterns(text: str) -> list[str]:
    """The lines of a .dockerignore that say something."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return _fits(path, pattern[3:]) or ("/" in path and _fits(path.partition("/")[2], pattern))
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
