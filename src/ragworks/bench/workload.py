"""What a client does to the server, one thing at a time: submit, replace, describe, delete, cancel, drop."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any
from urllib.parse import quote

import httpx

from ragworks.bench.documents import COLLECTIONS, Documents, Key
from ragworks.bench.ledger import Batch, Ledger
from ragworks.bench.server import DEADLINE_S, Stuck

PAUSE_S = 0.02
ENDED = ("completed", "failed", "cancelled")
SIZES = (1, 2, 5, 12, 24)
WEIGHTS = {"submit": 55, "describe": 12, "delete": 22, "cancel": 8, "drop": 3}

Step = Callable[[httpx.AsyncClient], Awaitable[bool]]
"""Sends one request; True once it was answered as it should be, so that it need not be repeated."""


class Workload:
    """Goes on over the lives of a server: what a dead one did not answer is sent again to the next."""

    def __init__(self, documents: Documents, ledger: Ledger, rng: Random, counts: Counter[str]) -> None:
        self._documents, self._ledger, self._rng, self._counts = documents, ledger, rng, counts
        self._stamp = 0
        self._unanswered: Step | None = None
        self.news = {name: asyncio.Event() for name in ("sent", "acknowledged", "deleting")}

    async def forever(self, http: httpx.AsyncClient) -> None:
        """Send until cancelled; now and then wait until everything that was acknowledged has ended."""
        await make_collections(http)
        while True:
            until = self._counts["acknowledged"] + len(self._documents.keys) // 2
            while self._counts["acknowledged"] < until:
                await self._go_on(http)
                await asyncio.sleep(self._rng.uniform(0, PAUSE_S))
            await self.settle(http)
            self._counts["settled"] += 1

    async def finish(self, http: httpx.AsyncClient) -> None:
        """Only what is under way already."""
        await make_collections(http)
        while self._unanswered:
            await self._go_on(http)
        await self.settle(http)

    async def put(self, http: httpx.AsyncClient, stamps: dict[Key, int]) -> None:
        """Submit what another run of this ledger holds in the end."""
        await make_collections(http)
        groups: dict[tuple[int, str, bool], list[Key]] = {}
        for key, stamp in stamps.items():
            groups.setdefault((stamp, key[0], self._as_json(key)), []).append(key)
        for (stamp, collection, _), keys in groups.items():
            batch = Batch(collection, stamp, {key: self._ledger.editions[key][stamp] for key in keys}, None)
            while not await self._submit(batch)(http):
                pass
        await self.settle(http)

    async def settle(self, http: httpx.AsyncClient) -> None:
        """Return once every acknowledged job has ended. Raises Stuck."""
        deadline = time.monotonic() + DEADLINE_S
        while self._ledger.jobs:
            for job_id in list(self._ledger.jobs):
                response = await http.get(f"/v1/jobs/{job_id}")
                if response.status_code == 404:
                    self._ledger.fault("lost", f"acknowledged job {job_id} is unknown")
                    del self._ledger.jobs[job_id]
                elif response.json()["status"] in ENDED:
                    self._ledger.settle(job_id, {one["id"]: one["status"] for one in response.json()["documents"]})
                else:
                    break  # they end about in the order of their acknowledgement
            if time.monotonic() > deadline:
                raise Stuck(f"{len(self._ledger.jobs)} jobs do not end: {sorted(self._ledger.jobs)[:3]}")
            await asyncio.sleep(PAUSE_S)

    async def _go_on(self, http: httpx.AsyncClient) -> None:
        self._unanswered = self._unanswered or self._next()
        if await self._unanswered(http):
            self._unanswered = None

    def _next(self) -> Step:
        what = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        known = sorted(self._ledger.editions)
        if what == "delete" and known:
            key = self._rng.choice(known)
            return self._delete([key], f"{key[0]}/documents/{quote(key[1])}", what)
        if what == "drop":
            name = self._rng.choice(COLLECTIONS)
            return self._delete([key for key in known if key[0] == name], name, what)
        if what == "cancel" and self._ledger.jobs:
            return self._cancel(self._rng.choice(list(self._ledger.jobs)))
        return self._submit(self._batch(known if what == "describe" and known else None))

    # submitting

    def _batch(self, known: list[Key] | None) -> Batch:
        """New words for some documents, or for ``known`` ones the same words with new metadata."""
        first = self._rng.choice(known or self._documents.keys)
        alike = [
            key
            for key in known or self._documents.keys
            if key[0] == first[0] and self._as_json(key) == self._as_json(first)
        ]
        self._stamp += 1
        return Batch(
            first[0],
            self._stamp,
            {
                key: self._latest(key) if known else self._new(key)
                for key in self._rng.sample(alike, min(len(alike), self._rng.choice(SIZES)))
            },
            uuid.UUID(int=self._rng.getrandbits(128)).hex if self._rng.random() < 0.5 else None,
        )

    def _latest(self, key: Key) -> int:
        stamps = self._ledger.editions[key]
        return stamps[max(stamps)]

    def _new(self, key: Key) -> int:
        """A twin takes the words of the other, so that two documents need the same bytes."""
        twin = self._documents.twin(key)
        return self._latest(twin) if twin != key and twin in self._ledger.editions else self._stamp

    def _submit(self, batch: Batch) -> Step:
        async def step(http: httpx.AsyncClient) -> bool:
            self._ledger.send(batch)
            asyncio.get_running_loop().call_soon(self.news["sent"].set)
            response = await http.post(f"/v1/collections/{batch.collection}/documents", **self._request(batch))
            if not await self._answered(response, 202):
                return False
            # From here on the server has promised these documents.
            self._ledger.acknowledge(response.json()["processing_job_id"], batch)
            self._counts["acknowledged"] += len(batch.editions)
            self.news["acknowledged"].set()
            return True

        return step

    def _request(self, batch: Batch) -> dict[str, Any]:
        metadata, headers = {"stamp": batch.stamp}, {}
        if batch.idempotency_key:
            headers["Idempotency-Key"] = batch.idempotency_key
        texts = [(key, self._documents.content(key, edition)) for key, edition in batch.editions.items()]
        if self._as_json(texts[0][0]):
            documents = [{"id": key[1], "text": text, "metadata": metadata} for key, text in texts]
            return {"json": {"documents": documents}, "headers": headers}
        files = [("files", (key[1], text.encode(), "application/octet-stream")) for key, text in texts]
        return {"files": files, "data": {"metadata": json.dumps(metadata)}, "headers": headers}

    def _as_json(self, key: Key) -> bool:
        return self._documents.kind(key) == "text"

    # undoing

    def _delete(self, keys: list[Key], path: str, what: str) -> Step:
        async def step(http: httpx.AsyncClient) -> bool:
            self._ledger.delete(keys)
            asyncio.get_running_loop().call_soon(self.news["deleting"].set)
            response = await http.delete(f"/v1/collections/{path}")
            if not await self._answered(response, 204, 404):
                return False
            self._ledger.deleted()
            self._counts[what] += 1
            if what == "drop":
                await make_collections(http)
            return True

        return step

    def _cancel(self, job_id: str) -> Step:
        async def step(http: httpx.AsyncClient) -> bool:
            self._ledger.cancelling.add(job_id)
            asyncio.get_running_loop().call_soon(self.news["deleting"].set)
            answered = await self._answered(await http.post(f"/v1/jobs/{job_id}/cancel"), 200)
            self._counts["cancel"] += answered
            return answered

        return step

    async def _answered(self, response: httpx.Response, *expected: int) -> bool:
        if response.status_code in (429, 503):
            self._counts["refused"] += 1
            await asyncio.sleep(float(response.headers["Retry-After"]))
            return False
        if response.status_code not in expected:
            raise Stuck(f"{response.request.method} {response.request.url} {response.status_code}: {response.text}")
        return True


async def make_collections(http: httpx.AsyncClient) -> None:
    for name in COLLECTIONS:
        made = await http.post("/v1/collections", json={"name": name})
        if made.status_code not in (201, 409):
            raise Stuck(f"cannot make collection {name}: {made.text}")
