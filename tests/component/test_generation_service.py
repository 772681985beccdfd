import pytest

from ragworks.errors import ModelMissing, NotReady
from ragworks.services.generation_service import GenerationService
from ragworks.testing import FakeClock, ScriptedGenerator, a_hit
from ragworks.types import Draft, Health

HITS = [a_hit("The sky is blue.")]


async def started(generator: ScriptedGenerator) -> GenerationService:
    service = GenerationService(generator, FakeClock())
    await service.initialize()
    return service


async def test_pieces_pass_through_in_order_and_the_draft_comes_last():
    service = await started(ScriptedGenerator(["The sky ", "is blue. [1]"]))
    pieces = [piece async for piece in service.generate("colour?", (), HITS)]
    assert pieces[:-1] == ["The sky ", "is blue. [1]"]
    assert isinstance(pieces[-1], Draft)
    assert (service.name, service.stats()["answers"], service.stats()["active"]) == ("scripted", 1, 0)


async def test_abstentions_and_removed_citations_are_counted():
    service = await started(ScriptedGenerator(["No."], (), abstained=True))
    assert [piece async for piece in service.generate("q", (), HITS)]
    service.note_cited(1, 2)
    assert (service.stats()["abstentions"], service.stats()["removed_citations"]) == (1, 2)


async def test_a_caller_that_leaves_early_stops_the_generator():
    generator = ScriptedGenerator(["one", "two"])
    service = await started(generator)
    stream = service.generate("q", (), HITS)
    assert await anext(stream) == "one"
    await stream.aclose()
    assert generator.closed
    assert (service.stats()["active"], service.stats()["errors"], service.stats()["answers"]) == (0, 0, 0)


async def test_a_failing_generator_raises_and_health_names_it_until_it_answers_again():
    generator = ScriptedGenerator(error=RuntimeError("no tokens left"))
    service = await started(generator)
    states = []
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no tokens left"):
            assert [piece async for piece in service.generate("q", (), HITS)]
        states.append((await service.check_health()).status)
    assert states == [Health.DEGRADED, Health.DEGRADED, Health.UNHEALTHY]
    assert (await service.check_health()).details["reason"] == "the last 3 answers failed: no tokens left"
    generator.error = None
    assert [piece async for piece in service.generate("q", (), HITS)]
    health = await service.check_health()
    assert (health.status, health.error_count) == (Health.HEALTHY, 3)


async def test_a_stopped_service_refuses_and_says_so():
    service = await started(ScriptedGenerator())
    await service.shutdown()
    with pytest.raises(NotReady):
        await anext(service.generate("q", (), HITS))
    assert (await service.check_health()).status is Health.UNHEALTHY


async def test_what_keeps_the_generator_from_working_is_known_at_the_start_and_may_be_mended():
    problems = [ModelMissing("install it")]

    def load() -> None:
        if problems:
            raise problems.pop()

    service = GenerationService(ScriptedGenerator(), FakeClock(), load)
    with pytest.raises(ModelMissing, match="install it"):
        await service.initialize()
    assert (await service.check_health()).status is Health.UNHEALTHY
    await service.initialize()
    assert (await service.check_health()).status is Health.HEALTHY
