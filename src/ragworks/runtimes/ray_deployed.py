"""A service on Ray Serve as its callers have it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from ray import exceptions as ray_errors
from ray import serve
from ray.serve import exceptions as serve_errors

from ragworks.errors import NotReady, ReplicaLost
from ragworks.policies.calling import Attempts, CallSettings, again, classify
from ragworks.policies.retrying import earned
from ragworks.runtimes.child import unpacked_error
from ragworks.runtimes.ray_serve import Raised


class Deployed:
    """All replicas of a deployment, called as if they were one: what ``control.balancer.Balancer`` is elsewhere.

    The router picks; what is left to do here is to send a call once more, by the same rules as the Balancer.
    """

    def __init__(self, application_name: str, settings: CallSettings | None = None) -> None:
        self.name = application_name
        self._settings = settings or CallSettings()
        self._saved = self._settings.budget.most
        self._handle = serve.get_app_handle(application_name)
        self._streaming = self._handle.options(stream=True)

    async def call(
        self,
        verb: str,
        *arguments: Any,
        cost: float | None = None,
        idempotent: bool = True,
        timeout_s: float | None = None,
        **named: Any,
    ) -> Any:
        """What the verb returns; arrays arrive read-only. Cancelling cancels it there, too, as does the timeout.

        Raises what the verb raises, TimeoutError, ReplicaLost, and NotReady when the deployment takes no calls. Waits
        without end for a replica where there is none but one may come.
        """
        until = math.inf if timeout_s is None else time.monotonic() + timeout_s
        sent = Attempts(idempotent)
        while True:
            response = self._handle.call.remote(verb, arguments, named, cost=cost)
            try:
                with _told_as_ours(self.name):
                    async with asyncio.timeout(None if timeout_s is None else max(0.0, until - time.monotonic())):
                        answer = _unwrapped(await response)
            except (TimeoutError, asyncio.CancelledError):
                response.cancel()
                raise
            except Exception as error:  # whatever it is, another replica may not have it
                sent = sent.after(classify(error))
                if not self._again(sent, error, until):
                    raise
            else:
                self._saved = earned(self._settings.budget, self._saved)
                return answer

    async def stream(
        self,
        verb: str,
        *arguments: Any,
        cost: float | None = None,
        idempotent: bool = True,
        timeout_s: float | None = None,
        **named: Any,
    ) -> AsyncIterator[Any]:
        """The items of a verb that is an asynchronous generator; ``timeout_s`` is for each. Closing the iterator early
        closes it there. Sent again only before the first item. Otherwise as ``call``."""
        sent, first = Attempts(idempotent), True
        while True:
            try:
                async with contextlib.aclosing(self._items(verb, arguments, named, cost, timeout_s)) as items:
                    async for item in items:
                        first = False
                        yield item
                return
            except TimeoutError:
                raise
            except Exception as error:  # as above
                sent = sent.after(classify(error))
                if not first or not self._again(sent, error, math.inf):
                    raise

    async def stop(self) -> None:
        """Draining takes as long as the application was given: Ray keeps one limit for each, not one for each stop."""
        await asyncio.to_thread(serve.delete, self.name)

    async def _items(
        self, verb: str, arguments: tuple[Any, ...], named: dict[str, Any], cost: float | None, timeout_s: float | None
    ) -> AsyncGenerator[Any, None]:
        items = self._streaming.stream.remote(verb, arguments, named, cost=cost)
        try:
            with _told_as_ours(self.name):
                while True:
                    async with asyncio.timeout(timeout_s):
                        item = await anext(items, items)
                    if item is items:
                        return
                    yield _unwrapped(item)
        finally:
            items.cancel()  # harmless at the end

    def _again(self, sent: Attempts, error: Exception, until: float) -> bool:
        left_s = until - time.monotonic()
        decision = again(self._settings, classify(error), sent, left_s=left_s, saved=self._saved)
        self._saved -= decision.cost
        return decision.again


def _unwrapped(answer: Any) -> Any:
    if isinstance(answer, Raised):
        raise unpacked_error(answer.kind, answer.arguments, answer.fields)
    return answer


@contextlib.contextmanager
def _told_as_ours(name: str) -> Iterator[None]:
    try:
        yield
    except ray_errors.RayActorError as error:
        raise ReplicaLost(f"a replica of {name} ended before it answered: {error}") from error
    except (serve_errors.DeploymentUnavailableError, serve_errors.BackPressureError) as error:
        raise NotReady(f"{name} takes no calls now: {error}") from error
