"""The metrics of the gateway itself."""

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry

from gateway.calls import ToolCall
from gateway.config import Config
from gateway.journal import Reader, Writer
from gateway.observer import signals
from gateway.observer.config_reload import ConfigReloader
from gateway.observer.exposition import Labels
from gateway.observer.self_metrics import LoopLagProbe, SelfMetrics, WorstLag
from gateway.observer.sinks import SinkWorker
from tests.observer.events import AT_ONCE, NOW, Clock, batch, call, sink_at, value

UNCHANGED = ConfigReloader(Config(), [])


def test_the_lag_of_each_sink_is_exposed(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "journal", "relay-0")
    writer.append(call())
    worker = SinkWorker(sink_at(tmp_path, Clock()), Reader(tmp_path / "journal", ToolCall), interval=0.01)
    worker.lag_bytes = 512
    registry = CollectorRegistry()
    registry.register(SelfMetrics([worker], UNCHANGED, dict, version="1.2.3"))

    assert registry.get_sample_value("mcp_gateway_sink_lag_bytes", {"sink": "metrics"}) == 512
    behind = registry.get_sample_value("mcp_gateway_sink_lag_seconds", {"sink": "metrics"})
    assert behind is not None
    assert behind > 0
    worker.start()
    worker.stop(drain_seconds=10)
    writer.close()
    assert registry.get_sample_value("mcp_gateway_sink_lag_bytes", {"sink": "metrics"}) == 0
    assert registry.get_sample_value("mcp_gateway_sink_lag_seconds", {"sink": "metrics"}) == 0


def test_reloads_and_the_version_are_exposed() -> None:
    reloader = ConfigReloader(Config(), [])
    registry = CollectorRegistry()
    registry.register(SelfMetrics([], reloader, dict, version="1.2.3"))
    reloader.outcomes["error"] += 2
    reloader.valid = False

    assert registry.get_sample_value("mcp_gateway_config_reloads_total", {"status": "success"}) == 0
    assert registry.get_sample_value("mcp_gateway_config_reloads_total", {"status": "error"}) == 2
    assert registry.get_sample_value("mcp_gateway_config_last_reload_successful") == 0
    assert registry.get_sample_value("mcp_gateway_build_info", {"process": "observer", "version": "1.2.3"}) == 1


def test_the_event_loops_lag_is_exposed_of_each_kind_of_process_that_runs() -> None:
    registry = CollectorRegistry()
    lags = {"relay": None, "observer": 0.25}
    registry.register(SelfMetrics([], UNCHANGED, lambda: lags, version="1.2.3"))
    name = "mcp_gateway_event_loop_lag_seconds"

    assert registry.get_sample_value(name, {"process": "relay"}) is None
    assert registry.get_sample_value(name, {"process": "observer"}) == 0.25


def test_losses_of_every_life_of_the_process_are_added_up(tmp_path: Path) -> None:
    clock = Clock()
    name, rejected = "mcp_gateway_records_dropped_total", {"sink": "otlp", "reason": "rejected"}
    lost: dict[Labels, int] = {("otlp", "rejected"): 0}
    first = sink_at(tmp_path, clock, AT_ONCE)
    first.add_source(signals.RECORDS_DROPPED, lambda: lost)
    assert value(first, name, **rejected) == 0
    lost["otlp", "rejected"] = 5
    first.save()
    lost["otlp", "rejected"] = 7
    first.close()

    second = sink_at(tmp_path, clock, AT_ONCE)
    second.process(batch())
    lost["otlp", "rejected"] = 1
    second.add_source(signals.RECORDS_DROPPED, lambda: lost)

    assert value(second, name, **rejected) == 8


def test_a_loss_is_exposed_when_it_is_saved_so_that_a_kill_takes_none_of_it_back(tmp_path: Path) -> None:
    clock = Clock()
    name, rejected = "mcp_gateway_records_dropped_total", {"sink": "otlp", "reason": "rejected"}
    lost: dict[Labels, int] = {("otlp", "rejected"): 0}
    killed = sink_at(tmp_path, clock, AT_ONCE, save_interval=5)
    killed.add_source(signals.RECORDS_DROPPED, lambda: lost)
    lost["otlp", "rejected"] = 5
    unsaved = value(killed, name, **rejected)
    clock.now += 5
    killed.process(batch())
    saved = value(killed, name, **rejected)

    again = sink_at(tmp_path, clock, AT_ONCE)
    again.process(batch())

    assert (unsaved, saved) == (0, 5)
    assert value(again, name, **rejected) == 5


def test_the_worst_lag_is_that_of_15_seconds() -> None:
    worst = WorstLag()
    nothing = worst.seconds
    worst.add(0.5, at_s=NOW)
    worst.add(0.25, at_s=NOW + 15)
    peak = worst.seconds
    worst.add(0.125, at_s=NOW + 15.1)

    assert (nothing, peak, worst.seconds) == (0, 0.5, 0.25)


async def test_a_probe_sees_for_how_long_the_loop_was_busy() -> None:
    clock = Clock()
    probe = LoopLagProbe(clock=clock, step_s=0.001)
    task = asyncio.create_task(probe.run())
    await asyncio.sleep(0)  # it has begun its step

    clock.now += 0.5
    async with asyncio.timeout(60):
        while probe.worst.seconds == 0:  # noqa: ASYNC110 - the condition is another task's work
            await asyncio.sleep(0)
    task.cancel()

    assert round(probe.worst.seconds, 6) == 0.499
