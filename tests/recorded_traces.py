"""Traces that stay in this process."""

from __future__ import annotations

from typing import Any

from ragworks import tracing


class RecordedTraces:
    """A Tracer that keeps what it gets in ``ended``, in the order of their ends. Traces are on within its context."""

    def __init__(self, *, sample: bool = True, captures_text: bool = False) -> None:
        self.captures_text, self._sample = captures_text, sample
        self.ended: list[tracing.Ended] = []

    def __enter__(self) -> RecordedTraces:
        tracing.use(self)
        return self

    def __exit__(self, *_: object) -> None:
        tracing.use(None)

    def sampled(self, parent: tracing.Context | None, trace_id: int, name: str, attributes: tracing.Attributes) -> bool:
        return self._sample if parent is None else parent.sampled

    def keep(self, span: tracing.Ended) -> None:
        self.ended.append(span)

    def named(self, name: str) -> tracing.Ended:
        """The one span of that name."""
        (found,) = [one for one in self.ended if one.name == name]
        return found

    def tree(self, parent_id: int = 0) -> dict[str, Any]:
        """Names within names."""
        return {one.name: self.tree(one.span_id) for one in self._begun() if one.parent_id == parent_id}

    def _begun(self) -> list[tracing.Ended]:
        return sorted(self.ended, key=lambda one: one.start_ns)
