"""Whatever comes from outside: settings, drain marks, container names, entries of the list."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from container_healthcheck.model.container import MalformedContainerError, from_listing
from container_healthcheck.model.drains import HOST
from container_healthcheck.model.names import NamePattern, is_app_code
from container_healthcheck.model.snapshot import snapshot_of
from container_healthcheck.observers.drain_folder import DrainFolder
from container_healthcheck.settings import (
    ENVIRONMENT_PREFIX,
    Settings,
    SettingsError,
    documented_settings,
    environment_name,
)
from tests.unit.containers import PATTERN, container, entry

CODES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
NAMES = [environment_name(setting.name) for setting in documented_settings()]


@given(
    st.dictionaries(
        st.sampled_from(NAMES), st.text(alphabet=st.characters(exclude_characters="\0"))
    )
)
def test_settings_are_taken_or_refused_in_one_line(environ: dict[str, str]) -> None:
    refusal = ENVIRONMENT_PREFIX
    try:
        Settings.from_environment(environ)
    except SettingsError as error:
        refusal = str(error)
    # A line break in the value is shown as one, not made.
    assert refusal.startswith(ENVIRONMENT_PREFIX) and "\n" not in refusal


@given(st.integers(1, 100), st.integers(1, 64), st.floats(0.2, 300))
def test_what_is_allowed_comes_out_as_it_went_in(rise: int, workers: int, interval: float) -> None:
    values = {"probe_rise": rise, "workers": workers, "probe_interval": interval}
    settings = Settings.from_environment(
        {environment_name(name): str(value) for name, value in values.items()}
    )

    assert {name: getattr(settings, name) for name in values} == values


@given(CODES, st.integers(0, 10**10))
def test_a_containers_name_leads_to_its_app(app_code: str, number: int) -> None:
    for name in (
        app_code,
        f"{app_code}-{number}",
        f"{app_code}{number:010d}"[: len(app_code) + 10],
    ):
        assert app_code in PATTERN.app_codes(name)
        assert set(PATTERN.likely_app_codes(name)) <= set(PATTERN.app_codes(name))
        assert all(is_app_code(each) for each in PATTERN.app_codes(name))


@given(st.text(max_size=300))
def test_any_name_of_a_container_is_taken(name: str) -> None:
    for app_code in PATTERN.app_codes(name):
        assert is_app_code(app_code) and name.startswith(app_code)
    snapshot = snapshot_of([container(name)], PATTERN, confirmed_at=0)
    assert snapshot.apps <= snapshot.by_app.keys()


@given(st.text(max_size=40))
def test_any_name_pattern_is_taken_or_refused(text: str) -> None:
    for pattern in (text, "{app_code}" + text):
        try:
            made = NamePattern(pattern)
        except ValueError:
            continue
        assert all(is_app_code(each) for each in made.app_codes("bk_iam-1709878117"))


@given(st.dictionaries(st.sampled_from(list(entry())), JSON))
def test_an_entry_of_the_list_is_a_container_or_refused(fields: dict[str, Any]) -> None:
    try:
        found = from_listing({**entry(), **fields})
    except MalformedContainerError:
        return
    assert found is None or (found.name and isinstance(found.created, int))


@given(CODES, st.text(max_size=100), st.none() | st.floats(1.9e9, 2e9))
def test_a_drain_mark_comes_back(app_code: str, reason: str, until: float | None) -> None:
    with tempfile.TemporaryDirectory() as state:
        folder = DrainFolder(Path(state), clock=lambda: 1.8e9)
        mark = folder.add(app_code, reason, until)
        read = DrainFolder(Path(state), clock=lambda: 1.8e9).current()

    assert read.marks == {app_code: mark}
    sentence = read.reason(app_code)
    assert sentence is not None and sentence.isprintable()


@given(
    st.sampled_from(["a", HOST]),
    st.binary(max_size=100) | JSON.map(lambda j: json.dumps(j).encode()),
)
def test_a_mark_that_cannot_be_read_counts(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as state:
        folder = DrainFolder(Path(state))
        folder.path.mkdir()
        (folder.path / f"{name}.json").write_bytes(content)

        sentence = folder.current().reason("a")

    assert sentence is not None and "counts as drained" in sentence
