"""How the calls of demo tools turn out."""

from collections import Counter

import pytest

from gateway.demo.tools import BILLING, FILES, GITHUB, WAREHOUSE, Dice, Fate, Tool

TOOL = Tool(name="refund", description="", median_ms=100, failures={Fate.TOOL_ERROR: 0.2, Fate.HANG: 0.1})


def test_the_same_seed_draws_the_same_turns() -> None:
    first, second = Dice([TOOL], 7), Dice([TOOL], 7)

    assert [first.draw("refund") for _ in range(50)] == [second.draw("refund") for _ in range(50)]


def test_another_seed_draws_other_turns() -> None:
    first, second = Dice([TOOL], 7), Dice([TOOL], 8)

    assert [first.draw("refund") for _ in range(50)] != [second.draw("refund") for _ in range(50)]


def test_a_tools_turns_do_not_depend_on_calls_of_other_tools() -> None:
    other = Tool(name="other", description="")
    alone, among = Dice([TOOL], 7), Dice([other, TOOL], 7)

    turns = []
    for _ in range(20):
        among.draw("other")
        turns.append(among.draw("refund"))

    assert turns == [alone.draw("refund") for _ in range(20)]


def test_failures_have_the_share_that_the_tool_says() -> None:
    dice = Dice([TOOL], 7)

    fates = Counter(dice.draw("refund").fate for _ in range(10_000))

    assert fates[Fate.TOOL_ERROR] == pytest.approx(2000, rel=0.1)
    assert fates[Fate.HANG] == pytest.approx(1000, rel=0.1)
    assert fates[Fate.OK] == 10_000 - fates[Fate.TOOL_ERROR] - fates[Fate.HANG]


def test_half_of_the_calls_take_less_than_the_median_and_all_take_it_without_a_spread() -> None:
    dice = Dice([TOOL, Tool(name="exact", description="", median_ms=100, spread=0)], 7)

    slow = sum(dice.draw("refund").seconds > 0.1 for _ in range(10_000))

    assert slow == pytest.approx(5000, rel=0.05)
    assert {dice.draw("exact").seconds for _ in range(10)} == {0.1}


def test_no_tool_of_the_demo_fails_more_often_than_always() -> None:
    for tool in (*GITHUB, *BILLING, *FILES, *WAREHOUSE):
        assert sum(tool.failures.values()) <= 1
