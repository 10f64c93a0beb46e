"""The prober: asks each app that has a live container, once an interval, whether it answers.

One worker of all asks, the lead; what that means is for all to judge (model/serving). The turns of
the apps are spread over the interval in slots, since waking up costs more than a probe, and lie on
the machine's own clock: another lead goes on where the one before stopped.
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

Spawn = Callable[[Callable[[], None]], object]
"""Runs something beside, in a thread or a greenlet of its own."""


def in_thread(work: Callable[[], None]) -> None:
    """Runs it in a thread. Raises RuntimeError when there can be no more threads."""
    threading.Thread(target=work, daemon=True).start()


class Prober:
    """Calls `ask` with each app that is aimed at once in `interval` seconds, beside all else.

    `ask` must end by itself; an app that is still being asked is not asked again meanwhile.
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
        self._next_slot = 0
        self._soon: dict[str, float] = {}
        self._asking: set[str] = set()
        self._leads = False
        self._stopping = False
        # Held for no longer than it takes to look whose turn it is.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    def start(self) -> None:
        """Begins to ask as soon as this worker leads, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Asks no more. Returns at once."""
        self._stopping = True
        self._wake.set()

    def lead(self) -> None:
        """From now on this worker asks."""
        with self._lock:
            self._leads = True
            self._next_slot = self._slot_at(self._clock()) + 1
        self._wake.set()

    def aim(self, app_code: str, *, is_live: bool) -> None:
        """Says whether an app is to be asked."""
        with self._lock:
            slot = self._slots[zlib.crc32(app_code.encode()) % len(self._slots)]
            if is_live:
                slot.add(app_code)
            else:
                slot.discard(app_code)
                self._soon.pop(app_code, None)

    def ask_soon(self, app_code: str, pause: float = 0.0) -> None:
        """Asks an app out of turn, after so many seconds at most, where this worker leads."""
        if not self._leads:
            return
        with self._lock:
            due = self._clock() + pause
            self._soon[app_code] = min(self._soon.get(app_code, due), due)
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                left = self._ask_due() if self._leads else LONGEST_SLEEP
            except Exception:
                log.exception("the prober stumbled; it goes on")
                left = 1.0
            self._wake.wait(left)

    def _ask_due(self) -> float:
        """Asks the apps that are due, and returns how long until the next, in seconds."""
        now = self._clock()
        for app_code in self._take_due(now):
            self._spawn_for(app_code)
        with self._lock:
            soon = [at for app_code, at in self._soon.items() if app_code not in self._asking]
            return max(min([self._next_slot * self._slot_length, *soon]) - now, 0)

    def _take_due(self, now: float) -> set[str]:
        with self._lock:
            current = self._slot_at(now)
            # Whoever was late asks each app once, not once for each turn missed.
            first = max(self._next_slot, current - len(self._slots) + 1)
            due: set[str] = set()
            for number in range(first, current + 1):
                due |= self._slots[number % len(self._slots)]
            self._next_slot = current + 1
            due |= {app_code for app_code, at in self._soon.items() if at <= now}
            # Whoever is being asked out of turn while a probe is under way is asked after that.
            due -= self._asking
            for app_code in due:
                self._soon.pop(app_code, None)
            self._asking |= due
            return due

    def _spawn_for(self, app_code: str) -> None:
        def work() -> None:
            try:
                self._ask(app_code)
            except Exception:
                log.exception("the probe of %s stumbled", app_code)
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
