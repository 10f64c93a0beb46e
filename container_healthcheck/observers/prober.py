"""The prober: asks each app that has a live container, once an interval, whether it answers.

The turns of the apps are spread over the interval in slots, since waking up costs more than a
probe, and follow the machine's own clock: another leader continues where the one before stopped.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable

log = logging.getLogger(__name__)

MOST_SLOTS = 10
SHORTEST_SLOT = 0.1
LONGEST_SLEEP = 60.0
# An app that needs a pass is asked this often until it answers, in seconds, if the interval is not
# shorter.
RETRY_INTERVAL = 1.0
# So many apps that are to be asked out of turn are asked at once, the others a slot later: on a
# host that boots all of them restart together.
MOST_AT_ONCE = 20

Spawn = Callable[[Callable[[], None]], object]
"""Runs something in a thread or a greenlet of its own."""


def in_thread(work: Callable[[], None]) -> None:
    """Runs it in a thread. Raises RuntimeError when there can be no more threads."""
    threading.Thread(target=work, daemon=True).start()


class Prober:
    """Calls `ask` once an interval for each app that is live, in threads of their own.

    `ask` must end by itself; an app that is still being asked is not asked again meanwhile. Times
    are in seconds.
    """

    def __init__(
        self,
        ask: Callable[[str], None],
        *,
        interval: float,
        spawn: Spawn = in_thread,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._spawn = spawn
        self._clock = clock
        self._slots: list[set[str]] = [
            set() for _ in range(max(1, min(MOST_SLOTS, int(interval / SHORTEST_SLOT))))
        ]
        self._slot_length = interval / len(self._slots)
        self._next_slot = self._slot_at(clock()) + 1
        self._retry_interval = min(RETRY_INTERVAL, interval)
        self._soon: dict[str, float] = {}
        self._batch_began_at, self._batch_left = 0.0, 0
        self._asking: set[str] = set()
        self._sleeps_until = 0.0
        self._stopping = False
        # Held for no longer than it takes to see whose turn it is.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    def start(self) -> None:
        """Begins to ask, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Asks no more. Returns at once."""
        self._stopping = True
        self._wake.set()

    def set_live(self, app_code: str, is_live: bool) -> None:
        """Says whether an app is to be asked."""
        with self._lock:
            slot = self._slots[zlib.crc32(app_code.encode()) % len(self._slots)]
            if is_live:
                slot.add(app_code)
            else:
                slot.discard(app_code)
                self._soon.pop(app_code, None)

    def ask_soon(self, app_code: str) -> None:
        """Asks an app out of turn, as soon as possible."""
        self._ask_at(app_code, self._clock())

    def ask_again(self, app_code: str) -> None:
        """Asks an app out of turn, within the retry interval; many apps are spread over it."""
        now, interval = self._clock(), self._retry_interval
        slot = zlib.crc32(app_code.encode()) % MOST_SLOTS * interval / MOST_SLOTS
        self._ask_at(app_code, now + interval - (now - slot) % interval)

    def _ask_at(self, app_code: str, at: float) -> None:
        with self._lock:
            self._soon[app_code] = min(self._soon.get(app_code, at), at)
            if at < self._sleeps_until:
                self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                left = self._ask_due()
            except Exception:
                log.exception("unexpected error in the prober; continuing")
                left = 1.0
            self._wake.wait(left)

    def _ask_due(self) -> float:
        """Asks the apps that are due, and returns how long until the next, in seconds."""
        now = self._clock()
        for app_code in self._take_due(now):
            self._spawn_for(app_code)
        with self._lock:
            soon = [at for app_code, at in self._soon.items() if app_code not in self._asking]
            earliest = 0.0 if self._batch_left else self._batch_began_at + SHORTEST_SLOT
            self._sleeps_until = min(
                [self._next_slot * self._slot_length, *(max(at, earliest) for at in soon)]
            )
            return max(self._sleeps_until - now, 0)

    def _take_due(self, now: float) -> set[str]:
        with self._lock:
            current = self._slot_at(now)
            # A prober that was late asks each app once, not once for each turn missed.
            first = max(self._next_slot, current - len(self._slots) + 1)
            due: set[str] = set()
            for number in range(first, current + 1):
                due |= self._slots[number % len(self._slots)]
            self._next_slot = current + 1
            # One that is to be asked out of turn has no other turn as well.
            due -= self._soon.keys()
            # One that is being asked is asked out of turn once that probe has ended.
            due -= self._asking
            due.update(self._take_batch(now))
            for app_code in due:
                self._soon.pop(app_code, None)
            self._asking |= due
            return due

    def _take_batch(self, now: float) -> list[str]:
        """Apps that are to be asked out of turn now.

        However often the prober wakes up, it takes no more than MOST_AT_ONCE in one slot's time.
        """
        if now - self._batch_began_at >= SHORTEST_SLOT:
            self._batch_began_at, self._batch_left = now, MOST_AT_ONCE
        ready = ((at, each) for each, at in self._soon.items() if each not in self._asking)
        batch = [each for at, each in sorted(ready) if at <= now][: self._batch_left]
        self._batch_left -= len(batch)
        return batch

    def _spawn_for(self, app_code: str) -> None:
        def work() -> None:
            try:
                self._ask(app_code)
            except Exception:
                log.exception("unexpected error in the probe of %s; continuing", app_code)
            finally:
                self._has_ended(app_code)

        try:
            self._spawn(work)
        except RuntimeError:
            log.exception("no thread for the probe of %s; it is tried in its next turn", app_code)
            self._has_ended(app_code)

    def _has_ended(self, app_code: str) -> None:
        with self._lock:
            self._asking.discard(app_code)
            if app_code in self._soon:
                self._wake.set()

    def _slot_at(self, now: float) -> int:
        return int(now / self._slot_length)
