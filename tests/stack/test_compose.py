"""compose.yaml without a container engine: valid, and its parts fit each other and the configurations they mount."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from gateway import __version__
from gateway.config import load
from gateway.demo.fixtures import WORKSPACES
from stack import build
from tests.backends import native
from tests.stack import addresses
from tests.stack.addresses import listening, named, tree
from tests.stack.compose_file import ANY_INTERFACE, FILE, GIVEN, ROOT, Service, interpolated, read, required, services

SERVICES: Final = services()
LOOPBACK: Final = "127.0.0.1"
OPEN: Final = {("gateway", 8080), ("grafana", 3000)}
"""What other machines may reach."""
BY_IMAGE: Final = {
    "/etc/callscope": "the Dockerfile's CMD",
    "/etc/grafana/provisioning/datasources": "below GF_PATHS_PROVISIONING of Grafana's Dockerfile",
    "/etc/grafana/provisioning/dashboards": "the same",
}
"""Folders that no command names, as their images look there by default."""
DATA: Final = {"prometheus": "/prometheus", "alertmanager": "/alertmanager", "grafana": "/var/lib/grafana"}
"""Where these programs write: the others' configurations say it."""


def checked(path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """What the reference of the Compose Specification says about a file; only these variables are set."""
    checker = str(native(build.COMPOSE, "compose"))
    environ["PATH"] = os.environ["PATH"]
    return subprocess.run(
        [checker, str(path)], cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60
    )


def test_it_keeps_to_the_compose_specification() -> None:
    done = checked(FILE, **GIVEN)

    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == set(SERVICES)


@pytest.mark.parametrize("name", GIVEN)
def test_it_says_which_variable_is_not_set(name: str) -> None:
    given = {other: value for other, value in GIVEN.items() if other != name}

    assert name in checked(FILE, **given).stderr


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("read_only: false", "read_onyl: false", "read_onyl"),
        ("\n  loki-data:", "\n  logs-data:", "loki-data"),
        ("depends_on: [otel-collector]", "depends_on: [collector]", "collector"),
        ("interval: 10s", "interval: 10x", "10x"),
    ],
)
def test_the_checker_refuses_what_does_not_fit_together(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    broken = tmp_path / "compose.yaml"
    assert right in FILE.read_text()
    broken.write_text(FILE.read_text().replace(right, wrong))

    assert said in checked(broken, **GIVEN).stderr


def test_docker_compose_takes_it() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker with compose on the PATH: the reference implementation has checked it")
    environ = {**os.environ, **GIVEN}
    config = [docker, "compose", "-f", str(FILE), "--profile", "demo", "config", "--format", "json"]
    done = subprocess.run(config, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == set(SERVICES)


def test_nothing_starts_without_a_password_and_a_secret_of_ones_own() -> None:
    assert required() == {"CALLSCOPE_JWT_SECRET", "GRAFANA_ADMIN_PASSWORD"}
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|KEY")
    for name, service in yaml.safe_load(FILE.read_text())["services"].items():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{name}: {variable} has a default"


@pytest.mark.parametrize("name", sorted(required()))
def test_without_one_of_them_its_reason_is_given(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        read({key: value for key, value in GIVEN.items() if key != name})


def test_variables_are_filled_in_as_the_specification_says() -> None:
    assert interpolated("${A:-x} ${B:-y} $${C} ${D:?why}", {"B": "b", "D": "d"}) == "x b ${C} d"


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_each_image_is_pinned_to_a_whole_version(service: Service) -> None:
    name, _, tag = service.image.partition(":")

    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), service.image
    assert (name == "callscope") == ("build" in service.tree)
    assert name != "callscope" or tag == __version__


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_each_mounted_path_is_there_and_read_only(service: Service) -> None:
    for mount in service.mounts:
        if mount.named:
            continue
        path = ROOT / mount.source
        assert mount.read_only, mount
        assert mount.source.startswith("./"), f"{mount.source} is not of this checkout"
        assert path.exists(), f"{mount.source} is not there: the engine would make a folder of this name"
        assert path.is_file() == ("." in Path(mount.target).name), (
            f"{mount.source} is not what {mount.target} sounds like"
        )
        assert not path.is_symlink()


def test_each_named_volume_is_declared_and_used() -> None:
    used = {mount.source for service in SERVICES.values() for mount in service.mounts if mount.named}

    assert used == set(read()["volumes"])


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_volume_that_is_written_has_one_writer(service: Service) -> None:
    for mount in service.mounts:
        others = [
            other.name
            for other in SERVICES.values()
            if other.name != service.name and any(m.source == mount.source and not m.read_only for m in other.mounts)
        ]
        assert mount.read_only or not others, f"{mount.source} is written by {service.name} and {others}"


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_each_file_that_a_command_names_is_mounted(service: Service) -> None:
    named_paths = [
        path for word in service.words for path in re.findall(r"(?:^|[=\s])(/(?:etc|targets)/[^\s;]+)", word)
    ]

    for path in named_paths:
        file = service.on_host(path)
        if service.name != "demo":  # which writes what it names
            assert file is not None, path
            assert file.is_file(), path
        assert service.is_mounted(path) is not None, path


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_each_mounted_configuration_is_one_that_is_read(service: Service) -> None:
    words = " ".join(service.words)
    rules_and_targets = {f"/etc/prometheus/{folder}" for folder in _folders_of_prometheus()}

    for mount in service.mounts:
        if mount.target.startswith("/etc/") and mount.target not in (*BY_IMAGE, *rules_and_targets):
            assert mount.target in words, f"{service.name} does not read {mount.target}"


def _folders_of_prometheus() -> set[str]:
    """The folders beside prometheus.yml that it names."""
    config = tree("prometheus/prometheus.yml")
    return {path.partition("/")[0] for path in (*config["rule_files"], *_target_files(config))}


def _target_files(part: Any) -> list[str]:
    """The files of every `file_sd_configs`."""
    if isinstance(part, dict):
        found = [file for entry in part.get("file_sd_configs", []) for file in entry["files"]]
        return found + [file for value in part.values() for file in _target_files(value)]
    return [file for value in part for file in _target_files(value)] if isinstance(part, list) else []


def test_the_files_that_prometheus_names_are_mounted_beside_its_configuration() -> None:
    prometheus = SERVICES["prometheus"]
    config = tree("prometheus/prometheus.yml")

    for path in (*config["rule_files"], *_target_files(config)):
        inside = f"/etc/prometheus/{path}"
        mount = prometheus.is_mounted(inside)
        assert mount is not None, path
        folder = prometheus.on_host(str(Path(inside).parent))
        assert mount.named or (folder is not None and list(folder.glob(Path(path).name))), f"{path} is nowhere"


def test_the_demo_tells_prometheus_where_it_is() -> None:
    demo, prometheus = SERVICES["demo"], SERVICES["prometheus"]
    [told] = demo.mounts
    [heard] = [mount for mount in prometheus.mounts if mount.source == told.source]
    script = demo.tree["command"][0]
    written = re.search(r"echo '([^']+)' > (\S+)", script)
    assert written is not None
    path = written[2].replace(told.target, heard.target, 1)

    [pattern] = [name for name in _target_files(tree("prometheus/prometheus.yml")) if name.startswith("demo")]
    assert Path(path).match(f"/etc/prometheus/{pattern}"), path
    [target] = yaml.safe_load(written[1])
    assert target["targets"] == [f"demo:{next(iter(listening()['demo']))}"]
    assert target["labels"]["job"] != "callscope"
    assert script.rstrip().endswith(f"rm -f {written[2]}")


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_what_a_service_writes_is_on_a_volume(service: Service) -> None:
    for folder in _written(service.name):
        mount = service.is_mounted(folder)
        assert mount is not None, f"{service.name} would lose {folder}"
        assert (mount.named, mount.read_only) == (True, False), mount


def _written(name: str) -> list[str]:
    """The folders that a service writes for longer than it runs."""
    match name:
        case "gateway":
            return [str(load(ROOT / "stack" / "gateway" / "callscope.yaml", GIVEN).data_dir)]
        case "otel-collector":
            return [tree("otel-collector/config.yaml")["extensions"]["file_storage"]["directory"]]
        case "loki":
            loki = tree("loki/config.yaml")
            return [loki["common"]["path_prefix"], loki["compactor"]["working_directory"]]
        case "tempo":  # what is not set is below /var/tempo as well: the defaults of its manifest
            storage = tree("tempo/config.yaml")["storage"]["trace"]
            return ["/var/tempo", storage["local"]["path"], storage["wal"]["path"]]
        case "demo":
            return []
        case _:
            folder = DATA[name]
            flags = [word.partition("=")[2] for word in SERVICES[name].words if ".path=" in word]
            assert flags in ([], [folder]), flags
            return [folder]


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_what_is_published_is_published_on_loopback_but_for_grafana_and_the_gateway(service: Service) -> None:
    for published in service.published:
        assert published.port in listening()[service.name], f"nobody listens on {published}"
        assert published.host == (ANY_INTERFACE if (service.name, published.port) in OPEN else LOOPBACK), published


def test_grafana_and_the_gateway_are_published() -> None:
    everywhere = {(s.name, p.port) for s in SERVICES.values() for p in s.published if p.host == ANY_INTERFACE}

    assert everywhere == OPEN


@pytest.mark.parametrize("address", named(), ids=str)
def test_each_address_that_is_named_is_one_at_which_a_service_listens(address: addresses.Named) -> None:
    if address.host in ("localhost", LOOPBACK):  # for people: what the host publishes
        published = {p.host_port for service in SERVICES.values() for p in service.published}
        assert address.port in published, address
    else:
        assert address.port in listening().get(address.host, set()), address


def test_addresses_are_found_where_they_are_named() -> None:
    found = {(address.file, address.host, address.port) for address in named()}

    assert found >= {
        ("compose.yaml", "otel-collector", 4318),
        ("stack/gateway/callscope.yaml", "otel-collector", 4318),
        ("otel-collector/config.yaml", "tempo", 4318),
        ("otel-collector/config.yaml", "loki", 3100),
        ("prometheus/targets/callscope.yml", "gateway", 9464),
        ("grafana/provisioning/datasources/callscope.yaml", "alertmanager", 9093),
    }


def test_prometheus_looks_after_each_service() -> None:
    targets = {address.host for address in named() if address.file.startswith("prometheus/targets/")}

    assert targets == set(SERVICES) - {"demo"}


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_it_starts_whole_without_the_demo(service: Service) -> None:
    assert (service.tree.get("profiles") == ["demo"]) == (service.name == "demo")
    assert set(service.tree.get("depends_on", [])) <= set(SERVICES) - {"demo"}


def test_the_demo_has_no_workspace_of_the_gateway_beside_it() -> None:
    assert not set(WORKSPACES) & set(load(ROOT / "stack" / "gateway" / "callscope.yaml", GIVEN).workspaces)
