"""The monitor of one worker process: wires what is seen to what is answered.

In production its threads are greenlets of one worker (gevent patches the standard library): the
watcher's and its stream's, the prober's, one for each probe under way, and the loop in here. They
change places only where they wait, for a socket, a lock or the clock. The tests run them as
threads.

Locks are taken in this order: the monitor's, then the ledger's (between processes), the board's or
the prober's. Checks take none of them, but for the board's when a report has to be made.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from container_healthcheck.board import Board
from container_healthcheck.chronicle import Chronicle
from container_healthcheck.held_back import HeldBack
from container_healthcheck.journal import Journal
from container_healthcheck.model.probes import INTERNAL, LastProbe
from container_healthcheck.model.records import Probed
from container_healthcheck.model.returns import Returns
from container_healthcheck.model.serving import UNASKED, Serving
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.observers.archive import Archive
from container_healthcheck.observers.attempts import Attempts
from container_healthcheck.observers.drain_folder import DrainFolder
from container_healthcheck.observers.engine import Bounded, Engine
from container_healthcheck.observers.ledger import Ledger
from container_healthcheck.observers.probe import probe
from container_healthcheck.observers.prober import Prober, Spawn, in_thread
from container_healthcheck.observers.replica import Replica, since_boot
from container_healthcheck.observers.sheet import Sheet
from container_healthcheck.observers.watcher import Watcher
from container_healthcheck.settings import Settings

log = logging.getLogger(__name__)

# Gunicorn ends a worker that is not up after 30 s. In seconds.
LONGEST_START = 10.0
# How often others' records, marks and the snapshot's age are looked at, in seconds: while somebody
# waits for a change, and otherwise. Waking up is what an idle worker's time goes into.
LOOK_PAUSE, IDLE_PAUSE = 0.05, 0.2
# An app that has come back is asked this often until it answers, in seconds.
RETURNING_INTERVAL = 1.0
# How many intervals what a probe saw counts for a successor of this service. An app that hangs is
# asked less often: whenever its probe has run out of time.
VALID_INTERVALS = 3


class Shared(NamedTuple):
    """What the workers of one master share: descriptors of two files, and who leads."""

    ledger: int
    sheet: int
    is_lead: Callable[[], bool]


class Monitor:
    """Watches and probes in the background; the board answers from memory.

    `bounded` limits the time of a whole question to the engine, `spawn` runs a probe beside the
    others.
    """

    def __init__(
        self,
        settings: Settings,
        shared: Shared,
        *,
        bounded: Bounded | None = None,
        spawn: Spawn = in_thread,
    ) -> None:
        self._settings = settings
        self._is_lead = shared.is_lead
        sheet = Sheet(shared.sheet)
        self._replica = Replica(
            Ledger(shared.ledger),
            Serving(fall=settings.probe_fall, rise=settings.probe_rise),
            {
                kind: Archive(settings.state_dir, kind, str(settings.bind))
                for kind in ("serving", "history")
            },
            valid_for=VALID_INTERVALS * max(settings.probe_interval, settings.probe_timeout),
            is_probed=self._is_probed,
        )
        self.board = Board(
            DrainFolder(settings.state_dir).current,
            stale_after=settings.stale_after,
            history=self._replica.history,
            observed=sheet.read,
            catch_up=self.look,
        )
        self._journal = Journal(self._replica.history)
        self._prober = Prober(self._ask, interval=settings.probe_interval, spawn=spawn)
        self._watcher = Watcher(
            lambda timeout: Engine(settings, timeout=timeout, bounded=bounded),
            self.on_snapshot,
            pattern=settings.name_pattern,
            docker_timeout=settings.docker_timeout,
            resync_interval=settings.resync_interval,
        )
        self._chronicle = Chronicle(
            self._journal, self._replica, sheet, lambda: self._watcher.events
        )
        self._returns = Returns()
        self._held_back = HeldBack(self._replica, self._returns)
        self._snapshot = Snapshot()
        self._leads = False
        self._attempt = Attempts().attempt
        self._stopping = False
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Begins to observe, and waits (not long) for the first snapshot.

        So a worker that has just started does not refuse apps that are healthy, and does not call
        healthy what others know to be failing.
        """
        self.open()
        self._prober.start()
        self._watcher.start()
        self._watcher.wait_tried(min(2 * self._settings.docker_timeout, LONGEST_START))
        self._thread.start()

    @property
    def number(self) -> int:
        """How many records this worker has read."""
        return self._replica.number

    def open(self) -> None:
        """Learns what other workers know, or what a service before this one has kept."""
        with self._lock:
            self._attempt("read", self._replica.read)
            self._publish(frozenset(self._replica.serving.failing))

    def stop(self) -> None:
        """Ends the observers and all waiting clients, and keeps what is known.

        Called again it keeps nothing: another worker may have written since.
        """
        self._stopping = True
        self._watcher.stop()
        self._prober.stop()
        self.board.close()
        with self._lock:
            if self._leads:
                self._attempt("keep", lambda: self._replica.keep(at_once=True))
                self._attempt("show", lambda: self._chronicle.show(at_once=True))
                self._leads = False

    def on_snapshot(
        self, snapshot: Snapshot, touched: frozenset[str], started: Mapping[str, str]
    ) -> None:
        """Takes the watcher's newest snapshot, in which the `touched` apps are new.

        An app that has come back is held back before it can be answered from this snapshot.
        """
        with self._lock:
            self._snapshot = snapshot
            returns = self._returns.observe(snapshot, touched, started, self._replica.number)
            for app_code in touched:
                self._aim(app_code)
            self._held_back.add(each for each in returns if self._is_probed(each.app_code))
            self._publish(touched | self._tell_returns())
            self._look_after()
        self._journal.write()

    def _run(self) -> None:
        while not self._stopping:
            time.sleep(LOOK_PAUSE if self.board.waiting_clients else IDLE_PAUSE)
            try:
                self.look()
            except Exception:
                log.exception("the monitor stumbled; it goes on")

    def look(self) -> None:
        """Takes what the other workers have told, and what nobody tells: marks, and age."""
        with self._lock:
            self._publish_if(self._attempt("read", self._replica.read) | self._tell_returns())
            self._look_after()
        self._journal.write()

    def _look_after(self) -> None:
        """What follows from a new report, whoever made it."""
        self._chronicle.judged(self.board.look())
        report = self.board.report()
        # Whoever is stopping has left the lead to another.
        leads = not self._stopping and self._is_lead()
        self._journal.note_engine(report, silently=not leads)
        if not leads:
            self._chronicle.leave_to_lead()
            return
        if not self._leads:
            self._begin_to_lead()
        told = self._attempt("tell", lambda: self._chronicle.tell(self.board.report()))
        self._publish_if(told | self._attempt("keep", self._replica.keep))
        self._attempt("show", self._chronicle.show)

    def _begin_to_lead(self) -> None:
        self._leads = True
        self._chronicle.begin(self.board.report(), self._returns.live)
        if self._settings.probe_url:
            self._prober.lead()
            self._ask_soon(self._replica.serving.failing)

    def _aim(self, app_code: str) -> None:
        is_live = app_code in self._returns.live and self._is_probed(app_code)
        self._prober.aim(app_code, is_live=is_live)
        if not is_live:
            self._chronicle.forget(app_code)

    def _is_probed(self, app_code: str) -> bool:
        return self._settings.probe_target(app_code) is not None

    def _tell_returns(self) -> frozenset[str]:
        held_back = self._held_back.apps
        if not held_back:
            return held_back
        return held_back | self._attempt("return", self._held_back.tell)

    def _ask(self, app_code: str) -> None:
        url = self._settings.probe_target(app_code)
        if url is None:
            return
        after = self._replica.number
        asked_at, began = time.time(), time.monotonic()
        try:
            seen = probe(url, self._settings.probe_timeout)
        except Exception as error:
            log.exception("the probe of %s stumbled", app_code)
            seen = f"{INTERNAL}: {error!r}"
        last = LastProbe(seen, round(asked_at, 3), round(time.monotonic() - began, 6))
        with self._lock:
            if app_code in self._returns.live:
                self._chronicle.probed(app_code, last)
        self.take_probe(Probed(app_code, seen, after, since_boot()))

    def take_probe(self, record: Probed) -> None:
        """Takes what a probe saw. What it saw of an app that has died meanwhile is no news."""
        serving = self._replica.serving
        with self._lock:
            if record.app_code not in self._returns.live:
                return
            if serving.would_change(record):
                told = self._attempt("probe", lambda: self._replica.tell(lambda: [record]))
                self._publish_if(told)
                self._look_after()
            elif serving.app(record.app_code).awaited:
                # It came back while it was being asked.
                self._prober.ask_soon(record.app_code)
        self._journal.write()

    def _ask_soon(self, app_codes: Iterable[str]) -> None:
        """Asks those of these apps that are awaited, for the first time or once more."""
        for app_code in app_codes:
            app = self._replica.serving.app(app_code)
            if app.awaited and app_code in self._returns.live:
                again = min(RETURNING_INTERVAL, self._settings.probe_interval)
                self._prober.ask_soon(app_code, 0 if app.seen == UNASKED else again)

    def _publish_if(self, touched: frozenset[str]) -> None:
        if touched:
            self._publish(touched)

    def _publish(self, touched: frozenset[str]) -> None:
        news = self.board.publish(self._snapshot, self._held_back.failing, touched)
        self._chronicle.judged(news)
        self._ask_soon(touched)
