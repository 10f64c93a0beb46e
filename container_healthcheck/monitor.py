"""The service of one worker process: the observers and the board, wired together."""

from __future__ import annotations

from collections.abc import Callable

from container_healthcheck.board import Board
from container_healthcheck.journal import Journal
from container_healthcheck.model.snapshot import Picture
from container_healthcheck.observers.drain_folder import DrainFolder
from container_healthcheck.observers.engine import Bounded, Engine
from container_healthcheck.observers.probe import probe
from container_healthcheck.observers.prober import Prober
from container_healthcheck.observers.watcher import Source, Watcher
from container_healthcheck.settings import Settings

# Gunicorn ends a worker that is not up after 30 s. In seconds.
LONGEST_START = 10.0


class Service:
    """Watches and probes in the background, and answers from memory.

    `bounded` limits the time of a whole question to the engine; `connect` makes an engine client
    for so many seconds a question.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        is_lead: Callable[[], bool] = lambda: True,
        bounded: Bounded | None = None,
        connect: Callable[[float], Source] | None = None,
    ) -> None:
        self._settings = settings
        self._prober: Prober | None = None
        if settings.probe_url:
            self._prober = Prober(
                self._probe,
                interval=settings.probe_interval,
                fall=settings.probe_fall,
                on_change=lambda failing: self.board.show_failing(failing),
            )
        self._watcher = Watcher(
            connect or (lambda timeout: Engine(settings, timeout=timeout, bounded=bounded)),
            self._take_picture,
            pattern=settings.name_pattern,
            docker_timeout=settings.docker_timeout,
            resync_interval=settings.resync_interval,
        )
        self.board = Board(
            DrainFolder(settings.state_dir).current,
            stale_after=settings.stale_after,
            on_report=Journal(is_lead).note,
        )

    def start(self) -> None:
        """Begins to observe, and waits (not long) for the first picture.

        So a worker that has just started does not refuse apps that are healthy.
        """
        self.board.start()
        if self._prober is not None:
            self._prober.start()
        self._watcher.start()
        self._watcher.wait_tried(min(2 * self._settings.docker_timeout, LONGEST_START))

    def stop(self) -> None:
        """Ends the observers and all waiting clients. Returns at once."""
        self._watcher.stop()
        if self._prober is not None:
            self._prober.stop()
        self.board.stop()

    def _take_picture(self, picture: Picture, started: frozenset[str]) -> None:
        # The prober first: an app that has come back must not be healthy for a moment.
        if self._prober is not None:
            self._prober.observe(picture, started)
        self.board.show_picture(picture)

    def _probe(self, app_code: str) -> str | None:
        url = self._settings.probe_target(app_code)
        return None if url is None else probe(url, self._settings.probe_timeout)
