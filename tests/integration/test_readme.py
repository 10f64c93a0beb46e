"""The documents tell the truth: every example is run, and every table is compared."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_healthcheck import __version__
from container_healthcheck.model.verdict import Code
from container_healthcheck.settings import documented_settings, shown
from sandbox.private_engine import PrivateEngine
from sandbox.running_service import SOURCE, RunningService
from sandbox.waiting import free_port, wait_until
from tests.conftest import require_engine
from tests.readme import (
    CHAPTERS,
    LANGUAGES,
    blocks,
    chapter,
    documents,
    examples,
    fenced,
    help_commands,
    help_of,
    links,
    steady,
)

PORT = "4246"


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    """A service on a host as the examples show it."""
    require_engine()
    with PrivateEngine() as engine, RunningService(engine.url, workers=2) as service:
        # The service is there first: so it knows since when they are what they are.
        engine.run("bk_iam-1709878117")
        engine.run("bk_monitorv3-1709878117", command="sh -c 'exit 1'")
        # Created, it is not healthy either, and then it runs for a moment. Its end is known from an
        # event before the list says when it was.
        wait_until(
            lambda: str(service.check("bk_monitorv3").json["message"]),
            lambda message: "is exited" in message and message.endswith("ago"),
            "its end",
        )
        yield service


def settle(service: RunningService) -> None:
    """Waits until the host is what every block of examples begins with."""
    wait_until(
        lambda: service.get("/apps/health").json["message"],
        {"bk_iam": 0, "bk_monitorv3": 13}.__eq__,
        "the host to be as the examples show it",
    )


COMMANDS = help_commands()


def name_of(document: Path) -> str:
    """The path of a document in this checkout."""
    return str(document.relative_to(SOURCE))


DOCUMENTS = [path for language in LANGUAGES for path in documents(language)]


@pytest.fixture
def environment(service: RunningService, tmp_path: Path) -> dict[str, str]:
    """Where `container-healthcheck` is a command, and knows the service."""
    program = tmp_path / "container-healthcheck"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m container_healthcheck "$@"\n')
    program.chmod(0o755)
    return {**service.environment, "PATH": f"{tmp_path}:{service.environment['PATH']}"}


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if blocks(path)],
    ids=name_of,
)
def test_every_example_gives_what_is_printed(
    document: Path, service: RunningService, environment: dict[str, str]
) -> None:
    for block in blocks(document):
        settle(service)
        for command, printed in block:
            wanted = steady(printed).removesuffix("…\n")
            is_whole = not printed.endswith("…\n")

            output = steady(output_of(command, service, environment))

            assert (output if is_whole else output[: len(wanted)]) == wanted, command


def output_of(command: str, service: RunningService, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command.replace(f":{PORT}", f":{service.port}").replace("curl ", "curl -s ", 1),
        shell=True,
        env=environment,
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout if done.stdout.endswith("\n") else done.stdout + "\n"
    return output.replace("\r\n", "\n").replace(f":{service.port}", f":{PORT}")


def test_there_are_examples_to_run() -> None:
    assert len(examples("en")) >= 11


def test_the_examples_that_help_shows_work(
    service: RunningService, environment: dict[str, str]
) -> None:
    expected = {"check": 0, "list": 2, "changes": 0, "drain": 0, "undrain": 0, "completion": 0}
    settle(service)
    exits = {}
    for command in expected:
        done = subprocess.run(
            ["bash", "-c", example_of(command)], env=environment, cwd=SOURCE, check=False
        )
        exits[command] = done.returncode
    assert exits == expected
    assert {*expected, "serve"} == set(COMMANDS)

    port = free_port()
    flags = shlex.split(example_of("serve").replace(PORT, str(port)))[2:]
    engine = service.environment["DOCKER_HOST"]
    with RunningService(engine, bind=f"127.0.0.1:{port}", flags=flags) as another:
        assert another.code("nope") == 12


def example_of(command: str) -> str:
    """The example that the command's `--help` ends with."""
    (example,) = re.findall(r"^Example: (.*)$", help_of(command), re.MULTILINE)
    return str(example)


# --- both languages say the same


def test_both_languages_have_the_same_chapters() -> None:
    files = [
        {path.name for path in (SOURCE / "docs" / language).iterdir()} for language in LANGUAGES
    ]
    assert files[0] == files[1]


NAMES = pytest.mark.parametrize("name", ["README.md", *CHAPTERS])


@NAMES
@pytest.mark.parametrize("kind", ["", "console"])
def test_both_languages_show_the_same_examples(name: str, kind: str) -> None:
    assert blocks(chapter("en", name), kind) == blocks(chapter("zh", name), kind)


@NAMES
def test_both_languages_have_the_same_form(name: str) -> None:
    english, chinese = (chapter(language, name).read_text() for language in LANGUAGES)

    for mark in (r"^#+ ", r"^ *```\w*", r"^\|", r"^ *(?:-|\d+\.) "):
        forms = [re.findall(mark, text, re.MULTILINE) for text in (english, chinese)]
        assert forms[0] == forms[1], mark
    # They name each other in different places, and the same things in the same order otherwise.
    forms = [[normal(target) for target in links(text)[1:]] for text in (english, chinese)]
    assert forms[0] == forms[1]


def normal(target: str) -> str:
    """A link without what is different in each language."""
    target = target.partition("#")[0]
    return target.replace("docs/zh/", "docs/en/").replace("../zh/", "../en/")


def test_both_languages_have_the_same_pictures() -> None:
    for path in (SOURCE / "docs" / "en").glob("*.svg"):
        shapes = [
            re.sub(
                r">[^<>{}]+<|xml:lang=\S+|font: .*",
                "",
                (SOURCE / "docs" / each / path.name).read_text(),
            )
            for each in LANGUAGES
        ]
        assert shapes[0] == shapes[1]
        assert "prefers-color-scheme: dark" in shapes[0]


@pytest.mark.parametrize("readme", LANGUAGES.values())
def test_a_readme_is_short(readme: str) -> None:
    assert len((SOURCE / readme).read_text().splitlines()) <= 150


# --- links


def anchors(document: Path) -> set[str]:
    """What `#…` can point to in a document, as GitHub makes it."""
    prose = re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


OTHERS = [*SOURCE.glob("*.md"), SOURCE / "benchmarks" / "README.md"]


@pytest.mark.parametrize("document", sorted({*DOCUMENTS, *OTHERS}), ids=name_of)
def test_no_link_is_dead(document: Path) -> None:
    for link in links(document.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_readme_leads_to_every_chapter(language: str) -> None:
    readme = chapter(language, "README.md")
    linked = {(SOURCE / link.partition("#")[0]).resolve() for link in links(readme.read_text())}

    assert set(documents(language)[1:]) <= linked


# --- tables


def table(document: Path, first: str) -> list[list[str]]:
    """The cells of the table rows that begin with a cell like `first`."""
    rows = re.findall(rf"^\| ({first}) \|(.*)\|$", document.read_text(), re.MULTILINE)
    split = re.compile(r"(?<!\\)\|")
    return [[row[0], *(cell.strip() for cell in split.split(row[1]))] for row in rows]


@pytest.mark.parametrize(("language", "empty"), [("en", "empty"), ("zh", "空")])
def test_the_settings_are_those_of_the_code(language: str, empty: str) -> None:
    printed = [
        (row[0].strip("`"), row[1].strip("`").replace(r"\|", "|"))
        for row in table(chapter(language, "settings.md"), "`[A-Z_]+`")
    ]

    assert printed == [
        (setting.name.upper(), shown(setting.metadata["default"]).replace("empty", empty))
        for setting in documented_settings()
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_limits_of_settings_are_those_of_the_code(language: str) -> None:
    printed = {
        row[0].strip("`"): [float(each) for each in limits[0]]
        for row in table(chapter(language, "settings.md"), "`[A-Z_]+`")
        if (limits := re.findall(r"([\d.]+) (?:to|至) (\d+)$", row[2]))
    }

    assert list(printed) == [
        setting.name.upper()
        for setting in documented_settings()
        if isinstance(setting.metadata["default"], int | float)
    ]
    parsers = {setting.name.upper(): setting.metadata["parse"] for setting in documented_settings()}
    for name, (least, most) in printed.items():
        with pytest.raises(ValueError, match=f"from {least:g} to {most:g}$"):
            parsers[name](f"{most + 1:g}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_flags_and_commands_are_those_of_the_code(language: str) -> None:
    """None is shown that does not exist; that none is missing, `--help` sees to."""
    said = " ".join(map(help_of, ["", *COMMANDS])).replace(",", " ")
    text = chapter(language, "command-line.md").read_text()
    shown_commands = re.findall(r"^container-healthcheck (\w+) ", text, re.MULTILINE)

    assert list(dict.fromkeys(shown_commands)) == COMMANDS
    for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text):
        assert f"{flag} " in said, flag


# Of each code, what to ask to get it on the examples' host; the others are in tests of their own.
ASKED = {
    0: ["/health", "/apps/health/bk_iam"],
    12: ["/apps/health/nope"],
    13: ["/apps/health/bk_monitorv3"],
    20: ["/apps/health/-"],
    21: ["/nope"],
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_codes_are_those_of_the_code(language: str, service: RunningService) -> None:
    rows = table(chapter(language, "answers.md"), r"\d+")
    printed = {int(row[0]): re.split(r"[,、] ?", row[2]) for row in rows}
    assert list(printed) == [int(code) for code in Code]

    settle(service)
    for code, paths in ASKED.items():
        for path in paths:
            answer = service.get(path)
            assert (answer.code, str(answer.status) in printed[code]) == (code, True), path
    assert service.get("/health", method="POST").status == 405


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_paths_are_those_of_the_code(language: str, service: RunningService) -> None:
    settle(service)
    rows = table(chapter(language, "answers.md"), "`/[^`]*`")
    assert len(rows) >= 6

    for row in rows:
        path = row[0].strip("`").replace("<app_code>", "bk_iam")
        assert service.get(path).status == 200, path


# --- messages


def messages_of_the_code() -> set[str]:
    """What the service may log about itself, each with `…` where the text differs.

    Those are the formats of log lines, and the texts of the errors that are logged as they are.
    """
    found = set()
    for path in (SOURCE / "container_healthcheck").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in MESSAGES:
                found.add(re.sub(r"%[.\d]*[a-z]", "…", literal(node.args[0])))
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "self.problem":
                found.add(literal(node.value))
    # Made of nothing but another text.
    return found - {"", "…", "…: …"}


MESSAGES = (
    *(f"log.{level}" for level in ("info", "warning", "error", "exception")),
    "self._report",
)


def literal(node: ast.expr) -> str:
    """The text of a string, with `…` for what is put into it; empty for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(each) or "…" for each in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_architecture_names_every_module(language: str) -> None:
    (listed, *_) = fenced(chapter(language, "architecture.md").read_text())
    printed, folder = set(), Path()
    for line in listed[1].splitlines()[1:]:
        # What a line is about stands apart from its names.
        names = re.split(r" {2,}", line.strip())[0].split()
        folder = folder if line.startswith("    ") else Path()
        for name in names:
            if name.endswith("/"):
                folder = Path(name)
            else:
                printed.add(folder / f"{name}.py")

    package = SOURCE / "container_healthcheck"
    assert printed == {
        path.relative_to(package)
        for path in package.rglob("*.py")
        if not path.name.startswith("__")
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_in_the_log_is_explained(language: str) -> None:
    text = chapter(language, "troubleshooting.md").read_text()
    explained = [each.split("…") for each in re.findall(r"`([^`\n]{12,})`", text)]
    patterns = [re.compile(".*".join(map(re.escape, each)), re.DOTALL) for each in explained]

    messages = messages_of_the_code()

    assert len(messages) >= 20
    for message in messages:
        # What to do may follow.
        forms = (message, f"{message}: …")
        assert any(each.fullmatch(form) for each in patterns for form in forms), message


# --- names of other things


@pytest.mark.parametrize("document", sorted({*DOCUMENTS, *OTHERS}), ids=name_of)
def test_what_is_named_exists(document: Path) -> None:
    text = document.read_text()
    if document.name == "CHANGELOG.md":
        return
    targets = set(re.findall(r"^([a-z-]+):.*##", (SOURCE / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    for path in re.findall(r"`((?:packaging|tests|sandbox|docs|benchmarks)/[^` ]*)`", text):
        assert (SOURCE / path).exists(), path
    for version in re.findall(r"container-healthcheck-(\d+\.\d+\.\d+)-1\.x86_64\.rpm", text):
        assert version == __version__
