"""Which apps have come back, as one worker sees it, and whether others have told of it already.

Workers hear of the same start at different moments, and of some only by a list. Who hears first
tells; the others must see that it is the same, or a healthy app would have to prove itself again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from container_healthcheck.model.serving import Serving
from container_healthcheck.model.snapshot import Snapshot

MOST_GONE = 10_000


@dataclass(frozen=True, slots=True)
class Return:
    """An app that has come back. `cause` as in Returned.

    `gone_at` is the number of records read when this worker saw it without a live container, None
    when it never did.
    """

    app_code: str
    cause: str
    gone_at: int | None


class Returns:
    """Compares each snapshot with the one before."""

    def __init__(self) -> None:
        self.live: dict[str, frozenset[str]] = {}
        self._causes: dict[str, str] = {}
        self._gone_at: dict[str, int] = {}
        self._least_gone_at = 0
        self._knows_start = False

    def observe(
        self,
        snapshot: Snapshot,
        touched: Iterable[str],
        started: Mapping[str, str],
        number: int,
    ) -> list[Return]:
        """The apps that have come back with this snapshot, in which the `touched` ones are new.

        `started` are the containers that were started since the last one, with the cause; `number`
        is how many records this worker has read. Apps of the first confirmed snapshot have not come
        back: they were there.
        """
        if snapshot.confirmed_at is None:
            return []
        self._causes.update(started)
        if len(self._causes) > MOST_GONE:
            self._causes = {each: self._causes[each] for each in started}
        if not self._knows_start:
            self._knows_start = True
            self._least_gone_at = number
            self.live = {each: ids for each in snapshot.apps if (ids := snapshot.live(each))}
            return []
        found = (self._compare(app_code, snapshot, started, number) for app_code in touched)
        return [each for each in found if each is not None]

    def is_news(self, each: Return, serving: Serving) -> bool:
        """False when another worker has told of this return."""
        told = serving.app(each.app_code)
        if each.cause and each.cause == told.cause:
            return False
        # Told of after this worker saw the app gone: then it is this return.
        return each.gone_at is None or told.returned <= each.gone_at

    def _compare(
        self, app_code: str, snapshot: Snapshot, started: Mapping[str, str], number: int
    ) -> Return | None:
        live = snapshot.live(app_code) if app_code in snapshot.apps else frozenset()
        before = self.live.pop(app_code, None)
        if not live:
            if before is not None:
                self._note_gone(app_code, number)
            return None
        self.live[app_code] = live
        if before is not None and before & live - started.keys():
            return None
        # A list may show a start later than its event came. Once told, a cause is used up.
        cause = max((self._causes.pop(each, "") for each in live), default="")
        gone_at = None
        if before is None:
            gone_at = self._gone_at.pop(app_code, self._least_gone_at)
        return Return(app_code, cause, gone_at)

    def _note_gone(self, app_code: str, number: int) -> None:
        self._gone_at[app_code] = number
        if len(self._gone_at) > MOST_GONE:
            # The oldest is forgotten, and with it that anything before its end may be news.
            oldest = next(iter(self._gone_at))
            self._least_gone_at = max(self._least_gone_at, self._gone_at.pop(oldest))
