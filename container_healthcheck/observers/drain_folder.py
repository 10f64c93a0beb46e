"""The drain marks on disk.

A mark is a small JSON file in the folder `drains` of the state folder, named after the app, or
`_host` for all of them (no app code begins with `_`). It is written beside its place and renamed
into it, so a reader sees all of it or none.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from container_healthcheck.model.drains import HOST, Drains, Mark
from container_healthcheck.model.names import is_app_code

_SUFFIX = ".json"
_LARGEST = 64 * 1024
# A folder's time of change has the grain of the kernel's tick: one this young may change again
# without showing it. In seconds.
_TICK = 0.1
# How long an edit made in place, which does not touch the folder, may go unseen, in seconds.
_LONGEST_UNREAD = 1.0


class DrainFolder:
    """The marks of one state folder.

    `clock` returns the time in seconds since the epoch; `problem` is why the marks cannot be listed
    now, for the log, or empty. `known` are the marks that count until the folder can be listed.
    """

    def __init__(
        self,
        state_dir: Path,
        clock: Callable[[], float] = time.time,
        known: Drains | None = None,
    ) -> None:
        self.path = state_dir / "drains"
        self._clock = clock
        self._current = known or Drains()
        self._read_at = -1.0
        self._changed_at = -1
        self._settled = False
        self._ends_at = float("inf")
        self.problem = ""

    def current(self) -> Drains:
        """The marks in force now; the same object as long as they are the same."""
        now = self._clock()
        changed_at = self._folder_time()
        unchanged = self._settled and changed_at == self._changed_at
        if unchanged and now < self._ends_at and 0 <= now - self._read_at < _LONGEST_UNREAD:
            return self._current
        # Also when the clock was set back since.
        self._settled = abs(now - changed_at / 1e9) > _TICK
        self._changed_at, self._read_at = changed_at, now
        marks = {name: mark for name, mark in self._read_all().items() if not mark.is_over(now)}
        self._ends_at = min(
            (mark.until for mark in marks.values() if mark.until is not None), default=float("inf")
        )
        if marks != self._current.marks:
            self._current = Drains(marks)
        return self._current

    def add(self, name: str, reason: str, until: float | None) -> Mark:
        """Drains an app (or HOST), in place of an older mark. Raises OSError."""
        mark = Mark(self._clock(), until, reason)
        fields = {"since": mark.since, "until": mark.until, "reason": mark.reason}
        self._make_folder()
        with self._changing() as folder:
            with tempfile.NamedTemporaryFile(
                "w", dir=self.path, prefix=".new-", delete=False
            ) as file:
                try:
                    json.dump(fields, file)
                    file.flush()
                    os.fchmod(file.fileno(), 0o644)
                    os.fsync(file.fileno())
                    Path(file.name).replace(self._file(name))
                except BaseException:
                    Path(file.name).unlink()
                    raise
            os.fsync(folder)
        return mark

    def remove(self, name: str) -> bool:
        """Ends a drain; False when there was none. Raises OSError."""
        try:
            with self._changing():
                self._file(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def remove_ended(self) -> None:
        """Deletes the files of drains whose time is up. Raises OSError."""
        if not self.path.exists():
            return
        with self._changing():
            now = self._clock()
            for name, mark in self._read_all().items():
                if mark.is_over(now):
                    self._file(name).unlink(missing_ok=True)

    def _make_folder(self) -> None:
        # Readable for the service's user, whatever the umask of the caller.
        for folder in (*reversed(self.path.parents), self.path):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                folder.chmod(0o755)

    @contextmanager
    def _changing(self) -> Iterator[int]:
        """Keeps others from changing the marks meanwhile; gives the folder's descriptor."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(folder)

    def _file(self, name: str) -> Path:
        return self.path / (name + _SUFFIX)

    def _folder_time(self) -> int:
        try:
            return os.stat(self.path).st_mtime_ns
        except OSError:
            return 0

    def _read_all(self) -> dict[str, Mark]:
        names: Iterable[str]
        known: Mapping[str, Mark] = {}
        self.problem = ""
        try:
            names = self._listed()
        except OSError as error:
            names = known = self._current.marks
            self.problem = (
                f"the drain marks in {self.path} cannot be listed: {error.strerror}: new ones do"
                " not count until that is a folder this user may read"
            )
        marks = {name: self._read(name) for name in names}
        return {
            name: known.get(name, mark) if mark.problem else mark
            for name, mark in marks.items()
            if mark is not None
        }

    def _listed(self) -> list[str]:
        try:
            files = os.listdir(self.path)
        except FileNotFoundError:
            return []
        names = (file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX))
        return [name for name in names if name == HOST or is_app_code(name)]

    def _read(self, name: str) -> Mark | None:
        path = self._file(name)
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                return Mark(0.0, None, "", f"{path} is not a file")
            with path.open("rb") as file:
                fields = json.loads(file.read(_LARGEST))
            since, until, reason = fields["since"], fields["until"], fields["reason"]
            mark = Mark(float(since), None if until is None else float(until), str(reason))
            mark.sentence(name)
        except FileNotFoundError:
            return None
        # Whatever it is that keeps it from being read.
        except Exception as error:
            return Mark(0.0, None, "", f"{path}: {error!r}"[:300])
        return mark
