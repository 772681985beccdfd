import asyncio

from ragworks.testing import FakeClock


async def test_sleepers_wake_in_the_order_of_their_time_and_see_it():
    clock, woken = FakeClock(now=100.0), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))
        if seconds == 1.0:
            await sleeper(2.0)

    async with asyncio.TaskGroup() as tasks:
        for seconds in (5.0, 1.0, 4.0):
            tasks.create_task(sleeper(seconds))
        await clock.advance(4.5)
        assert woken == [(1.0, 1.0), (2.0, 3.0), (4.0, 4.0)]
        assert (clock.now(), clock.sleepers) == (104.5, 1)
        await clock.advance(0.5)
    assert woken[-1] == (5.0, 5.0)
