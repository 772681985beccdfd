"""The loop that scales: what it does to a group, what it survives, what it tells."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.control.autoscaler import Autoscaler
from ragworks.control.load_meter import LoadMeter
from ragworks.control.replicas import ReplicaView
from ragworks.control.traffic import Traffic
from ragworks.errors import InvalidSettings
from ragworks.policies.replaying import encoded, replay
from ragworks.policies.scaling import POLICIES, Load, ScaleSpec
from ragworks.testing import FakeClock, settle
from ragworks.types import Health, Life
from scaled import busy

SPEC = ScaleSpec(max_instances=20)


class Group:
    """Replicas that come and go when the test lets them."""

    def __init__(self, size=1):
        self.size = size
        self.asked = []
        self.failing = False
        self.free = asyncio.Event()
        self.free.set()

    async def scale(self, instances):
        self.asked.append(instances)
        if self.failing:
            raise OSError("no process can be started")
        await self.free.wait()
        self.size = instances


class Meter:
    """Measures a number of calls at once, or fails."""

    def __init__(self, calls=0.0):
        self.calls = calls
        self.samples = 0

    def sample(self, now):
        self.samples += 1

    def measured(self, now, instances):
        if isinstance(self.calls, Exception):
            raise self.calls
        return None if self.calls is None else busy(self.calls, instances)


class Records:
    def __init__(self):
        self.all = []

    def __call__(self, action, **told):
        self.all.append({"action": action, **told})

    def actions(self):
        return [one["action"] for one in self.all]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def group():
    return Group()


@pytest.fixture
def meter():
    return Meter()


@pytest.fixture
def records():
    return Records()


@pytest.fixture
async def scaler(group, meter, clock, records):
    async with Autoscaler("generation_service", SPEC, group, meter, clock, records) as scaler:
        yield scaler


async def test_a_service_grows_with_its_load_and_shrinks_after_a_calm(scaler, group, meter, clock):
    meter.calls = 6.0
    await clock.advance(60)
    assert group.size == 12  # 6 + 2.25 x 2.45, in steps of 4 more, and of what waits in the first interval
    meter.calls = 0.5
    await clock.advance(590)
    assert group.size == 12
    await clock.advance(3600)
    assert group.size == 3


async def test_it_looks_every_second_and_decides_every_interval(scaler, meter, clock):
    await clock.advance(30)
    assert meter.samples == 30
    assert scaler.last is not None
    first = scaler.last
    await clock.advance(29)
    assert scaler.last is first


async def test_each_action_is_recorded_and_replays(scaler, meter, clock, records):
    meter.calls = 6.0
    await clock.advance(90)
    assert set(records.actions()) == {"scale_up"}
    for one in records.all:
        written = json.loads(json.dumps({name: encoded(value) for name, value in one["inputs"].items()}))
        assert replay(one["policy"], written) == encoded(one["decision"])
        assert "calls at once" in one["reason"]


async def test_replicas_that_still_start_are_asked_for_once(scaler, group, meter, clock):
    group.free.clear()
    meter.calls = 3.0
    await clock.advance(300)
    assert group.asked == [5]
    assert scaler.last.seen.instances == 7
    assert (scaler.target, group.size) == (7, 1)
    group.free.set()
    await settle()
    # What was wanted meanwhile comes next, and only the latest of it.
    assert (group.asked, group.size, scaler.target) == ([5, 7], 7, 7)


async def test_a_meter_that_fails_scales_nothing_is_told_once_and_recovers(scaler, group, meter, clock, records):
    meter.calls = ValueError("the source is gone")
    await clock.advance(3600)
    assert (group.asked, scaler.alive) == ([], True)
    assert records.actions() == ["load_unknown"]
    assert "the source is gone" in records.all[0]["reason"]
    meter.calls = 6.0
    await clock.advance(60)
    assert group.size > 1


async def test_no_data_scales_nothing(scaler, group, meter, clock):
    meter.calls = None
    await clock.advance(3600)
    assert group.asked == []
    assert scaler.last.reason.startswith("no data")


async def test_a_group_that_cannot_scale_is_told_and_tried_again(scaler, group, meter, clock, records):
    group.failing, meter.calls = True, 6.0
    await clock.advance(90)
    assert group.size == 1
    assert len(group.asked) == 3
    assert "no process can be started" in next(one for one in records.all if one["action"] == "scale_failed")["reason"]
    group.failing = False
    await clock.advance(90)
    assert group.size > 1


async def test_an_error_of_the_policy_itself_does_not_end_the_loop(scaler, group, meter, clock, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("ragworks.control.autoscaler.decide", broken)
        await clock.advance(120)
    assert scaler.alive
    meter.calls = 6.0
    await clock.advance(60)
    assert group.size > 1


async def test_leaving_waits_for_no_replica_that_hangs(group, meter, clock):
    group.free.clear()
    async with Autoscaler("generation_service", SPEC, group, Meter(9.0), clock) as scaler:
        await clock.advance(60)
        assert group.asked
    assert not scaler.alive
    assert clock.sleepers == 0


async def test_what_was_left_undone_is_not_taken_for_done_by_who_enters_again(group, meter, clock):
    group.free.clear()
    meter.calls = 3.0
    scaler = Autoscaler("generation_service", SPEC, group, meter, clock)
    async with scaler:
        await clock.advance(60)
    assert group.size == 1
    group.free.set()
    async with scaler:
        await clock.advance(60)
    assert group.size > 1


async def test_settings_that_contradict_themselves_are_refused_before_anything_starts(group, meter, clock):
    with pytest.raises(InvalidSettings, match="min_instances"):
        Autoscaler("generation_service", replace(SPEC, min_instances=30), group, meter, clock)


def view(active, *, slots=4, life=Life.READY, cpu=50.0, replica="a"):
    return ReplicaView(replica, life, Health.HEALTHY, slots, active, None, cpu, None, 0.0, 1.0)


class JumpingClock(FakeClock):
    """As of a machine that slept, or whose clock was set."""

    def __init__(self):
        super().__init__()
        self.jumped = 0.0

    def monotonic(self):
        return super().monotonic() + self.jumped


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("hours", [(-5,), (5,), (-1, 2, -3, 4), (1000, -1000)])
async def test_a_clock_that_jumps_neither_stops_the_loop_nor_makes_it_run_away(group, meter, records, policy, hours):
    clock = JumpingClock()
    spec = ScaleSpec(policy, max_instances=20, cooldown=60.0)
    async with Autoscaler("generation_service", spec, group, meter, clock, records) as scaler:
        group.size, meter.calls = 6, 2.0
        await clock.advance(100)
        settled = group.size
        for jump in hours:
            clock.jumped += jump * 3600.0
            before = scaler.last
            await clock.advance(31)
            assert scaler.last is not before
            await clock.advance(60)
        assert group.size == settled
        meter.calls = 15.0
        await clock.advance(600)
        assert group.size > settled
    assert len(records.all) < 20


class Service:
    """What a LoadMeter looks at."""

    def __init__(self):
        self.views, self.traffic, self.waiting = [view(0)], {}, 0
        self.meter = LoadMeter(
            lambda now: self.views, lambda name: self.traffic.get(name, Traffic()), lambda: self.waiting
        )


def test_calls_at_once_are_averaged_over_the_interval_by_time():
    service = Service()
    service.meter.sample(0.0)
    service.views = [view(4), view(2, replica="b")]
    service.waiting = 3
    service.meter.sample(10.0)
    service.views, service.waiting = [view(1)], 0
    found = service.meter.measured(30.0, instances=2)
    assert found.concurrency == pytest.approx((9 * 10 + 1 * 20) / 30)
    assert (found.instances, found.ready, found.slots, found.queue_size) == (2, 1, 4, 0)


def test_calls_that_ended_tell_work_errors_and_arrivals():
    """Eight slots busy for 20 s and 16 calls ended: 10 s each in a slot, however long they waited inside a replica."""
    service = Service()
    service.meter.measured(0.0, 1)
    service.views = [view(10), view(6, replica="b")]
    service.traffic = {"a": Traffic(10, 1, 180.0), "b": Traffic(6, 0, 90.0)}
    found = service.meter.measured(20.0, 2)
    assert (found.completed, found.arrived) == (16, 32)
    assert found.service_s == pytest.approx(8 * 20 / 16)
    assert found.response_s == pytest.approx(270 / 15)
    assert found.error_percent == pytest.approx(100 / 16)
    again = service.meter.measured(40.0, 2)
    assert (again.completed, again.arrived, again.service_s, again.error_percent) == (0, 0, None, None)


def test_what_is_not_known_is_not_zero():
    service = Service()
    first = service.meter.measured(5.0, 1)
    assert (first.concurrency, first.arrived, first.memory_percent) == (None, None, None)
    service.views = [view(1, cpu=10.0), view(1, cpu=None, replica="b")]
    assert service.meter.measured(6.0, 2).cpu_percent is None


def test_a_replica_that_drains_serves_no_more_but_what_it_works_on_counts():
    service = Service()
    service.meter.sample(0.0)
    service.views = [view(2), view(3, life=Life.DRAINING, replica="b")]
    found = service.meter.measured(10.0, 1)
    assert (found.ready, found.concurrency) == (1, 5.0)


def test_without_any_replica_slots_are_those_that_were_seen_last():
    service = Service()
    service.meter.sample(0.0)
    service.views, service.waiting = [], 7
    found = service.meter.measured(10.0, 1)
    assert found == Load(
        1, 0, 4, concurrency=7.0, queue_size=7, arrived=None, completed=0, service_s=None
    )  # fmt: skip


async def test_after_a_pin_only_the_last_interval_counts(scaler, group, clock):
    """The meter went on adding up while nobody asked it, and the first decision was about the mean of hours."""
    service = Service()
    scaler._meter = service.meter
    scaler.pin()
    service.views = [view(4)]
    await clock.advance(3 * 3600)
    service.views = [view(0)]
    await clock.advance(60)
    scaler.unpin()
    await clock.advance(30)
    assert scaler.last.seen.concurrency == 0.0


def test_calls_of_before_the_first_look_are_not_of_its_interval():
    """What a service did before anyone watched took no time that anyone saw: its calls seemed to take none."""
    service = Service()
    service.traffic = {"a": Traffic(1000, 0, 1000.0)}
    service.meter.sample(0.0)
    service.views = [view(1)]
    service.meter.sample(15.0)
    service.traffic = {"a": Traffic(1030, 0, 1030.0)}
    found = service.meter.measured(30.0, 1)
    assert (found.completed, found.service_s) == (30, pytest.approx(1.0))


def test_a_replica_whose_calls_are_forgotten_before_it_is_gone_takes_back_none():
    service = Service()
    service.views = [view(0), view(0, replica="b")]
    service.traffic = {"a": Traffic(10, 10, 0.0), "b": Traffic(2, 0, 2.0)}
    service.meter.measured(0.0, 2)
    service.traffic = {"b": Traffic(6, 0, 6.0)}
    found = service.meter.measured(10.0, 2)
    assert (found.completed, found.error_percent, found.response_s) == (4, 0.0, 1.0)


looks = st.tuples(
    st.floats(-1e5, 1e5),
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 50)), max_size=3, unique_by=lambda o: o[0]
    ),
    st.integers(0, 50),
    st.booleans(),
)


@given(st.lists(looks, min_size=1, max_size=30))
def test_whatever_the_clock_and_the_replicas_do_what_is_measured_is_possible(seen):
    service, now = Service(), 0.0
    for step, replicas, waiting, asked in seen:
        now += step
        service.waiting = waiting
        service.views = [view(active, replica=name) for name, active, _ in replicas]
        service.traffic = {name: Traffic(calls, calls // 2, float(calls)) for name, _, calls in replicas}
        if not asked:
            service.meter.sample(now)
            continue
        found = service.meter.measured(now, 2)
        assert found.concurrency is None or 0 <= found.concurrency <= 27 + 50 + 1e-6
        assert found.completed >= 0
        assert found.arrived is None or found.arrived >= 0
        assert found.error_percent is None or 0 <= found.error_percent <= 100
        assert found.service_s is None or found.service_s >= 0
