"""The walls between the rooms: who may import what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "container_healthcheck"
NAME = PACKAGE.name
FILES = sorted(PACKAGE.rglob("*.py"))

# What each room, or file, may import of the others. A file's own room is always open to it.
OPEN = {
    "model": set(),
    "parsing.py": {"model"},
    "settings.py": {"model", "parsing"},
    "observers": {"model", "settings", "parsing"},
    "board.py": {"model"},
    "journal.py": {"model"},
    "chronicle.py": {"model", "observers", "journal"},
    "held_back.py": {"model", "observers"},
    "monitor.py": {
        "model",
        "observers",
        "board",
        "journal",
        "chronicle",
        "held_back",
        "settings",
    },
    "web": {"model", "board", "settings"},
    "server": {"model", "monitor", "web", "settings", "parsing"},
    "cli": {"model", "observers", "server", "settings", "parsing"},
    "__main__.py": {"cli"},
    "__init__.py": set(),
}
# Libraries, and the only places that may import them.
KEPT_IN = {
    "docker": ["observers/engine.py"],
    "requests": ["observers/engine.py"],
    "flask": ["web/", "server/wsgi.py"],
    "werkzeug": ["web/"],
    "jinja2": ["web/"],
    "gevent": ["server/"],
    "gunicorn": ["server/"],
    "prometheus_client": ["web/"],
}
# Of the standard library, what the pure room may use: nothing that waits, reads or asks the clock.
PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "json",
    "re",
    "types",
    "typing",
}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            module = str(node.module)
            # `from container_healthcheck import board` imports container_healthcheck.board.
            deeper = (PACKAGE.parent / module.replace(".", "/")).is_dir()
            yield from (f"{module}.{each.name}" if deeper else module for each in node.names)


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_each_room_imports_only_what_is_open_to_it(file: Path) -> None:
    own = room(file)
    for name in imports(file):
        top, _, rest = name.partition(".")
        inside = str(file.relative_to(PACKAGE))
        if top == NAME:
            other = rest.partition(".")[0]
            is_open = other in (own, "__version__") or other in OPEN[own]
            assert is_open, f"{inside} imports {name}"
        elif own == "model":
            assert top in PURE, f"{inside} imports {name}"
        elif top in KEPT_IN:
            assert inside.startswith(tuple(KEPT_IN[top])), f"{inside} imports {name}"


def test_no_two_files_import_each_other() -> None:
    graph = {
        ".".join([NAME, *file.relative_to(PACKAGE).with_suffix("").parts]): {
            name for name in imports(file) if name.startswith(NAME)
        }
        for file in FILES
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " imports ".join((*way, module))
        if module in done:
            return
        for name in graph[module]:
            if (known := name if name in graph else name.rpartition(".")[0]) in graph:
                visit(known, (*way, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_the_rooms_are_those_that_are_described() -> None:
    assert {room(file) for file in FILES} == OPEN.keys()
