"""How the calls of demo tools planned out."""

from collections import Counter

import pytest

from gateway.demo.tools import BILLING, FILES, GITHUB, WAREHOUSE, DemoTool, Outcome, Outcomes

TOOL = DemoTool(name="refund", description="", median_ms=100, failures={Outcome.TOOL_ERROR: 0.2, Outcome.HANG: 0.1})


def test_the_same_seed_draws_the_same_turns() -> None:
    first, second = Outcomes([TOOL], 7), Outcomes([TOOL], 7)

    assert [first.draw("refund") for _ in range(50)] == [second.draw("refund") for _ in range(50)]


def test_another_seed_draws_other_turns() -> None:
    first, second = Outcomes([TOOL], 7), Outcomes([TOOL], 8)

    assert [first.draw("refund") for _ in range(50)] != [second.draw("refund") for _ in range(50)]


def test_a_tools_turns_do_not_depend_on_calls_of_other_tools() -> None:
    other = DemoTool(name="other", description="")
    alone, among = Outcomes([TOOL], 7), Outcomes([other, TOOL], 7)

    planned = []
    for _ in range(20):
        among.draw("other")
        planned.append(among.draw("refund"))

    assert planned == [alone.draw("refund") for _ in range(20)]


def test_failures_have_the_share_that_the_tool_says() -> None:
    outcomes = Outcomes([TOOL], 7)

    counts = Counter(outcomes.draw("refund").outcome for _ in range(10_000))

    assert counts[Outcome.TOOL_ERROR] == pytest.approx(2000, rel=0.1)
    assert counts[Outcome.HANG] == pytest.approx(1000, rel=0.1)
    assert counts[Outcome.OK] == 10_000 - counts[Outcome.TOOL_ERROR] - counts[Outcome.HANG]


def test_half_of_the_calls_take_less_than_the_median_and_all_take_it_without_a_spread() -> None:
    outcomes = Outcomes([TOOL, DemoTool(name="exact", description="", median_ms=100, spread=0)], 7)

    slow = sum(outcomes.draw("refund").seconds > 0.1 for _ in range(10_000))

    assert slow == pytest.approx(5000, rel=0.05)
    assert {outcomes.draw("exact").seconds for _ in range(10)} == {0.1}


def test_no_tool_of_the_demo_fails_more_often_than_always() -> None:
    for tool in (*GITHUB, *BILLING, *FILES, *WAREHOUSE):
        assert sum(tool.failures.values()) <= 1
