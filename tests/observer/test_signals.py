"""The names are data that anything can import."""

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

from gateway.observer import signals
from gateway.observer.signals import Metric


def test_signals_imports_the_standard_library_only() -> None:
    program = "import sys; import gateway.observer.signals; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    ours = set(done.stdout.split()) - sys.stdlib_module_names - {"__main__"}
    installed = {name for name in ours if not name.startswith(("_", "sitecustomize"))}
    assert installed == {"gateway"}


def test_no_name_stands_twice() -> None:
    names = [metric.name for metric in signals.METRICS]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", signals.METRICS, ids=lambda metric: metric.name)
def test_a_metrics_name_follows_the_naming_rules(metric: Metric) -> None:
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.family.endswith(metric.unit)
    assert metric.name.startswith(("mcp_gateway_", "mcp_server_", "mcp_client_"))
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(metric.buckets)
    assert set(metric.collapse) <= set(metric.labels)


@pytest.mark.skipif(sys.platform != "linux", reason="prometheus_client reads /proc")
def test_the_process_metrics_are_those_of_prometheus_client() -> None:
    collector = ProcessCollector(registry=CollectorRegistry())

    exposed = {sample.name for metric in collector.collect() for sample in metric.samples}
    assert exposed == set(signals.PROCESS_METRICS)
