"""The replica: this worker's copy of what all workers know, fed from the ledger.

Only records change it, in the ledger's order, so that all workers draw the same conclusions. What
this worker has to tell goes into the ledger first and comes back from there. The lead also keeps it
in the archive. Whoever calls holds the monitor's lock.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from container_healthcheck.model.history import History
from container_healthcheck.model.records import (
    Changed,
    Probed,
    Record,
    Restored,
    Returned,
)
from container_healthcheck.model.serving import Serving
from container_healthcheck.observers.archive import Archive, ArchiveError
from container_healthcheck.observers.ledger import LARGEST, Ledger

log = logging.getLogger(__name__)

# How often the history is kept at most, in seconds. What is lost when all processes are killed at
# once is found again at the start, by comparing.
HISTORY_PAUSE = 1.0
_MEANING = {"serving": "what the probes saw", "history": "since when apps are what they are"}
_PRESUMED_GOOD = "apps are presumed good until they are asked"
# Of how many of the last records all returns are remembered, so that no worker tells of one again.
REMEMBERED = 10_000


def since_boot() -> float:
    """Seconds since the boot, on a clock that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Replica:
    """What all workers know.

    `valid_for` is how long what a probe saw counts, in seconds; of what a predecessor saw, only the
    apps that are still probed count.
    """

    def __init__(
        self,
        ledger: Ledger,
        serving: Serving,
        archives: Mapping[str, Archive],
        *,
        valid_for: float,
        is_probed: Callable[[str], bool],
    ) -> None:
        self.serving = serving
        self.history = History()
        self.number = 0
        self._ledger = ledger
        self._archives = archives
        self._valid_for = valid_for
        self._is_probed = is_probed
        self._kept = {"serving": 0, "history": 0}
        self._history_due = 0.0
        self._shortened_to = 0
        self._unsaved: set[str] = set()

    def read(self) -> frozenset[str]:
        """Takes what others have told; returns the apps whose failing may have changed.

        The first worker of all begins the ledger with what a service before this one has kept.
        Raises FileBusyError, or OSError where there is no room in the ledger.
        """
        if not self._ledger.has_news() and not self._ledger.is_empty:
            return frozenset()
        with self._ledger.locked():
            return self._read()

    def tell(self, records: Callable[[], Iterable[Record]]) -> frozenset[str]:
        """Adds records, made when all that others have told is read. Returns what `read` does.

        Raises FileBusyError, or OSError where there is no room in the ledger.
        """
        with self._ledger.locked():
            touched = self._read()
            if told := list(records()):
                self._ledger.append(told)
                touched |= self._read()
        return touched

    def keep(self, *, at_once: bool = False) -> frozenset[str]:
        """Saves what has changed, and keeps the ledger short; for the lead.

        The history may wait a moment for the next call, but for `at_once`.

        Returns and raises what `tell` does.
        """
        touched = self._shorten()
        if self.serving.revision != self._kept["serving"]:
            known = {"number": self.number, "apps": self.serving.to_json()}
            self._save("serving", known, self.serving.revision)
        now = time.monotonic()
        if self.history.revision != self._kept["history"] and (at_once or now >= self._history_due):
            self._history_due = now + HISTORY_PAUSE
            self._save("history", self.history.to_json(), self.history.revision)
        return touched

    def _shorten(self) -> frozenset[str]:
        if self._ledger.size <= max(LARGEST, 2 * self._shortened_to):
            return frozenset()
        with self._ledger.locked():
            touched = self._read()
            now = since_boot()
            self.serving.forget(now - self._valid_for, now, self.number - REMEMBERED)
            self._ledger.write_anew(
                Restored(self.number, self.serving.to_json(), self.history.to_json())
            )
            self._shortened_to = self._ledger.size
            return touched | self._read()

    def _save(self, kind: str, known: Any, revision: int) -> None:
        # Tried again with the next change, not before: a full disk stays full for a while.
        self._kept[kind] = revision
        try:
            self._archives[kind].save(known)
        except ArchiveError as error:
            if kind not in self._unsaved:
                log.warning(
                    "%s: %s does not outlive this service; make that folder, let it write there, or"
                    " make room",
                    error,
                    _MEANING[kind],
                )
            self._unsaved.add(kind)
        else:
            self._unsaved.discard(kind)

    @functools.cached_property
    def _kept_before(self) -> Restored:
        serving, history, numbers = Serving(fall=1, rise=1), History(), [0]

        def take_serving(known: Any) -> None:
            serving.restore(known["apps"])
            numbers[0] = int(known["number"])
            failing = serving.failing
            now = since_boot()
            serving.forget(now - self._valid_for, now, numbers[0] + 1)
            self._say_too_old(failing.keys() - serving.failing.keys())
            apps = serving.to_json()
            serving.restore({each: apps[each] for each in apps if self._is_probed(each)})

        def take_history(known: Any) -> None:
            history.restore(known)
            history.has_begun = False

        self._load_one("serving", take_serving, _PRESUMED_GOOD)
        self._load_one("history", take_history, "since when apps are what they are is not known")
        return Restored(numbers[0], serving.to_json(), history.to_json())

    def _say_too_old(self, app_codes: Iterable[str]) -> None:
        if probed := sorted(filter(self._is_probed, app_codes)):
            log.warning(
                "%s tells nothing of the last %g s about %.200s: %s",
                self._archives["serving"].path,
                self._valid_for,
                ", ".join(probed),
                _PRESUMED_GOOD,
            )

    def _load_one(self, kind: str, take: Callable[[Any], None], so: str) -> None:
        archive = self._archives[kind]
        try:
            if (known := archive.load()) is not None:
                take(known)
        except ArchiveError as error:
            log.warning("%s: %s", error, so)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            log.warning("%s cannot be used: %.200r: %s", archive.path, error, so)

    def _read(self) -> frozenset[str]:
        if self._ledger.is_empty:
            self._ledger.append([self._kept_before])
        touched: set[str] = set()
        for record in self._ledger.read():
            self.number += 1
            if isinstance(record, Restored):
                touched.update(self.serving.failing)
                self.number = record.number
                self.serving.restore(record.serving)
                self.history.restore(record.history)
                touched.update(self.serving.failing)
            elif isinstance(record, Returned):
                self.serving.returned(record, self.number)
                touched.add(record.app_code)
            elif isinstance(record, Probed):
                self.serving.probed(record)
                touched.add(record.app_code)
            elif isinstance(record, Changed):
                self.history.changed(record)
            else:
                self.history.found(record)
        return frozenset(touched)
