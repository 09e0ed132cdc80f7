"""How late event loops run."""

import asyncio

from gateway.observer.loop_lag import LoopProbe, WorstLag
from tests.observer.counting import NOW, Clock


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
    probe = LoopProbe(clock=clock, step_s=0.001)
    task = asyncio.create_task(probe.run())
    await asyncio.sleep(0)  # it has begun its step

    clock.now += 0.5
    async with asyncio.timeout(10):
        while probe.worst.seconds == 0:  # noqa: ASYNC110 - the condition is another task's work
            await asyncio.sleep(0)
    task.cancel()

    assert round(probe.worst.seconds, 6) == 0.499
