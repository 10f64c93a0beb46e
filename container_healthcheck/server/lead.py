"""The lead: one worker of all, which asks the apps and keeps the journal."""

from __future__ import annotations

import fcntl

from container_healthcheck.server import shared


def is_lead() -> bool:
    """True in one worker, until it ends; then in another.

    A POSIX lock belongs to one process, and goes when that ends, however it ends.
    """
    try:
        fcntl.lockf(shared.files().lead, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def give_up() -> None:
    """Leaves the lead to another worker."""
    fcntl.lockf(shared.files().lead, fcntl.LOCK_UN)
