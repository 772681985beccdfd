"""Questions against real rows and indexes with the hashing embedder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from ragworks.errors import CollectionNotFound, EndpointUnavailable, InvalidInput, ModelMismatch, NotReady
from ragworks.models.hashing import HashingEmbedder
from ragworks.models.lexical import LexicalScorer
from ragworks.protocols import RemoteModel
from ragworks.services.retrieval_service import RetrievalService
from ragworks.settings import EmbeddingsSettings, RetrievalSettings
from ragworks.testing import LocalEmbeddings, ScriptedEndpoint
from ragworks.types import Chunk, Part, ReadDocument, Turn
from stores import Opened, claimed, opened

DOCUMENTS = {
    "battery": ["The battery of the city bike lasts five years.", "Charge the battery below forty degrees."],
    "boat": ["A boat has a keel and a rudder.", "The keel of the boat is made of lead."],
    "copy": ["The battery of the city bike lasts five years."],
    "tea": ["Green tea is brewed at eighty degrees."],
}


class Library:
    """A searchable collection; ``embedder_up`` and ``fingerprint`` can be changed by a test."""

    def __init__(self, at: Opened, embedder: LocalEmbeddings, scorer: LexicalScorer | SlowScorer) -> None:
        self.at, self.embedder, self.embedder_up = at, embedder, True
        self.service = RetrievalService(
            RetrievalSettings(rerank_budget_s=0.05 if isinstance(scorer, SlowScorer) else 30.0),
            store=at.store,
            embedder=embedder,
            embedder_ready=lambda: self.embedder_up,
            scorer=scorer,
        )

    async def add(self, document_id: str, texts: Sequence[str], fingerprint: str = "") -> None:
        task = await claimed(self.at, document_id, text=" ".join(texts), metadata={"kind": document_id})
        starts = [sum(len(text) + 1 for text in texts[:at]) for at in range(len(texts))]
        chunks = tuple(
            Chunk(at, start, start + len(text), text)
            for at, (start, text) in enumerate(zip(starts, texts, strict=True))
        )
        made = await self.embedder.embed_texts(texts)
        part = Part(0, " ".join(texts), chunks)
        document = ReadDocument(document_id, "document", "text/plain", len(chunks), (part,))
        version = await self.at.store.begin(
            task, document, fingerprint or self.embedder.fingerprint, self.embedder.dimension
        )
        keys = [self.embedder.embedding_key(text) for text in texts]
        vectors = [vector for vector in made.embeddings if vector is not None]
        await self.at.store.stage(version, part, ["" for _ in texts], keys, vectors)
        await self.at.store.publish(task, version)
        await self.at.jobs.finish(task, unchanged=False, warnings=())


class SlowScorer:
    """Takes longer than any budget of a test."""

    def score(self, question: str, passages: Sequence[str]) -> np.ndarray:
        import threading

        threading.Event().wait(0.3)
        return np.zeros(len(passages), dtype=np.float32)


@asynccontextmanager
async def library(
    path: Path, scorer: LexicalScorer | SlowScorer | None = None, model: RemoteModel | None = None
) -> AsyncIterator[Library]:
    async with opened(path) as at:
        embedder = LocalEmbeddings(EmbeddingsSettings(), lambda: model or HashingEmbedder(), at.store, at.clock)
        await embedder.initialize()
        made = Library(at, embedder, scorer or LexicalScorer())
        for document_id, texts in DOCUMENTS.items():
            await made.add(document_id, texts)
        yield made
        await embedder.shutdown()


async def test_the_best_passage_comes_first_with_its_place_and_both_scores(tmp_path: Path) -> None:
    async with library(tmp_path) as at:
        found = await at.service.search("default", "Of what is the keel made?", top_k=3)
        best = found.hits[0]
        assert (best.document_id, best.text) == ("boat", "The keel of the boat is made of lead.")
        text = await at.at.store.text("default", "boat")
        assert text[best.start : best.end] == best.text
        assert best.dense is not None
        assert best.lexical is not None
        scores = [hit.score for hit in found.hits]
        assert scores == sorted(scores, reverse=True)
        assert set(found.timings) == {"embed", "retrieve", "rerank", "total"}


async def test_near_duplicates_show_once(tmp_path: Path) -> None:
    async with library(tmp_path) as at:
        found = await at.service.search("default", "how long does the battery last", top_k=10)
        texts = [hit.text for hit in found.hits]
        assert len(texts) == len(set(texts))


async def test_grouping_shows_each_document_once_and_reaches_all_of_them(tmp_path: Path) -> None:
    async with library(tmp_path) as at:
        found = await at.service.search("default", "battery keel tea", top_k=10, group_by="document")
        assert sorted(hit.document_id for hit in found.hits) == sorted(DOCUMENTS)


async def test_a_filter_keeps_its_recall_however_few_it_lets_through(tmp_path: Path) -> None:
    async with library(tmp_path) as at:
        only_tea = {"type": "eq", "key": "kind", "value": "tea"}
        found = await at.service.search("default", "battery of the bike", filter=only_tea)
        assert [hit.document_id for hit in found.hits] == ["tea"]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
async def test_each_mode_uses_its_legs(tmp_path: Path, mode: str) -> None:
    async with library(tmp_path) as at:
        found = await at.service.search("default", "rudder", mode=mode)  # type: ignore[arg-type]
        assert found.hits[0].document_id == "boat"
        assert (found.hits[0].dense is None) == (mode == "lexical")
        assert (found.hits[0].lexical is None) == (mode == "dense")


async def test_earlier_turns_help_a_question_that_does_not_stand_alone(tmp_path: Path) -> None:
    async with library(tmp_path) as at:
        history = [Turn("user", "Tell me about the boat"), Turn("assistant", "It floats.")]
        found = await at.service.search("default", "Of what is it made?", top_k=1, history=history)
        assert found.hits[0].document_id == "boat"


async def test_a_question_that_no_endpoint_embeds_now_is_searched_by_words_and_one_that_it_refuses_is_an_error(
    tmp_path: Path,
) -> None:
    endpoint = ScriptedEndpoint(bad=["refused"])
    async with library(tmp_path, model=endpoint) as at:
        endpoint.script = [EndpointUnavailable("it is down", 60.0)]
        found = await at.service.search("default", "Of what is the keel made?")
        assert found.degraded
        assert found.hits[0].document_id == "boat"
        endpoint.script = [EndpointUnavailable("it is down", 60.0)]
        with pytest.raises(NotReady, match="dense search needs it"):
            await at.service.search("default", "Of what is the keel made?", mode="dense")
        with pytest.raises(InvalidInput, match="refused 'refused'"):
            await at.service.search("default", "refused")


async def test_without_the_embedder_words_answer_and_the_result_says_so(tmp_path: Path) -> None:
    async with library(tmp_path) as at:
        at.embedder_up = False
        found = await at.service.search("default", "keel")
        assert found.hits[0].document_id == "boat"
        assert found.degraded
        assert "words only" in found.degraded
        with pytest.raises(NotReady, match="lexical"):
            await at.service.search("default", "keel", mode="dense")
        assert (await at.service.check_health()).status == "degraded"


async def test_rerank_reorders_and_scores_still_fall(tmp_path: Path) -> None:
    async with library(tmp_path) as at:
        found = await at.service.search("default", "keel lead", rerank=True)
        scores = [hit.score for hit in found.hits]
        assert scores == sorted(scores, reverse=True)
        assert found.hits[0].document_id == "boat"
        assert found.degraded is None


async def test_a_rerank_that_takes_too_long_is_left_out_and_said(tmp_path: Path) -> None:
    async with library(tmp_path, SlowScorer()) as at:
        found = await at.service.search("default", "keel", rerank=True)
        assert found.hits[0].document_id == "boat"
        assert found.degraded
        assert "rerank took longer" in found.degraded


async def test_an_empty_collection_finds_nothing_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    async with library(tmp_path) as at:
        await at.at.store.create_collection("empty")
        assert (await at.service.search("empty", "keel")).hits == ()
        with pytest.raises(CollectionNotFound, match="nowhere"):
            await at.service.search("nowhere", "keel")


async def test_a_collection_of_another_model_is_refused(tmp_path: Path) -> None:
    async with library(tmp_path) as at:
        await at.at.store.create_collection("old")
        task = await claimed(at.at, "x", collection="old", text="keel")
        made = await at.embedder.embed_texts(["keel"])
        part = Part(0, "keel", (Chunk(0, 0, 4, "keel"),))
        document = ReadDocument("x", "document", "text/plain", 1, (part,))
        version = await at.at.store.begin(task, document, "another-model", at.embedder.dimension)
        await at.at.store.stage(version, part, [""], [b"k"], [made.embeddings[0]])  # type: ignore[list-item]
        await at.at.store.publish(task, version)
        with pytest.raises(ModelMismatch, match="another-model"):
            await at.service.search("old", "keel")
        assert (await at.service.search("old", "keel", mode="lexical")).hits[0].document_id == "x"


@pytest.mark.parametrize(
    ("options", "said"),
    [({"top_k": 0}, "1 to 1000"), ({"top_k": 1001}, "1 to 1000"), ({"group_by": "page"}, "'document'")],
)
async def test_options_out_of_range_are_refused_with_what_is_allowed(tmp_path: Path, options: dict, said: str) -> None:
    async with library(tmp_path) as at:
        with pytest.raises(InvalidInput, match=said):
            await at.service.search("default", "keel", **options)
        with pytest.raises(InvalidInput, match="must not be empty"):
            await at.service.search("default", "  ")


async def test_near_duplicates_do_not_crowd_out_what_differs(tmp_path: Path) -> None:
    """150 copies of a licence used to fill every candidate, and a search for ten hits found one."""
    async with library(tmp_path) as at:
        licence = " ".join(f"keel{word}" for word in range(60))
        await at.add("copies", [f"{licence} {number}" for number in range(450)])
        found = await at.service.search("default", f"{licence} boat tea battery", top_k=5)
        assert len(found.hits) == 5


async def test_an_embedder_that_fails_leaves_words_to_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with library(tmp_path) as at:

        async def broken(*_: object, **__: object) -> None:
            raise NotReady("the batching loop has ended")

        monkeypatch.setattr(at.embedder, "embed_texts", broken)
        found = await at.service.search("default", "keel")
        assert found.hits[0].document_id == "boat"
        assert found.degraded
