"""The Dockerfile without a container engine: what it says, and a rehearsal of what its image would hold and do."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
import yaml

from gateway.config import load
from gateway.demo.environment import READY
from tests.stack.compose_file import GIVEN, services
from tests.stack.dockerfile import ROOT, Instruction, instructions, let_through
from tests.stack.image import FILE, FINAL, IGNORED, Image, copied, laid_out, only, variables
from tests.system.gateway_process import TLS

CONFIG: Final = ROOT / "stack" / "gateway" / "callscope.yaml"
SECRET: Final = {"CALLSCOPE_JWT_SECRET": GIVEN["CALLSCOPE_JWT_SECRET"]}
IMPORTED: Final = """
import importlib, importlib.metadata, pkgutil, sys
before = set(sys.modules)
import gateway
for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
names = {name.partition(".")[0] for name in set(sys.modules) - before}
owners = importlib.metadata.packages_distributions()
print(gateway.__file__, *sorted({owner for name in names for owner in owners.get(name, [])}))
"""
"""Prints where the package is, and the distributions that importing all of it takes."""


def ports() -> set[int]:
    """Where the gateway of compose.yaml listens."""
    config = load(CONFIG, GIVEN)
    return {config.listen.port, config.observer.listen.port}


def test_it_is_made_on_one_pinned_image() -> None:
    bases = [one.words for one in FILE if one.name == "FROM"]
    stages = {words[-1] for words in bases if len(words) == 3}
    others = [words[0] for words in bases if words[0] not in stages]

    assert len(others) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", others[0])


def test_it_installs_what_is_locked_and_nothing_else() -> None:
    commands = [part.strip() for one in FILE if one.name == "RUN" for part in one.text.split("&&")]
    [install] = [command for command in commands if command.startswith("pip ")]
    lines = (ROOT / "requirements" / "runtime.txt").read_text().splitlines()

    assert {command.partition(" ")[0] for command in commands} == {"python", "pip", "install", "chmod"}
    assert re.search(r" install --no-deps --require-hashes --only-binary :all: -r requirements/runtime\.txt$", install)
    assert ("requirements/runtime.txt", "/src/requirements/runtime.txt") in copied(1)
    assert not [one for one in FILE if one.name == "ADD"]
    locked = [i for i, line in enumerate(lines) if re.match(r"\S+==\S+", line)]
    assert locked
    assert all(lines[i].endswith("\\") and lines[i + 1].strip().startswith("--hash=sha256:") for i in locked)


@pytest.mark.parametrize("source", [source for stage in range(FINAL + 1) for source, _ in copied(stage)])
def test_what_it_copies_is_there_and_reaches_the_builder(source: str) -> None:
    path = ROOT / source
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    sent = [one for one in files if let_through(str(one.relative_to(ROOT)), IGNORED)]

    assert sent, f"{source} does not reach the builder"
    assert {one.suffix for one in set(files) - set(sent)} <= {".pyc"}


def test_it_takes_what_the_wheel_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    application = variables(FINAL)["PYTHONPATH"]
    taken = {source for stage in range(FINAL + 1) for source, target in copied(stage) if target.startswith(application)}

    assert taken == {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"], "LICENSE"}


def test_nothing_else_reaches_the_builder() -> None:
    sources = [Path(source) for stage in range(FINAL + 1) for source, _ in copied(stage)]
    folders = (ROOT, *(ROOT / parent for source in sources for parent in source.parents if parent != Path()))
    found = {path.relative_to(ROOT) for folder in folders for path in folder.iterdir()}
    sent = {path for path in found if let_through(str(path), IGNORED)}

    assert sent == found & set(sources)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("secrets.env", False),
        ("gateway", True),
        ("gateway/relay/relay_app.py", True),
        ("gateway/relay/__pycache__/app.cpython-313.pyc", False),
        ("dashboards/layout.py", False),
        ("dashboards/generated/callscope-overview.json", True),
    ],
)
def test_the_last_pattern_that_fits_decides(path: str, sent: bool) -> None:  # noqa: FBT001 - a table's column
    assert let_through(path, IGNORED) == sent


def test_instructions_are_taken_apart() -> None:
    text = '# a comment\nFROM a AS b\nRUN one \\\n && two\nFROM b\nCOPY --from=b /x /y\nCMD ["p", "q r"]\n'

    assert instructions(text) == [
        Instruction(0, "FROM", {}, "a AS b"),
        Instruction(0, "RUN", {}, "one   && two"),
        Instruction(1, "FROM", {}, "b"),
        Instruction(1, "COPY", {"from": "b"}, "/x /y"),
        Instruction(1, "CMD", {}, '["p", "q r"]'),
    ]
    assert instructions(text)[-1].words == ["p", "q r"]


def test_its_user_can_read_it_whoever_checked_it_out() -> None:
    [places] = [
        i for i, one in enumerate(FILE) if one.name == "RUN" and one.text.endswith("chmod -R a+rX /opt/callscope")
    ]
    copies = [i for i, one in enumerate(FILE) if one.name == "COPY" and one.stage < FINAL]
    taken = [one.words for one in FILE if (one.stage, one.name) == (FINAL, "COPY")]

    assert places > max(copies)
    assert taken == [["/opt/callscope", "/opt/callscope"]]


def test_it_runs_as_a_user_who_owns_its_data_and_nothing_else() -> None:
    user, group = only("USER").text.split(":")
    [data] = only("VOLUME").words
    made = [one.words for one in FILE if (one.stage, one.name) == (FINAL, "RUN")]

    assert int(user) > 0
    assert made == [["install", "-d", "-o", user, "-g", group, "-m", "0750", data]]
    assert str(load(CONFIG, GIVEN).data_dir) == data
    assert [one.name for one in FILE].index("USER") > max(
        i for i, one in enumerate(FILE) if one.name in ("RUN", "COPY")
    )


def test_its_ports_are_those_that_the_gateway_listens_on() -> None:
    health = only("HEALTHCHECK").text

    assert {int(port) for port in only("EXPOSE").words} == ports()
    assert {int(port) for port in re.findall(r"\d{4,5}", health)} == ports()


def test_its_command_reads_the_configuration_that_compose_mounts() -> None:
    *_, path = only("CMD").words

    assert services()["gateway"].on_host(path) == CONFIG
    assert services()["gateway"].words == []


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image's files, which nobody may change."""
    return laid_out(tmp_path_factory.mktemp("image"))


def test_nothing_of_it_can_be_written(image: Image) -> None:
    application = f"{image.root}{variables(FINAL)['PYTHONPATH']}"
    for path in (f"{image.root}/x", f"{application}/x", f"{application}/gateway/__init__.py"):
        done = image.run("python", "-c", f"open({path!r}, 'a')")
        assert "PermissionError" in done.stderr, path


def test_it_needs_no_package_that_is_not_locked(image: Image) -> None:
    done = image.run("python", "-c", IMPORTED)
    assert done.returncode == 0, done.stderr
    where, *distributions = done.stdout.split()
    text = (ROOT / "requirements" / "runtime.txt").read_text()
    locked = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}

    assert where.startswith(str(image.root))
    assert {name.lower().replace("_", "-") for name in distributions} - locked <= {"callscope"}
    assert {"mcp", "duckdb", "uvloop"} <= set(distributions)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of compose.yaml, with free ports of loopback and a folder of the test for its data."""
    tree = yaml.safe_load(CONFIG.read_text())
    tree |= {"listen": "127.0.0.1:0", "observer": {"listen": "127.0.0.1:0"}, "data_dir": str(tmp_path / "data")}
    path = tmp_path / "callscope.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_the_configuration_to_begin_with_can_be_used(image: Image, config: Path) -> None:
    done = image.run(*only("ENTRYPOINT").words, "check", "--config", str(config), environ=SECRET)

    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "ok (1 workspaces, 0 servers, 0 tokens)" in done.stdout


def test_without_its_secret_it_says_what_is_missing(image: Image, config: Path) -> None:
    done = image.run(*only("ENTRYPOINT").words, "check", "--config", str(config))

    assert done.returncode == 2
    assert "CALLSCOPE_JWT_SECRET" in done.stderr


class Serving:
    """The image's command with a configuration; it ends when its standard input does."""

    def __init__(self, image: Image, config: Path) -> None:
        self._image = image
        self._log = config.with_suffix(".log")
        command, _, _ = only("CMD").words
        leash = ("python", "-m", "gateway.demo.kill_on_eof", sys.executable, *only("ENTRYPOINT").words[1:])
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                image.command(*leash, command, "--config", str(config)),
                cwd="/",
                env=image.environment(**SECRET),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        ready = READY.search(self._process.stdout.readline())
        assert ready, self._log.read_text()
        self.relay, self.observer = ready["relay"], ready["observer"]

    def is_well(self) -> bool:
        """What the image's health check says, asked at these ports."""
        check = only("HEALTHCHECK").words
        config = load(CONFIG, GIVEN)
        moved = {config.listen.port: self.relay, config.observer.listen.port: self.observer}
        for port, url in moved.items():
            check = [word.replace(str(port), url.rpartition(":")[2]) for word in check]
        return self._image.run(*check).returncode == 0

    def stop(self) -> int:
        """Let go of it: the exit status."""
        self._process.communicate(timeout=60)
        return self._process.returncode


@pytest.fixture
def serving(image: Image, config: Path) -> Iterator[Serving]:
    started = Serving(image, config)
    try:
        yield started
    finally:
        started.stop()


def test_it_serves_and_its_health_check_knows_whether_it_does(serving: Serving) -> None:
    assert serving.is_well()
    assert "mcp_gateway_build_info" in httpx.get(f"{serving.observer}/metrics", verify=TLS).text
    assert httpx.post(f"{serving.relay}/ws/platform", json={}, verify=TLS).status_code == 401

    assert serving.stop() == 0
    assert not serving.is_well()


@pytest.mark.parametrize(
    ("kind", "sources"),
    [("dashboards", ["dashboards/generated/*.json"]), ("rules", ["prometheus/rules/*.yml", "docs/runbook.md"])],
)
def test_it_writes_out_what_it_was_built_with(image: Image, tmp_path: Path, kind: str, sources: list[str]) -> None:
    done = image.run(*only("ENTRYPOINT").words, kind, "export", str(tmp_path / kind))

    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_bytes() for path in (tmp_path / kind).iterdir()}
    assert written == {path.name: path.read_bytes() for source in sources for path in ROOT.glob(source)}
