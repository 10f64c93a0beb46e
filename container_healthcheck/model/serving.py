"""Which apps must not be called healthy, by what their probes saw: a state machine fed by records.

Every worker feeds its own with the same records in the same order, so all of them judge alike. An
app that has come back waits for a pass that was asked for after that; `fall` failures in a row make
an app fail, `rise` passes in a row make it serve again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from container_healthcheck.model.records import Probed, Returned

UNASKED = "it has just started and was not asked yet"


@dataclass(frozen=True, slots=True)
class App:
    """What is known of one app.

    `awaited` from its return until it serves, `down` from the failure that counts until it serves;
    `failures` and `passes` in a row; `returned` the number of its last return, `cause` what that
    was. `at` is when it was last heard of, in seconds since the boot.
    """

    awaited: bool = False
    down: bool = False
    failures: int = 0
    passes: int = 0
    seen: str = ""
    returned: int = 0
    cause: str = ""
    at: float = 0.0

    @property
    def is_failing(self) -> bool:
        """True when it must not be called healthy."""
        return self.awaited or self.down


_UNKNOWN = App()


class Serving:
    """The apps that something has happened to.

    `failing` is replaced, never changed; `revision` counts the changes.
    """

    def __init__(self, *, fall: int, rise: int) -> None:
        self._fall = fall
        self._rise = rise
        self.apps: dict[str, App] = {}
        self.failing: Mapping[str, str] = {}
        self.revision = 0

    def app(self, app_code: str) -> App:
        """What is known of an app; nothing, when nothing has happened to it."""
        return self.apps.get(app_code, _UNKNOWN)

    def would_change(self, record: Probed) -> bool:
        """False for a probe that says what is known already: nobody needs to hear of it."""
        known = self.app(record.app_code)
        return self._after_probe(known, record) != known

    def returned(self, record: Returned, number: int) -> None:
        """An app has come back; `number` is the record's place in the order."""
        self._set(
            record.app_code,
            App(awaited=True, seen=UNASKED, returned=number, cause=record.cause, at=record.at),
        )

    def probed(self, record: Probed) -> None:
        """A probe has ended. One that was asked for before the app's return says nothing."""
        known = self.app(record.app_code)
        self._set(record.app_code, self._after_probe(known, record))

    def forget(self, since: float, until: float, returned_since: int) -> None:
        """Drops what counts no more.

        That are failures last heard of outside of this time (in seconds since the boot), and apps
        that serve and had returned before that record.
        """
        self._replace(
            {
                app_code: app
                for app_code, app in self.apps.items()
                if (since <= app.at <= until if app.is_failing else app.returned >= returned_since)
            }
        )

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {
            app_code: {name: getattr(app, name) for name in App.__slots__}
            for app_code, app in self.apps.items()
        }

    def restore(self, value: Mapping[str, Any]) -> None:
        """Puts what `to_json` gave in place of what is known. Raises ValueError for anything else.

        When it raises, nothing has changed.
        """
        try:
            apps = {str(app_code): _checked(App(**fields)) for app_code, fields in value.items()}
        except (AttributeError, TypeError) as error:
            raise ValueError(f"not what was known of apps: {error}") from error
        self._replace(apps)

    def _replace(self, apps: dict[str, App]) -> None:
        self.apps = apps
        self.failing = {code: app.seen for code, app in apps.items() if app.is_failing}
        self.revision += 1

    def _after_probe(self, app: App, record: Probed) -> App:
        if record.after < app.returned:
            return app
        if record.seen is not None:
            failures = min(app.failures + 1, self._fall)
            return replace(
                app,
                failures=failures,
                passes=0,
                down=app.down or failures >= self._fall,
                seen=record.seen,
                at=record.at,
            )
        passes = app.passes + 1 if app.is_failing else 0
        if app.is_failing and passes < self._rise:
            return replace(app, failures=0, passes=passes, at=record.at)
        # `at` stays where it is: a pass of an app that serves is no news.
        return replace(app, awaited=False, down=False, failures=0, passes=0, seen="")

    def _set(self, app_code: str, app: App) -> None:
        old = self.app(app_code)
        self.apps[app_code] = app
        self.revision += old != app
        if app.is_failing and (not old.is_failing or old.seen != app.seen):
            self.failing = {**self.failing, app_code: app.seen}
        elif old.is_failing and not app.is_failing:
            self.failing = {code: seen for code, seen in self.failing.items() if code != app_code}


def _checked(app: App) -> App:
    for name in App.__slots__:
        value, default = getattr(app, name), getattr(_UNKNOWN, name)
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if type(value) not in kinds:
            raise ValueError(f"{name} is {value!r}")
    return app
