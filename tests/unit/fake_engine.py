"""An engine whose list and events a test makes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from container_healthcheck.model.container import Container
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.observers.engine import EngineError, Event
from tests.unit.containers import container

BROKEN = EngineError(Fault(Code.ENGINE_FAULTY, "broken"))


class FakeEngine:
    """An engine whose list and events the test makes; also its only client."""

    def __init__(self) -> None:
        self.containers_now = {"1": container("a-1", id="1")}
        self.history: list[Event] = []
        self.since: list[str | None] = []
        self.failing_lists = 0
        self.answers = threading.Event()
        self.answers.set()
        self.lists = 0
        self.stream: queue.Queue[Event | None] = queue.Queue()

    def containers(self, *, ids: Sequence[str] = ()) -> list[Container]:
        self.lists += 1
        if self.failing_lists:
            self.failing_lists -= 1
            raise BROKEN
        found = [each for key, each in self.containers_now.items() if not ids or key in ids]
        assert self.answers.wait(60)
        return found

    def subscribe(self, since: str | None = None) -> FakeStream:
        self.since.append(since)
        self.stream = queue.Queue()
        # As an engine does: everything from that moment on, the moment included.
        for event in self.history if since and "." in since else []:
            if event.time >= float(since or 0) * 10**9 - 1000:
                self.stream.put(event)
        return FakeStream(self.stream)

    def close(self) -> None:
        pass

    def emit(self, action: str, time: int, container_id: str = "1", **attributes: str) -> None:
        event = Event(container_id, action, time, attributes)
        self.history.append(event)
        self.stream.put(event)

    def set(self, **fields: object) -> None:
        self.containers_now["1"] = replace(self.containers_now["1"], **fields)  # type: ignore[arg-type]

    def break_stream(self) -> None:
        self.stream.put(None)


class FakeStream:
    def __init__(self, events: queue.Queue[Event | None]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[Event]:
        while (event := self._events.get()) is not None:
            yield event
        raise BROKEN

    def close(self) -> None:
        self._events.put(None)
