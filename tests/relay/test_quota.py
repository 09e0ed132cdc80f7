"""How calls are counted against a plan, by a relay alone and beside what the ledger says: times are arguments."""

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from gateway.months import month_of
from gateway.quota_snapshot import QuotaSnapshot
from gateway.relay.quota import FRESH_NS, GONE_NS, Behind, Fail, Limit, Quota, QuotaExceeded
from gateway.relay.quota_refusal import reason, refusal_data, retry_after_s

NOW = int(datetime(2026, 11, 23, 14, 10, tzinfo=UTC).timestamp()) * 10**9
MONTH = month_of(NOW)
DECEMBER = MONTH.end_ns
SECOND = 10**9
OWN = "relay-0"


def report(used: int = 0, position: int = 0, *, at: int = NOW, **others: int) -> QuotaSnapshot:
    return QuotaSnapshot(
        written_ns=at,
        month_start_ns=month_of(at).start_ns,
        used={"team": used} if used else {},
        positions={OWN: position, **others},
    )


class Relay:
    """A quota, the journal's offset behind the last record, and what was decided without knowing."""

    def __init__(self, limit: int | None = 3, fail: Fail = "open") -> None:
        self.unsure: Counter[tuple[str, str]] = Counter()
        self.offset = 0
        self.quota = Quota(OWN, self.note)
        self.allow(limit, fail)

    def note(self, workspace_id: str, decision: str) -> None:
        self.unsure[workspace_id, decision] += 1

    def allow(self, limit: int | None, fail: Fail = "open") -> None:
        self.quota.configure({"team": Limit("ours", limit)} if limit is not None else {}, fail)

    def begin(self, at: int = NOW) -> bool:
        """Whether a call may begin."""
        return self.quota.take("team", at) is None

    def end(self, at: int = NOW) -> None:
        self.offset += 100
        self.quota.end("team", at, self.offset)

    def serve(self, calls: int, at: int = NOW) -> int:
        """Calls one after the other: how many were served."""
        served = 0
        for _ in range(calls):
            if self.begin(at):
                self.end(at)
                served += 1
        return served


def informed(limit: int | None = 3, used: int = 0, fail: Fail = "open", behind: list[Behind] | None = None) -> Relay:
    relay = Relay(limit, fail)
    relay.quota.begin(report(used), behind or [], NOW)
    return relay


def test_calls_are_served_up_to_the_limit_and_no_further() -> None:
    assert informed(limit=3).serve(10) == 3
    assert informed(limit=3, used=2).serve(10) == 1
    assert informed(limit=3, used=5).serve(10) == 0
    assert informed(limit=0).serve(10) == 0
    assert informed(limit=None).serve(10) == 10


def test_what_is_in_flight_counts() -> None:
    relay = informed(limit=3)
    assert [relay.begin() for _ in range(5)] == [True, True, True, False, False]
    relay.end()
    assert not relay.begin(), "a call that has ended is still used"


def test_a_call_that_was_none_uses_nothing() -> None:
    relay = informed(limit=1)
    assert relay.begin()
    relay.quota.give_back("team", NOW)
    assert relay.serve(5) == 1


def test_each_workspace_has_its_own_count() -> None:
    relay = informed(limit=1)
    relay.quota.configure({"team": Limit("ours", 1), "other": Limit("ours", 1)}, "open")
    assert relay.serve(2) == 1
    assert relay.quota.take("other", NOW) is None
    assert relay.quota.take("other", NOW) is not None
    assert relay.quota.take("without a limit", NOW) is None


def test_calls_that_the_ledger_has_come_past_are_counted_by_it_alone() -> None:
    relay = informed(limit=5)
    assert relay.serve(3) == 3
    relay.quota.learn(report(used=2, position=200), NOW)
    assert relay.serve(10) == 2
    relay.quota.learn(report(used=5, position=500), NOW)
    assert relay.serve(1) == 0
    relay.allow(6)
    assert relay.serve(10) == 1


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_ledger_has_come_past_the_limit_is_served_exactly(seed: int) -> None:
    """Calls that overlap, others that refused and failed at once, and reports of any age, in any order."""
    chance = random.Random(seed)  # noqa: S311 - no secrets
    limit = 40
    relay = informed(limit)
    running = served = reported = 0
    for _ in range(1000):
        match chance.randrange(3):
            case 0:
                allowed = relay.begin()
                assert allowed == (served < limit)
                running += allowed
                served += allowed
            case 1 if running:
                relay.end()
                running -= 1
            case _:
                reported = chance.randint(reported, relay.offset // 100)
                relay.quota.learn(report(used=reported, position=reported * 100), NOW)
    assert served == limit


def test_calls_that_another_life_recorded_count_until_the_ledger_has_come_past_them() -> None:
    behind = [Behind("before", 100, "team", NOW - SECOND), Behind("before", 250, "team", NOW - SECOND)]
    relay = informed(limit=4, used=1, behind=behind)
    assert relay.serve(10) == 1
    relay.quota.learn(report(used=2, before=100), NOW)
    assert relay.serve(10) == 0
    relay.quota.learn(report(used=4, position=100, before=300), NOW)
    assert relay.serve(10) == 0
    relay.allow(5)
    assert relay.serve(10) == 1


def test_calls_of_the_month_before_count_for_nothing() -> None:
    assert informed(limit=1, behind=[Behind("before", 100, "team", MONTH.start_ns - 1)]).serve(5) == 1


def test_a_writer_that_is_gone_with_what_the_ledger_had_not_read_is_forgotten() -> None:
    relay = informed(limit=1, behind=[Behind("before", 100, "team", NOW)])
    relay.quota.learn(report(), NOW + GONE_NS - 1)
    assert relay.serve(1, NOW + GONE_NS) == 0
    relay.quota.learn(report(), NOW + GONE_NS)
    assert relay.serve(1, NOW + GONE_NS) == 1


def test_a_new_month_begins_at_0() -> None:
    relay = informed(limit=3, used=2)
    last = DECEMBER - 1
    relay.quota.learn(report(used=2, at=last), last)
    assert relay.serve(5, last) == 1
    assert relay.serve(5, DECEMBER) == 3


def test_a_call_counts_for_the_month_in_which_it_began() -> None:
    relay = informed(limit=1)
    last = DECEMBER - 1
    relay.quota.learn(report(at=last), last)
    assert relay.begin(last)
    assert relay.begin(DECEMBER)
    relay.end(last)
    relay.end(DECEMBER)
    assert not relay.begin(DECEMBER)
    relay.quota.learn(report(used=0, position=100, at=DECEMBER), DECEMBER)
    assert not relay.begin(DECEMBER)
    relay.quota.learn(report(used=1, position=200, at=DECEMBER), DECEMBER)
    assert not relay.begin(DECEMBER)


def test_a_report_of_the_month_before_says_that_nothing_is_used_in_this_one() -> None:
    relay = informed(limit=3)
    assert relay.serve(1, DECEMBER) == 1
    relay.quota.learn(report(used=3, at=DECEMBER - 1), DECEMBER - 1)
    assert relay.serve(5, DECEMBER) == 2


def test_a_report_of_a_new_month_begins_it() -> None:
    relay = informed(limit=3, used=3)
    relay.quota.learn(report(used=1, at=DECEMBER), DECEMBER)
    assert relay.serve(5, DECEMBER) == 2


def test_a_clock_that_is_set_back_over_the_months_begin_leaves_no_call_in_flight() -> None:
    relay = informed(limit=1)
    relay.quota.learn(report(at=DECEMBER), DECEMBER)
    assert relay.begin(DECEMBER - 1)
    relay.end(DECEMBER - 1)
    assert relay.serve(5, DECEMBER) == 1


def test_a_plan_that_changes_holds_for_the_next_call() -> None:
    relay = informed(limit=3)
    assert relay.serve(5) == 3
    relay.allow(5)
    assert relay.serve(5) == 2
    relay.allow(None)
    assert relay.serve(5) == 5
    relay.allow(11)
    assert relay.serve(5) == 1, "calls are counted without a limit too"


def test_without_a_fresh_report_open_lets_calls_through_and_says_so() -> None:
    relay = Relay(limit=1)
    assert relay.serve(5) == 5
    assert relay.unsure == {("team", "allowed"): 5}

    relay = informed(limit=1)
    assert relay.serve(5, NOW + FRESH_NS) == 1
    assert relay.serve(5, NOW + FRESH_NS + 1) == 5
    assert relay.unsure == {("team", "allowed"): 5}


def test_without_a_fresh_report_closed_refuses_and_says_so() -> None:
    relay = informed(limit=5, fail="closed")
    assert relay.serve(1) == 1
    denied = relay.quota.take("team", NOW + FRESH_NS + 1)
    assert denied == QuotaExceeded(Limit("ours", 5), None, MONTH)
    assert relay.unsure == {("team", "refused"): 1}
    relay.quota.learn(report(), NOW + FRESH_NS)
    assert relay.serve(10, NOW + FRESH_NS + 1) == 4, "those that were served meanwhile count"


def test_a_workspace_without_a_limit_needs_no_report() -> None:
    relay = Relay(limit=None, fail="closed")
    assert relay.serve(5) == 5
    assert not relay.unsure


def test_a_report_from_the_future_is_no_fresh_one() -> None:
    relay = Relay(limit=1, fail="closed")
    relay.quota.learn(report(at=NOW + 3600 * SECOND), NOW + 3600 * SECOND)
    assert relay.serve(1) == 0


def test_who_begins_to_enforce_spares_calls_until_the_first_report_can_be_there() -> None:
    relay = Relay(limit=2, fail="closed")
    relay.quota.spare(NOW + SECOND)
    assert relay.serve(3, NOW) == 3
    assert relay.unsure == {("team", "allowed"): 3}
    assert relay.serve(1, NOW + SECOND) == 0
    relay.quota.begin(report(), [], NOW)
    assert relay.serve(1, NOW) == 0, "what was let through is used"


def test_a_refusal_says_which_plan_how_much_and_until_when() -> None:
    relay = informed(limit=5000, used=5000)
    denied = relay.quota.take("team", NOW)
    assert denied is not None
    assert reason(denied) == (
        "the plan 'ours' allows 5,000 calls a month, and they are used up: calls are served again from "
        "2026-12-01T00:00:00Z on, or as soon as the gateway's operator gives the workspace a larger plan"
    )
    assert refusal_data(denied) == {
        "error_type": "quota_exceeded",
        "plan": "ours",
        "limit": 5000,
        "used": 5000,
        "period": "2026-11",
        "period_end": "2026-12-01T00:00:00Z",
    }
    assert retry_after_s(denied, NOW) == (DECEMBER - NOW) // SECOND
    assert retry_after_s(denied, DECEMBER - 1) == 1


def test_a_refusal_without_knowledge_says_so_and_that_it_passes() -> None:
    denied = Relay(fail="closed").quota.take("team", NOW)
    assert denied is not None
    assert "is not known now" in reason(denied)
    assert "usage.fail: closed" in reason(denied)
    assert refusal_data(denied)["used"] is None
    assert retry_after_s(denied, NOW) == 10
