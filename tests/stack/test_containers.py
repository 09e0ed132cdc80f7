"""The containers of compose.yaml: each can be asked after its health, by what its image has, and may do little."""

import re
from typing import Final

import pytest

from tests.stack import dockerfile
from tests.stack.addresses import listening, tree
from tests.stack.compose_file import ROOT, Service, services

SERVICES: Final = services()
LOOPBACK: Final = "127.0.0.1"
WRITABLE: Final = {"grafana": "its image has not been tried with a read-only root"}
ROOT_USER: Final = {"demo", "otel-collector"}
"""Their volumes are made by the engine, for root, as their images have no such folder."""
NO_HEALTHCHECK: Final = {
    "otel-collector": "its image is empty but for the program, which cannot ask after its own health"
}
WITH_WGET: Final = {
    "prometheus": "the image is made on busybox: Dockerfile of prometheus v3.14.0",
    "alertmanager": "the same: Dockerfile of alertmanager v0.33.1",
    "grafana": "the default variant is made on Alpine: Grafana's page on its Docker image",
}
ITSELF: Final = {"loki": ("/usr/bin/loki", 3100), "tempo": ("/tempo", 3200)}
"""Programs with a flag -health, which asks http://localhost:PORT/ready: cmd/loki/health.go, cmd/tempo/health.go."""


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_each_service_says_whether_it_is_well(service: Service) -> None:
    health = service.tree.get("healthcheck")
    if service.name in NO_HEALTHCHECK:
        assert health is None, f"{service.name} can be asked now: it needs no exception"
    elif health is None:
        text = (ROOT / "Dockerfile").read_text()
        assert "build" in service.tree, f"{service.name} has no health check"
        assert any(one.name == "HEALTHCHECK" for one in dockerfile.instructions(text))
    else:
        how, program, *rest = health["test"]
        assert how == "CMD", "a shell is in few of these images"
        assert (program, *rest) == _expected(service, program, rest), health
        assert {"interval", "timeout", "start_period"} <= set(health)


def _expected(service: Service, program: str, rest: list[str]) -> tuple[str, ...]:
    """The check that the service's image can run, on a port of its own."""
    ports = {int(port) for word in rest for port in re.findall(rf"{LOOPBACK}:(\d+)/", word)}
    if service.name in ITSELF:
        path, port = ITSELF[service.name]
        assert port in listening()[service.name]
        return (path, "-health")
    assert ports, rest
    assert ports <= listening()[service.name]
    assert program == ("wget" if service.name in WITH_WGET else "python")
    return (program, *rest)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_each_service_is_confined(service: Service) -> None:
    confined = service.tree

    assert confined["read_only"] == (service.name not in WRITABLE)
    assert confined["cap_drop"] == ["ALL"]
    assert confined["security_opt"] == ["no-new-privileges:true"]
    assert (confined.get("user") == "0:0") == (service.name in ROOT_USER)
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(confined)
    assert not any("docker.sock" in mount.source for mount in service.mounts)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_each_service_comes_back_and_its_log_does_not_fill_the_disk(service: Service) -> None:
    assert service.tree["restart"] == "unless-stopped"
    assert set(service.tree["logging"]["options"]) == {"max-size", "max-file"}


def test_the_collector_leaves_room_below_its_limit() -> None:
    collector = SERVICES["otel-collector"].tree
    limit, garbage_collected = _mebibytes(collector["mem_limit"]), _mebibytes(collector["environment"]["GOMEMLIMIT"])
    refuses = tree("otel-collector/config.yaml")["processors"]["memory_limiter"]["limit_percentage"] / 100

    assert 0.7 * limit <= garbage_collected <= refuses * limit


def _mebibytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)(?:m|MiB)", text)
    assert match is not None, text
    return int(match[1])
