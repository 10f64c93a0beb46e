"""The observer: the leader's work. Docker, probes and drain marks come in, messages go out.

Its threads are greenlets of one worker (gevent patches the standard library): the watcher's, the
prober's, one for each probe under way, the one that reads drain marks, and the monitor's, which
ticks. They switch only where they wait: for a socket, a lock or the clock. Whatever one of them has
observed is applied and published under one lock, so that messages have one order.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from container_healthcheck import changelog
from container_healthcheck.board import Board
from container_healthcheck.model.container import Container
from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.drains import Drains
from container_healthcheck.model.message import Message
from container_healthcheck.model.probe_state import GOOD, RESTARTED, ProbeState, after_probe
from container_healthcheck.model.probes import INTERNAL
from container_healthcheck.model.restarts import restarted
from container_healthcheck.model.verdict import Fault
from container_healthcheck.observers.counter_buffer import CounterBuffer
from container_healthcheck.observers.drain_folder import DrainFolder
from container_healthcheck.observers.drain_reader import DrainReader
from container_healthcheck.observers.engine import Bounded, Engine
from container_healthcheck.observers.probe import probe
from container_healthcheck.observers.prober import Prober, Spawn, in_thread
from container_healthcheck.observers.subscription import Observation
from container_healthcheck.observers.watcher import Watcher
from container_healthcheck.relay.leadership import Term
from container_healthcheck.relay.publisher import Publisher
from container_healthcheck.settings import Settings
from container_healthcheck.storage.saver import Saver

log = logging.getLogger(__name__)

# How often counters are published at most, in seconds.
COUNTERS_PAUSE = 1.0
# For how many intervals what was probed counts for the next start of the service; an app that hangs
# is asked less often, whenever its probe has timed out.
VALID_INTERVALS = 3


def run_here(work: Callable[[], None]) -> None:
    """Runs work that may block in the calling thread."""
    work()


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the observer needs of the server that it runs in.

    `bounded` limits the time of a whole question to the engine, `spawn` runs a probe in a thread or
    greenlet of its own, `offload` runs work that may block (a disk) outside of the event loop and
    returns when it is done.
    """

    bounded: Bounded | None = None
    spawn: Spawn = in_thread
    offload: Callable[[Callable[[], None]], None] = run_here


class Observer:
    """Observes for one term, and continues from the board's state."""

    def __init__(
        self,
        settings: Settings,
        term: Term,
        board: Board,
        publisher: Publisher,
        saver: Saver,
        runtime: Runtime,
    ) -> None:
        self._settings = settings
        self._term = term
        self._board = board
        self._publisher = publisher
        self._saver = saver
        self._counters = CounterBuffer(board.state.counters)
        self._counters_due = self._save_due = 0.0
        # Not a fault and not None: the first message compares all apps.
        self._compared_fault: Fault | bool | None = False
        self._restarts: Counter[str] = Counter()
        self._stopping = False
        self._lock = threading.RLock()
        self._prober = Prober(self._ask, interval=settings.probe_interval, spawn=runtime.spawn)
        self._watcher = Watcher(
            lambda timeout: Engine(settings, timeout=timeout, bounded=runtime.bounded),
            lambda: board.state.snapshot,
            self.observe,
            handled_to=board.state.engine_time,
            docker_timeout=settings.docker_timeout,
            resync_interval=settings.resync_interval,
        )
        folder = DrainFolder(settings.state_dir, known=board.state.drains)
        self._drains = DrainReader(folder, self._take_drains, runtime.offload)

    def start(self, patience: float) -> None:
        """Begins to observe, and waits for the first list and for the drain marks.

        `patience` is how long to wait for both, in seconds.
        """
        deadline = time.monotonic() + patience
        self.begin()
        self._drains.start()
        if self._settings.probe_url:
            self._prober.start()
        self._watcher.start()
        self._watcher.wait_tried(max(deadline - time.monotonic(), 0))
        self._drains.wait_read(max(deadline - time.monotonic(), 0))

    def begin(self) -> None:
        """Continues from what is known, from another leader or from the state file."""
        with self._lock:
            states = self._board.state.probes.states
            unprobed = [each for each in states if not self._is_probed(each)]
            self._publish(Message(probes=dict.fromkeys(unprobed, GOOD)))
            self._aim(self._board.state.snapshot.apps)
            for app_code, its in self._board.state.probes.states.items():
                if its.needs_pass and self._is_live(app_code):
                    self._prober.ask_soon(app_code)

    def stop(self) -> None:
        """Observes no more; what is under way is not published. Returns at once."""
        self._stopping = True
        self._watcher.stop()
        self._prober.stop()
        self._drains.stop()

    def tick(self) -> None:
        """Publishes what time alone brings: the snapshot is stale, or counters are due."""
        now = time.monotonic()
        with self._lock:
            is_compared = self._board.report().fault == self._compared_fault
            if not is_compared or (now >= self._counters_due and not self._counters.is_empty):
                self._publish(Message())
            if now >= self._save_due and self._board.state.probes.failing:
                self._save()
        self._drains.report_hang()
        self._saver.report_hang()

    def observe(self, observation: Observation) -> None:
        """Takes what the watcher has observed."""
        with self._lock:
            old, started = self._board.state, observation.started
            known = old.snapshot.containers
            containers = {
                each: new for each, new in observation.containers.items() if known.get(each) != new
            }
            snapshot, affected = old.snapshot.updated(containers, old.pattern)
            affected |= self._apps_of(started & snapshot.containers.keys(), snapshot.containers)
            restarts = restarted(old.snapshot, snapshot, affected, started)
            probed = frozenset(filter(self._is_probed, restarts))
            self._restarts.update(probed)
            self._counters.add_events(observation.events)
            message = Message(
                containers=containers,
                confirmed_at=observation.confirmed_at,
                fault=observation.fault if observation.fault != old.snapshot.fault else None,
                probes=dict.fromkeys(probed, RESTARTED) | self._forgotten(affected, snapshot.apps),
                last_probes=self._outdated(
                    each for each in affected if each in probed or not snapshot.live(each)
                ),
            )
            if message.says_something or restarts:
                message = replace(message, engine_time=observation.handled_to)
                self._publish(message, restarts - probed)
            self._aim(affected)
            for app_code in probed:
                self._prober.ask_soon(app_code)

    def announce(self) -> None:
        """Publishes a message that says nothing: followers see that something has happened."""
        with self._lock:
            self._publish(Message())

    def save(self) -> None:
        """Saves what is known, in the background."""
        with self._lock:
            self._save()

    def take_probe(self, app_code: str, last: LastProbe, restarts: int) -> None:
        """Takes what a probe has shown.

        `restarts` is `restarts_of` at the time when the app was asked: what was seen before a
        restart says nothing about the app after it.
        """
        with self._lock:
            if self._stopping or not self._is_live(app_code):
                return
            if self._restarts[app_code] != restarts:
                self._prober.ask_soon(app_code)
                return
            self._counters.add_probe(app_code, last)
            old = self._board.state.probes.of(app_code)
            fall, rise = self._settings.probe_fall, self._settings.probe_rise
            new = after_probe(old, last.seen, fall=fall, rise=rise)
            if new != old:
                self._publish(Message(probes={app_code: new}, last_probes={app_code: last}))
            if new.needs_pass:
                self._prober.ask_again(app_code)

    def restarts_of(self, app_code: str) -> int:
        """How often this observer has seen the app restart."""
        return self._restarts[app_code]

    def _ask(self, app_code: str) -> None:
        url = self._settings.probe_target(app_code)
        if url is None:
            return
        restarts = self.restarts_of(app_code)
        asked_at, began = time.time(), time.monotonic()
        try:
            seen = probe(url, self._settings.probe_timeout)
        except Exception as error:
            log.exception("unexpected error in the probe of %s; continuing", app_code)
            seen = f"{INTERNAL}: {error!r}"
        last = LastProbe(seen, round(asked_at, 3), round(time.monotonic() - began, 6))
        self.take_probe(app_code, last, restarts)

    def _take_drains(self, drains: Drains) -> None:
        with self._lock:
            if drains.marks != self._board.state.drains.marks:
                self._publish(Message(drains=drains))

    def _publish(self, message: Message, unprobed_restarts: Iterable[str] = ()) -> None:
        """Evaluates what a message changes, adds the changes, and publishes it.

        Nothing here waits: no other greenlet sees a part of it.
        """
        if self._stopping or self._term.is_over:
            return
        now = time.monotonic()
        counters_due = now >= self._counters_due
        if counters_due:
            message = self._counters.added_to(message)
            self._counters_due = now + COUNTERS_PAUSE
        old = self._board.state
        state, affected = old.after(message)
        report = self._board.evaluate(state, affected)
        evaluated = report.evaluated | frozenset(unprobed_restarts)
        if report.fault != self._compared_fault:
            self._compared_fault = report.fault
            evaluated |= report.verdicts.keys() | state.history.known.keys()
        new = changelog.compare(report, state.history, evaluated, unprobed_restarts, time.time())
        message = replace(message, found=new.found, changes=tuple(new.changes))
        history = state.history
        if new.changes or new.found is not None:
            history = history.after(new.found, new.changes)
        state = replace(state, history=history, position=old.position + 1)
        self._publisher.publish(message, state)
        self._board.show(state, report)
        if counters_due:
            self._counters.clear(state.counters)
        changelog.write(changelog.engine_line(old.snapshot.fault, state.snapshot.fault))
        changelog.write(new.lines)
        if message.is_worth_saving:
            self._save()

    def _save(self) -> None:
        settings = self._settings
        valid_for = VALID_INTERVALS * max(settings.probe_interval, settings.probe_timeout)
        # Often enough that what is failing is still valid when all processes are killed at once.
        self._save_due = time.monotonic() + valid_for / 3
        self._saver.save(self._board.state, lambda: not self._term.is_over)

    def _aim(self, app_codes: Iterable[str]) -> None:
        for app_code in app_codes:
            is_live = self._is_probed(app_code) and self._is_live(app_code)
            self._prober.set_live(app_code, is_live)

    def _is_live(self, app_code: str) -> bool:
        snapshot = self._board.state.snapshot
        return app_code in snapshot.apps and bool(snapshot.live(app_code))

    def _is_probed(self, app_code: str) -> bool:
        return self._settings.probe_target(app_code) is not None

    def _apps_of(self, ids: Iterable[str], containers: Mapping[str, Container]) -> frozenset[str]:
        pattern = self._board.state.pattern
        return frozenset(
            app_code for each in ids for app_code in pattern.app_codes(containers[each].name)
        )

    def _forgotten(self, affected: Iterable[str], apps: Collection[str]) -> dict[str, ProbeState]:
        """The states of apps that have gone."""
        states = self._board.state.probes.states
        return {each: GOOD for each in affected if each not in apps and each in states}

    def _outdated(self, app_codes: Iterable[str]) -> dict[str, None]:
        """The latest probes that are not to be shown any more."""
        found = [each for each in app_codes if self._counters.is_shown(each)]
        for app_code in found:
            self._counters.drop_probe(app_code)
        return dict.fromkeys(found)
