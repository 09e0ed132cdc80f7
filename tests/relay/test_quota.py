"""How calls are counted against a plan: by one relay alone, beside the ledger, and by several relays together."""

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from gateway.months import month_of
from gateway.quota_snapshot import QuotaSnapshot
from gateway.relay.quota import FRESH_NS, Limit, Quota, QuotaExceeded, UsageCounter

NOW = int(datetime(2026, 11, 23, 14, 10, tzinfo=UTC).timestamp()) * 10**9
MONTH = month_of(NOW)
DECEMBER = MONTH.end_ns
SECOND = 10**9
OWN = "relay-0"


def snapshot(used: int = 0, position: int = 0, *, at: int = NOW, writer: str = OWN) -> QuotaSnapshot:
    return QuotaSnapshot(
        written_ns=at,
        month_start_ns=month_of(at).start_ns,
        used={"team": used} if used else {},
        positions={writer: position},
    )


class Relay:
    """A quota, the journal's offset behind the last record, and the decisions without a fresh snapshot."""

    def __init__(self, limit: int | None = 3, *, closed: bool = False, tolerant_until_ns: int = 0) -> None:
        self.unknown: Counter[tuple[str, str]] = Counter()
        self.offset = 0
        self.counter = UsageCounter(OWN)
        self.allow(limit, closed=closed, tolerant_until_ns=tolerant_until_ns)

    def allow(self, limit: int | None, *, closed: bool = False, tolerant_until_ns: int = 0, other: int = 0) -> None:
        """Take another configuration."""
        self.quota = Quota(
            counter=self.counter,
            limits={"team": Limit("ours", limit), "other": Limit("ours", other)} if limit is not None else {},
            fail_closed=closed,
            count_unknown=lambda workspace_id, decision: self.unknown.update([(workspace_id, decision)]),
            tolerant_until_ns=tolerant_until_ns,
        )

    def begin(self, at: int = NOW) -> bool:
        """Whether a call may begin."""
        return self.quota.admit("team", at) is None

    def end(self, at: int = NOW) -> None:
        self.offset += 100
        self.counter.end("team", at, self.offset)

    def serve(self, calls: int, at: int = NOW) -> int:
        """Make calls one after the other: how many were served."""
        served = 0
        for _ in range(calls):
            if self.begin(at):
                self.end(at)
                served += 1
        return served


def informed(limit: int | None = 3, used: int = 0, *, closed: bool = False) -> Relay:
    relay = Relay(limit, closed=closed)
    relay.counter.update(snapshot(used), NOW)
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
    relay.counter.discard("team", NOW)
    assert relay.serve(5) == 1


def test_each_workspace_has_its_own_count() -> None:
    relay = informed(limit=1)
    relay.allow(1, other=1)
    assert relay.serve(2) == 1
    assert relay.quota.admit("other", NOW) is None
    assert relay.quota.admit("other", NOW) is not None
    assert relay.quota.admit("without a limit", NOW) is None


def test_calls_that_the_ledger_has_come_past_are_counted_by_it_alone() -> None:
    relay = informed(limit=5)
    assert relay.serve(3) == 3
    relay.counter.update(snapshot(used=2, position=200), NOW)
    assert relay.serve(10) == 2
    relay.counter.update(snapshot(used=5, position=500), NOW)
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
                relay.counter.update(snapshot(used=reported, position=reported * 100), NOW)
    assert served == limit


def test_a_relay_does_not_know_calls_of_others_that_no_snapshot_has() -> None:
    relay = informed(limit=4, used=1)
    relay.counter.update(snapshot(used=3, position=900, writer="another"), NOW)
    assert relay.serve(10) == 1


# -- several relays on one ledger


class Ledger:
    """What several relays share: it counts a call when told to, and every snapshot is one of its states."""

    def __init__(self, relays: list[Relay], counted: int) -> None:
        self.relays = relays
        self.counted = counted
        """Calls that it had before."""
        self.positions = [0] * len(relays)

    def count(self, number: int, calls: int) -> None:
        """Take in the next calls of a relay's journal."""
        self.positions[number] = min(self.positions[number] + 100 * calls, self.relays[number].offset)

    @property
    def total(self) -> int:
        return self.counted + sum(self.positions) // 100

    def tell(self, number: int) -> int:
        """Give a relay a snapshot: what it says is used."""
        self.relays[number].counter.update(snapshot(self.total, self.positions[number]), NOW)
        return self.total


@pytest.mark.parametrize("relays", [1, 2, 5])
@pytest.mark.parametrize("seed", range(20))
def test_relays_exceed_a_limit_by_no_more_than_their_oldest_snapshot_leaves_each_of_the_others(
    seed: int, relays: int
) -> None:
    """The bound of docs/ledger.md, for calls, counting and snapshots in any order: (relays - 1) x what is left."""
    chance = random.Random(seed)  # noqa: S311 - no secrets
    limit = 60
    ledger = Ledger([Relay(limit) for _ in range(relays)], counted=chance.randrange(limit))
    known = [ledger.tell(number) for number in range(relays)]
    at_last_call = dict.fromkeys(range(relays), limit)
    served = ledger.counted
    for _ in range(3000):
        number = chance.randrange(relays)
        match chance.randrange(8):
            case 0:
                ledger.count(number, chance.randrange(5))
            case 1:
                known[number] = ledger.tell(number)
            case _ if ledger.relays[number].serve(1):
                served += 1
                at_last_call[number] = known[number]
            case _:
                pass
    left = limit - min(at_last_call.values())
    assert limit <= served <= limit + (relays - 1) * left


@pytest.mark.parametrize("relays", [1, 2, 5])
def test_the_bound_is_reached_when_no_snapshot_comes_between(relays: int) -> None:
    ledger = Ledger([Relay(limit=10) for _ in range(relays)], counted=7)
    for number in range(relays):
        ledger.tell(number)
    served = sum(relay.serve(50) for relay in ledger.relays)
    assert 7 + served == 10 + (relays - 1) * 3


def test_once_a_snapshot_has_reached_the_limit_no_relay_serves_another_call() -> None:
    ledger = Ledger([Relay(limit=10), Relay(limit=10)], counted=0)
    for number in range(2):
        ledger.tell(number)
    assert ledger.relays[0].serve(10) == 10
    ledger.count(0, 10)
    ledger.tell(1)
    assert [relay.serve(5) for relay in ledger.relays] == [0, 0]


def test_calls_of_an_earlier_life_of_the_relay_count_once_a_snapshot_has_them() -> None:
    """A relay that was killed is to the next one what another relay is: it may exceed by what the ledger lacks."""
    killed, new = Relay(limit=10), Relay(limit=10)
    ledger = Ledger([killed, new], counted=0)
    ledger.tell(0)
    assert killed.serve(4) == 4
    ledger.count(0, 3)
    ledger.tell(1)
    assert new.serve(20) == 7
    ledger.count(0, 1)
    ledger.count(1, 7)
    ledger.tell(1)
    assert new.serve(20) == 0


# -- months


def test_a_new_month_begins_at_0() -> None:
    relay = informed(limit=3, used=2)
    last = DECEMBER - 1
    relay.counter.update(snapshot(used=2, at=last), last)
    assert relay.serve(5, last) == 1
    assert relay.serve(5, DECEMBER) == 3


def test_a_call_counts_for_the_month_in_which_it_began() -> None:
    relay = informed(limit=1)
    last = DECEMBER - 1
    relay.counter.update(snapshot(at=last), last)
    assert relay.begin(last)
    assert relay.begin(DECEMBER)
    relay.end(last)
    relay.end(DECEMBER)
    assert not relay.begin(DECEMBER)
    relay.counter.update(snapshot(used=0, position=100, at=DECEMBER), DECEMBER)
    assert not relay.begin(DECEMBER)
    relay.counter.update(snapshot(used=1, position=200, at=DECEMBER), DECEMBER)
    assert not relay.begin(DECEMBER)


def test_a_report_of_the_month_before_says_that_nothing_is_used_in_this_one() -> None:
    relay = informed(limit=3)
    assert relay.serve(1, DECEMBER) == 1
    relay.counter.update(snapshot(used=3, at=DECEMBER - 1), DECEMBER - 1)
    assert relay.serve(5, DECEMBER) == 2


def test_a_report_of_a_new_month_begins_it() -> None:
    relay = informed(limit=3, used=3)
    relay.counter.update(snapshot(used=1, at=DECEMBER), DECEMBER)
    assert relay.serve(5, DECEMBER) == 2


def test_a_clock_that_is_set_back_over_the_months_begin_leaves_no_call_in_flight() -> None:
    relay = informed(limit=1)
    relay.counter.update(snapshot(at=DECEMBER), DECEMBER)
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
    assert relay.unknown == {("team", "allowed"): 5}

    relay = informed(limit=1)
    assert relay.serve(5, NOW + FRESH_NS) == 1
    assert relay.serve(5, NOW + FRESH_NS + 1) == 5
    assert relay.unknown == {("team", "allowed"): 5}


def test_without_a_fresh_report_closed_refuses_and_says_so() -> None:
    relay = informed(limit=5, closed=True)
    assert relay.serve(1) == 1
    exceeded = relay.quota.admit("team", NOW + FRESH_NS + 1)
    assert exceeded == QuotaExceeded(Limit("ours", 5), None, MONTH)
    assert relay.unknown == {("team", "refused"): 1}
    relay.counter.update(snapshot(), NOW + FRESH_NS)
    assert relay.serve(10, NOW + FRESH_NS + 1) == 4, "those that were served meanwhile count"


def test_a_workspace_without_a_limit_needs_no_snapshot() -> None:
    relay = Relay(limit=None, closed=True)
    assert relay.serve(5) == 5
    assert not relay.unknown


def test_a_report_from_the_future_is_no_fresh_one() -> None:
    relay = Relay(limit=1, closed=True)
    relay.counter.update(snapshot(at=NOW + 3600 * SECOND), NOW + 3600 * SECOND)
    assert relay.serve(1) == 0


def test_while_the_first_snapshot_is_on_its_way_calls_are_let_through_for_a_time() -> None:
    relay = Relay(limit=2, closed=True, tolerant_until_ns=NOW + SECOND)
    assert relay.serve(3, NOW) == 3
    assert relay.unknown == {("team", "allowed"): 3}
    assert relay.serve(1, NOW + SECOND) == 0
    relay.counter.update(snapshot(), NOW)
    assert relay.serve(1, NOW) == 0, "what was let through is used"


def test_a_refusal_says_which_plan_how_much_and_until_when() -> None:
    relay = informed(limit=5000, used=5000)
    exceeded = relay.quota.admit("team", NOW)
    assert exceeded is not None
    assert exceeded.message == (
        "the plan 'ours' allows 5,000 calls a month, and all of them are used. Calls are served again from "
        "2026-12-01T00:00:00Z, or as soon as the gateway's operator gives the workspace a larger plan"
    )
    assert exceeded.data == {
        "error_type": "quota_exceeded",
        "plan": "ours",
        "limit": 5000,
        "used": 5000,
        "period": "2026-11",
        "period_end": "2026-12-01T00:00:00Z",
    }
    assert exceeded.retry_after_s(NOW) == (DECEMBER - NOW) // SECOND
    assert exceeded.retry_after_s(DECEMBER - 1) == 1


def test_a_refusal_without_knowledge_says_so_and_that_it_passes() -> None:
    exceeded = Relay(closed=True).quota.admit("team", NOW)
    assert exceeded is not None
    assert "it is not known how much" in exceeded.message
    assert "usage.fail: closed" in exceeded.message
    assert exceeded.data["used"] is None
    assert exceeded.retry_after_s(NOW) == 10
