"""The prober: asks each app that has a live container, from time to time, whether it answers.

Running is not serving: a container that has just started installs and migrates for minutes, and
uwsgi can die inside a container that stays up. Which apps there are comes from the watcher's
pictures; what the probes saw is one mapping that is replaced whole, so readers take no lock.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from container_healthcheck.model.snapshot import Picture

log = logging.getLogger(__name__)

# An app that has come back is asked this often until it answers, in seconds.
RETURNING_INTERVAL = 1.0
LONGEST_SLEEP = 60.0
SLOTS = 20
UNASKED = "it has started again and was not asked yet"


@dataclass(slots=True)
class _App:
    """What is known of one app with a live container.

    `awaited` is true from its return until its first pass. `life` counts the returns, so that what
    a probe saw before one is not taken for news after it.
    """

    containers: frozenset[str]
    due: float = 0.0
    awaited: bool = False
    failures: int = 0
    seen: str = UNASKED
    life: int = 0
    asking: bool = False


@dataclass(frozen=True, slots=True, order=True)
class _Turn:
    """A moment at which an app is to be asked; void when the app's own `due` is another."""

    due: float
    app_code: str = field(compare=False)
    app: _App = field(compare=False)


class Prober:
    """Probes apps in the background and keeps what failed.

    `probe` asks one app and returns None when it passed, else what it saw; it must end by itself.
    `failing` holds what was seen of each app that must not be called healthy; `on_change` is given
    each new one. `interval` is in seconds, `fall` the failures in a row that count.
    """

    def __init__(
        self,
        probe: Callable[[str], str | None],
        *,
        interval: float,
        fall: int,
        on_change: Callable[[Mapping[str, str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probe = probe
        self._interval = interval
        self._fall = fall
        self._on_change = on_change
        self._clock = clock
        self._apps: dict[str, _App] = {}
        self._turns: list[_Turn] = []
        self._knows_start = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._planned = 0.0
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)
        self.failing: Mapping[str, str] = {}

    def start(self) -> None:
        """Begins to probe, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stops probing. Returns at once; the thread ends by itself."""
        self._stopping = True
        self._wake.set()

    def observe(self, picture: Picture, started: frozenset[str]) -> None:
        """Takes the watcher's newest picture, before it is answered from.

        `started` are the containers that were started since the last one. An app without a
        container that was live before and all the time has come back, and must pass a probe. The
        apps of the first confirmed picture are presumed good.
        """
        if picture.confirmed_at is None:
            return
        live = picture.live_containers()
        with self._lock:
            for app_code in self._apps.keys() - live.keys():
                del self._apps[app_code]
            for app_code, containers in live.items():
                self._observe_app(app_code, containers, started)
            self._knows_start = True
            self._publish()
        self._wake.set()

    def _observe_app(
        self, app_code: str, containers: frozenset[str], started: frozenset[str]
    ) -> None:
        app = self._apps.get(app_code)
        if app is None:
            app = self._apps[app_code] = _App(containers)
            if not self._knows_start:
                self._set_due(app_code, app, self._next_turn(app_code))
                return
        elif app.containers & (containers - started):
            app.containers = containers
            return
        app.containers = containers
        app.awaited, app.seen, app.failures = True, UNASKED, 0
        app.life += 1
        self._set_due(app_code, app, self._clock())

    def _next_turn(self, app_code: str) -> float:
        """When the app's turn comes next, on the clock.

        All workers of one host share the clock, so they probe an app at the same moment and see the
        same. The turns of different apps are spread over the interval, some at the same moment:
        waking up costs more than a probe.
        """
        offset = zlib.crc32(app_code.encode()) % SLOTS / SLOTS * self._interval
        return (self._clock() - offset) // self._interval * self._interval + self._interval + offset

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                left = self._launch_due()
            except Exception:
                log.exception("the prober stumbled; it goes on")
                left = 1.0
            self._wake.wait(left)

    def _launch_due(self) -> float:
        """Starts the probes that are due, and returns how long until the next, in seconds."""
        with self._lock:
            now = self._clock()
            while self._turns and self._turns[0].due <= now:
                turn = heapq.heappop(self._turns)
                if self._is_on(turn):
                    self._launch(turn.app_code, turn.app, now)
            self._planned = self._turns[0].due if self._turns else now + LONGEST_SLEEP
            return max(self._planned - now, 0)

    def _launch(self, app_code: str, app: _App, now: float) -> None:
        arguments = (app_code, app, app.life)
        try:
            threading.Thread(target=self._ask, args=arguments, daemon=True).start()
        except RuntimeError:
            log.exception("no thread for the probe of %s; it is tried again", app_code)
            self._set_due(app_code, app, now + RETURNING_INTERVAL)
        else:
            app.asking = True

    def _is_on(self, turn: _Turn) -> bool:
        """False for a turn that an earlier one, or the app's end, has made void."""
        app = turn.app
        return app.due == turn.due and not app.asking and self._apps.get(turn.app_code) is app

    def _set_due(self, app_code: str, app: _App, due: float) -> None:
        app.due = due
        heapq.heappush(self._turns, _Turn(due, app_code, app))

    def _ask(self, app_code: str, app: _App, life: int) -> None:
        try:
            seen = self._probe(app_code)
        except Exception as error:
            log.exception("the probe of %s stumbled", app_code)
            seen = f"internal error: {error!r}"
        with self._lock:
            app.asking = False
            if app.life == life:
                self._note(app_code, app, seen)
            else:
                self._set_due(app_code, app, self._clock())
            if app.due < self._planned:
                self._wake.set()

    def _note(self, app_code: str, app: _App, seen: str | None) -> None:
        before = self._is_failing(app)
        due = self._next_turn(app_code)
        if seen is None:
            app.awaited, app.failures = False, 0
        else:
            app.failures += 1
            app.seen = seen
        if app.awaited:
            due = min(due, self._clock() + RETURNING_INTERVAL)
        self._set_due(app_code, app, due)
        if before or self._is_failing(app):
            self._publish()

    def _is_failing(self, app: _App) -> bool:
        return app.awaited or app.failures >= self._fall

    def _publish(self) -> None:
        failing = {code: app.seen for code, app in self._apps.items() if self._is_failing(app)}
        if failing != self.failing:
            self.failing = failing
            self._on_change(failing)
