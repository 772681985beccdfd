"""What a profile asks, and what it makes of the answers: before a server that takes no time and tells any."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from random import Random

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from ragworks.bench.profile import AT_ONCE, LOADS, ROUNDS, WARM_UP, Wanted, profile
from ragworks.bench.questions import WORDS, documents, taken, varied
from ragworks.errors import InvalidInput, ServerProblem, ServerUnreachable
from ragworks.simulator.planner import Goal, plan
from ragworks.simulator.profiles import Lives

QUESTIONS = ("how long does the battery of the drone last", "who pays for the damage of a rented camera")
SERVER, ENGINE = os.getpid(), os.getppid()


class FakeServer:
    """Answers at once, and says that it took what ``timings`` hold."""

    def __init__(self) -> None:
        self.asked: dict[str, list[str]] = {"search": [], "ask": []}
        self.in_flight = self.most_in_flight = 0
        self.pids = {"embeddings_service": [ENGINE], "generation_service": [SERVER]}
        self.timings = {"embed": 0.004, "retrieve": 0.002, "rerank": 0.001, "total": 0.0}
        self.texts: list[str] = []
        self.failing: JSONResponse | PlainTextResponse | None = None
        self.more: dict = {}
        self.down: str | None = None
        self.of_others = 0
        self.application = Starlette(
            routes=[
                Route("/v1/services", self._services),
                Route("/v1/collections/{name}/documents", self._documents),
                Route("/v1/collections/{name}/documents/{id:path}/text", self._text),
                Route("/v1/collections/{name}/{kind:str}", self._answer, methods=["POST"]),
            ]
        )

    async def _services(self, request):
        names = ("embeddings_service", "retrieval_service", "generation_service", "orchestration_api")
        searches = sum(map(len, self.asked.values()))
        found = [
            {"name": name, "status": "failed" if name == self.down else "started", "stats": {"searches": searches}}
            | {"replicas": [{"pid": pid, "version": "7.1"} for pid in self.pids.get(name, [SERVER])]}
            for name in names
        ]
        return JSONResponse({"data": found})

    async def _documents(self, request):
        return JSONResponse({"data": [{"id": f"a/{at}"} for at in range(len(self.texts))]})

    async def _text(self, request):
        return JSONResponse({"text": self.texts[int(request.path_params["id"].removeprefix("a/"))]})

    async def _answer(self, request):
        if self.failing:
            return self.failing
        body, kind = await request.json(), request.path_params["kind"]
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.asked[kind].append(body["query" if kind == "search" else "question"])
        await asyncio.sleep(0)
        self.in_flight -= 1
        generated = {"generate": 0.5} if kind == "ask" else {}
        return JSONResponse({"timings": self.timings | generated, **self.more})


@asynccontextmanager
async def listening(fake):
    server = uvicorn.Server(uvicorn.Config(fake.application, log_level="critical", lifespan="off"))
    # Only where the protocol is named does asyncio switch off Nagle's algorithm, which costs 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def profiled(fake, kind="search", calls=20, questions=QUESTIONS, **more):
    async with listening(fake) as url:
        return await profile(url, Wanted(kind, calls, questions=questions, **more))


@pytest.fixture
def fake():
    return FakeServer()


async def test_each_service_has_its_part_of_every_call_and_the_api_the_rest(fake):
    found = await profiled(fake)
    services = {one.service: one for one in found.services}
    assert list(services) == ["embeddings_service", "retrieval_service", "orchestration_api"]
    assert services["embeddings_service"].service_s == (0.004,) * 20
    assert services["retrieval_service"].service_s == pytest.approx((0.003,) * 20)
    assert all(took > 0 for took in services["orchestration_api"].service_s)
    assert [one.lives for one in found.services] == [Lives.PROCESS, Lives.SERVER, Lives.SERVER]
    assert services["orchestration_api"].memory_bytes > 0
    assert services["orchestration_api"].cpu_s is not None
    assert services["retrieval_service"].cpu_s is services["retrieval_service"].memory_bytes is None
    assert (found.source.kind, found.source.version, found.source.other_questions) == ("search", "7.1", 0)


async def test_every_question_is_new_and_asks_the_same_words(fake):
    await profiled(fake)
    asked = fake.asked["search"]
    assert len(asked) == WARM_UP + ROUNDS * (4 + sum(4 + 2 * many - 1 for many in AT_ONCE) + sum(LOADS.values()) * 4)
    assert len(set(asked)) == len(asked)
    assert {one.lower() for one in asked} == set(QUESTIONS)


async def test_so_many_are_asked_at_once_and_each_round_is_kept(fake):
    found = await profiled(fake)
    assert {many: len(rates) for many, rates in found.at_once.items()} == dict.fromkeys(AT_ONCE, ROUNDS)
    assert fake.most_in_flight > 1
    asked = {share: [len(one) for one in rounds] for share, rounds in found.at_random.items()}
    assert asked == {share: [times * 4] * ROUNDS for share, times in LOADS.items()}
    assert all(took > 0 for rounds in found.at_random.values() for one in rounds for _, took in one)
    assert plan(found, Goal(1.0, 10.0)).met


async def test_who_writes_elsewhere_is_asked_one_by_one_and_this_machine_by_searching(fake):
    """What others compute may cost money; how this machine slows down, searches show as well."""
    fake.pids["generation_service"] = [None, None]
    found = await profiled(fake, "ask", slots={"generation_service": 9})
    assert len(fake.asked["ask"]) == WARM_UP + 20
    assert len(fake.asked["search"]) == ROUNDS * sum(4 + 2 * many - 1 for many in (1, *AT_ONCE))
    writer = next(one for one in found.services if one.service == "generation_service")
    assert (writer.lives, writer.replicas, writer.slots, writer.cpu_s) == (Lives.OUTSIDE, 2, 4, None)
    assert writer.service_s == (0.5,) * 20
    assert found.at_random == {}


async def test_a_generator_of_its_own_is_asked_at_once_too(fake):
    await profiled(fake, "ask")
    assert not fake.asked["search"]
    assert fake.most_in_flight > 1


async def test_a_remote_embedder_is_never_asked_at_once(fake):
    fake.pids["embeddings_service"] = [None]
    found = await profiled(fake)
    assert (found.at_once, found.at_random, fake.most_in_flight) == ({}, {}, 1)
    assert any("was not measured" in note for note in plan(found, Goal(1.0, 10.0)).notes)


async def test_without_questions_the_documents_own_words_are_asked_for(fake):
    fake.texts = [one["text"] for one in documents(3)]
    await profiled(fake, questions=())
    whole = " ".join(fake.texts).lower()
    assert all(asked.lower() in whole for asked in fake.asked["search"])


async def test_a_collection_without_words_is_refused(fake):
    fake.texts = [" "]
    with pytest.raises(InvalidInput, match="holds no words to ask about; ingest documents, or name a file"):
        await profiled(fake, questions=())


async def test_too_few_calls_are_refused(fake):
    with pytest.raises(InvalidInput, match="--calls must be 10 or more, found 9"):
        await profiled(fake, calls=9)


async def test_a_server_that_answers_by_words_only_is_not_measured(fake):
    fake.more = {"degraded": "the embedder does not answer: searched by words only"}
    with pytest.raises(InvalidInput, match="answers only in part, the embedder does not answer"):
        await profiled(fake)


async def test_a_service_that_is_down_is_named(fake):
    fake.down = "embeddings_service"
    with pytest.raises(InvalidInput, match="embeddings_service must be up at http://127"):
        await profiled(fake)


async def test_a_server_that_fails_is_told_in_its_own_words(fake):
    fake.failing = JSONResponse({"code": "not_ready", "detail": "come again"}, 503)
    with pytest.raises(ServerProblem, match="come again"):
        await profiled(fake)


@pytest.mark.parametrize("answer", [PlainTextResponse("hello"), JSONResponse([])])
async def test_what_is_no_ragworks_is_told_so(fake, answer):
    fake.failing = answer
    with pytest.raises(ServerProblem, match="does not answer like ragworks"):
        await profiled(fake)


async def test_a_server_that_is_not_there_is_unreachable():
    with pytest.raises(ServerUnreachable, match="is it running"):
        await profile("http://127.0.0.1:1", Wanted("search", 10, questions=QUESTIONS))


@given(st.text(min_size=1), st.integers())
def test_a_varied_question_differs_in_letter_cases_or_in_a_number_behind_it(question, seed):
    found = varied(question, Random(seed))
    assert found.casefold().startswith(question.casefold())


@given(st.lists(st.text()), st.integers(1, 20), st.integers())
def test_questions_are_stretches_of_the_texts(texts, count, seed):
    found = taken(texts, count, Random(seed))
    assert len(found) == (count if any(text.split() for text in texts) else 0)
    flat = [" ".join(text.split()) for text in texts]
    assert all(question and any(question in text for text in flat) for question in found)


def test_the_documents_are_the_same_for_a_seed_and_their_words_are_plain():
    assert documents(5) == documents(5) != documents(5, seed=1)
    assert len(set(WORDS)) == len(WORDS)
    assert all(word.isalpha() for word in WORDS)


async def test_a_server_that_answers_fewer_at_once_is_told_of_its_setting(fake):
    fake.failing = JSONResponse({"code": "too_many_questions", "detail": "2 questions are being answered"}, 429)
    with pytest.raises(InvalidInput, match=r"start it with orchestration_api\.max_questions at 32 or more"):
        await profiled(fake)
