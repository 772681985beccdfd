"""The histograms of ``/metrics``: what each measures, and what its buckets are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# A quantile read from buckets is as exact as they are near to each other, so they are dense where a goal may lie.
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGE_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
BATCH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)
BATCH_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 65536)
ANSWER_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
TOKEN_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class Shape:
    """One histogram. ``purpose`` says what its buckets tell apart."""

    text: str
    buckets: tuple[float, ...]
    purpose: str
    labels: tuple[str, ...] = ()


HISTOGRAMS: Mapping[str, Shape] = {
    "rag_request_duration_seconds": Shape(
        "From first to last byte of a request, unless it was told to come back (429)",
        REQUEST_SECONDS,
        "whether searches keep a goal of 0.25 or 0.5 s; below it a search from memory, above it a long answer",
        ("route",),
    ),
    "rag_stage_duration_seconds": Shape(
        "One stage of one document",
        STAGE_SECONDS,
        "which stage holds documents up: a note takes milliseconds, a book minutes",
        ("stage",),
    ),
    "rag_search_step_duration_seconds": Shape(
        "One step of one search",
        REQUEST_SECONDS,
        "which step makes a search slow; the same buckets as requests, so that they can be laid side by side",
        ("step",),
    ),
    "rag_embedding_duration_seconds": Shape(
        "One call that the embedding model had to serve",
        REQUEST_SECONDS,
        "whether questions wait behind passages: the batch that runs before them is in it",
        ("kind",),
    ),
    "rag_embedding_batch_duration_seconds": Shape(
        "One batch through the model, or one request to its endpoint, retries included",
        BATCH_SECONDS,
        "how long a question waits for the batch that runs (0.1 s on two cores), and an endpoint that makes waiting",
    ),
    "rag_embedding_batch_tokens": Shape(
        "Tokens of one batch, without padding; of an endpoint, if it says how many it counted",
        BATCH_TOKENS,
        "whether texts share batches: full ones are near embeddings_service.batch_tokens, of which padding takes some",
    ),
    "rag_replica_call_duration_seconds": Shape(
        "One call that a replica answered, from its pick to its answer",
        REQUEST_SECONDS,
        "how slow the slowest calls are, which the average of a replica hides",
        ("service",),
    ),
    "rag_generation_duration_seconds": Shape(
        "From the passages to the last word of an answer that was written",
        ANSWER_SECONDS,
        "extractive answers on the left, a chat model's long ones on the right",
    ),
    "rag_generation_first_token_seconds": Shape(
        "From the passages to the first word of an answer",
        TOKEN_SECONDS,
        "what a reader waits for: dense around 1 s, and 60 s is where an endpoint is given up",
    ),
    "rag_loop_lag_seconds": Shape(
        "Lateness of the event loop's wake-ups",
        LAG_SECONDS,
        "0.1 s makes the service degraded, 1 s unhealthy",
    ),
}
