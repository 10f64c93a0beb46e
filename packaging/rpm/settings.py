"""Puts every setting, with meaning and default, in place of @SETTINGS@; stdin to stdout."""

from __future__ import annotations

import sys

from container_healthcheck import settings as config


def described() -> str:
    """All settings as commented-out lines of an environment file."""
    blocks = []
    for setting in config.documented_settings():
        default = config.shown(setting.metadata["default"])
        # Old versions of systemd drop backslashes, even between quotes.
        value = "" if default == "empty" else default.replace(r"\d", "[0-9]")
        if any(character in value for character in " (){}|?$#"):
            value = f"'{value}'"
        meaning = str(setting.metadata["meaning"])
        name = config.environment_name(setting.name)
        blocks.append(f"# {meaning[0].upper()}{meaning[1:]}.\n#{name}={value}\n")
    return "\n".join(blocks)


if __name__ == "__main__":
    sys.stdout.write(sys.stdin.read().replace("@SETTINGS@\n", described()))
