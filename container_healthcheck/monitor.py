"""The monitor: one worker's part. It follows the leader, or becomes the leader and observes.

Whichever it does, the board answers from the same host state.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import replace

from container_healthcheck.board import Board
from container_healthcheck.model.counters import Counters
from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.message import MalformedMessageError
from container_healthcheck.model.probe_state import ProbeStates
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.observer import VALID_INTERVALS, Observer, Runtime
from container_healthcheck.relay.follower import follow
from container_healthcheck.relay.leadership import LEASE, Leadership, Term
from container_healthcheck.relay.publisher import Publisher
from container_healthcheck.relay.shared import SharedMemory, first_position
from container_healthcheck.settings import Settings
from container_healthcheck.storage.saver import Saver
from container_healthcheck.storage.state_file import Saved, StateFile, StateFileError

log = logging.getLogger(__name__)

# How long a worker that has just started waits until it can answer, in seconds: gunicorn ends one
# that takes longer than its own time-out. A snapshot from the state file can be answered from.
LONGEST_START, SHORT_START = 5.0, 1.0
# How long a disk may take to read the state file, in seconds.
DISK_PATIENCE = 2.0
# How long a leader that is being replaced waits for its successor, in seconds.
HANDOVER = 2.0
# How often the leader ticks, and a worker without a leader looks for one, in seconds.
TICK, SEARCH = 0.2, 0.02


class Monitor:
    """Keeps this worker's board up to date, in a thread of its own."""

    def __init__(
        self, settings: Settings, shared: SharedMemory, runtime: Runtime | None = None
    ) -> None:
        self._settings = settings
        self._shared = shared
        self._runtime = runtime or Runtime()
        self.board = Board(
            HostState(settings.name_pattern),
            stale_after=settings.stale_after,
            latest=lambda: shared.position,
        )
        self._leadership = Leadership(shared)
        self._file = StateFile(settings.state_dir, str(settings.bind))
        self._saver = Saver(self._file, self._runtime.offload)
        self._reloads = shared.reloads
        self._leads = False
        self._is_ready = threading.Event()
        self._is_stopping = False
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    @property
    def leads(self) -> bool:
        """True while this worker is the leader."""
        return self._leads

    def start(self) -> None:
        """Begins, and waits (not long) until this worker can answer.

        So a worker that has just started does not refuse apps that are healthy, and does not call
        healthy what others know to be failing.
        """
        self._thread.start()
        self._is_ready.wait(LONGEST_START)

    def stop(self) -> None:
        """Ends all waiting clients; another worker is to lead. Returns at once.

        Until `end` this worker still answers, from what it observes or receives.
        """
        self._is_stopping = True
        self.board.close()

    def end(self) -> None:
        """Ends this worker's part, once a leader has handed over and has saved what is known."""
        self.stop()
        if self._leads and self._shared.reloads != self._reloads:
            # The master is replacing all workers: one of the new ones is to become the leader.
            deadline = time.monotonic() + HANDOVER
            while self._leads and time.monotonic() < deadline:
                time.sleep(SEARCH)
        self._has_ended.set()
        if self._leads:
            self._thread.join(SHORT_START)
        self._saver.flush(SHORT_START)

    def _run(self) -> None:
        while not self._has_ended.is_set():
            try:
                self._follow_or_lead()
            except MalformedMessageError as error:
                log.warning("the leader sends what cannot be used: %s; connecting again", error)
                self._has_ended.wait(TICK)
            except Exception:
                log.exception("unexpected error in the monitor; continuing")
                self._has_ended.wait(TICK)

    def _follow_or_lead(self) -> None:
        # Read first: should the next term begin meanwhile, this one is over at once.
        present = self._shared.term
        if not self._should_succeed() and (connection := self._leadership.connect()) is not None:
            self._follow(connection, present)
        elif not self._is_stopping and (term := self._leadership.stand(self._position)) is not None:
            self._lead(term)
        else:
            self._has_ended.wait(SEARCH)

    @property
    def _position(self) -> int:
        return self.board.state.position

    def _should_succeed(self) -> bool:
        """True when the leader has resigned and this worker knows all that it has published."""
        is_current = self._position >= self._shared.position
        return self._shared.is_resigned and is_current and not self._is_stopping

    # --- following

    def _follow(self, connection: socket.socket, term: int) -> None:
        def is_over() -> bool:
            is_alive = self._shared.term == term and self._shared.silence < LEASE
            return not is_alive or self._has_ended.is_set() or self._should_succeed()

        with connection:
            follow(connection, self._settings.name_pattern, self._show, is_over)

    def _show(self, state: HostState, affected: frozenset[str] | None) -> None:
        self.board.publish(state, affected)
        # At the first start the leader may be waiting for its first list.
        if state.snapshot.confirmed_at is not None or state.snapshot.fault is not None:
            self._is_ready.set()

    # --- leading

    def _lead(self, term: Term) -> None:
        if term.number > 1:
            log.info("this worker is the leader now")
        state = self.board.state if self._position else self._saved_state()
        state = replace(state, position=first_position(term.number))
        self.board.publish(state, None)
        publisher = Publisher(term, self._shared, state)
        observer = Observer(self._settings, term, self.board, publisher, self._saver, self._runtime)
        self._leads = True
        try:
            publisher.start()
            self._observe(observer, term)
        finally:
            observer.stop()
            publisher.close()
            self._leads = False

    def _observe(self, observer: Observer, term: Term) -> None:
        begun = threading.Thread(target=self._begin, args=(observer,), daemon=True)
        begun.start()
        has_resigned = False
        while not (term.is_over or self._has_ended.is_set()):
            self._shared.beat()
            try:
                observer.tick()
            except Exception:
                log.exception("unexpected error in the observer; continuing")
            if self._is_stopping and not has_resigned:
                has_resigned = True
                self._shared.resign(term.number)
                observer.announce()
            self._has_ended.wait(SEARCH if self._is_stopping else TICK)
        observer.save()

    def _begin(self, observer: Observer) -> None:
        knows = self.board.state.snapshot.confirmed_at is not None
        longest = min(2 * self._settings.docker_timeout, LONGEST_START)
        try:
            observer.start(SHORT_START if knows else longest)
        finally:
            self._is_ready.set()

    def _saved_state(self) -> HostState:
        """What the state file holds and is still valid."""
        saved = self._load()
        empty = HostState(self._settings.name_pattern)
        if saved is None:
            return empty
        state = replace(saved.state, counters=Counters())
        if saved.saved_at is None:
            log.info("%s: only the history counts", saved.why)
            return state
        now = time.monotonic()
        confirmed_at = state.snapshot.confirmed_at
        if confirmed_at is None or not 0 <= now - confirmed_at < self._settings.stale_after:
            state = replace(state, snapshot=Snapshot(), engine_time=0)
        settings = self._settings
        valid_for = VALID_INTERVALS * max(settings.probe_interval, settings.probe_timeout)
        if now - saved.saved_at >= valid_for:
            self._report_outdated(state.probes, valid_for)
            state = replace(state, probes=ProbeStates())
        return state

    def _report_outdated(self, probes: ProbeStates, valid_for: float) -> None:
        failing = filter(self._settings.probe_target, sorted(probes.failing))
        if app_codes := ", ".join(failing):
            log.warning(
                "%s says nothing about the last %g s of %.200s: presumed healthy until probed",
                self._file.path,
                valid_for,
                app_codes,
            )

    def _load(self) -> Saved | None:
        found: list[Saved | None] = []

        def load() -> None:
            try:
                found.append(self._file.load(self._settings.name_pattern))
            except StateFileError as error:
                found.append(None)
                log.warning("%s: apps are presumed healthy until they are probed", error)

        # The disk may hang, and then the start must not.
        loading = threading.Thread(
            target=lambda: self._runtime.offload(load), name="state file", daemon=True
        )
        loading.start()
        loading.join(DISK_PATIENCE)
        if not found:
            log.warning("%s cannot be read: the disk does not answer", self._file.path)
            return None
        return found[0]
