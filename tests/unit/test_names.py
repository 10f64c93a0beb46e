"""App codes and container names."""

from __future__ import annotations

import warnings
from typing import Literal

import pytest

from container_healthcheck.model.names import NamePattern, is_app_code
from tests.unit.containers import PATTERN


@pytest.mark.parametrize(
    ("app_code", "name"),
    [
        ("bk_iam", "bk_iam-1709878117"),
        ("bk_iam", "bk_iam"),
        ("bk_iam", "bk_iam-1"),
        ("foo-bar", "foo-bar-1709878117"),
        ("foo-2", "foo-2-1709878117"),
        ("javaapp", "javaapp1709878117"),
        ("app1", "app11709878117"),
        ("a", "a-1709878117"),
        ("1", "1-1709878117"),
        ("a.b", "a.b-1709878117"),
        ("x" * 128, "x" * 128 + "-1709878117"),
    ],
)
def test_a_name_belongs_to_its_app(app_code: str, name: str) -> None:
    assert app_code in PATTERN.app_codes(name)
    assert app_code in PATTERN.likely_app_codes(name)


@pytest.mark.parametrize(
    ("app_code", "name"),
    [
        ("bk_iam", "bk_iam_app-1709878117"),
        ("bk_iam", "bk_iam-test-1709878117"),
        ("bk_iam", "xbk_iam-1709878117"),
        ("bk_iam", "bk_iam-1709878117-old"),
        ("bk_iam", "bk_iam170987811"),
        ("bk_iam", "bk_iam17098781170"),
        ("bk_iam", "BK_IAM-1709878117"),
        ("bk_monitor", "bk_monitorv3-1709878117"),
        ("foo", "foo-2-1709878117"),
        ("foo", "foo-bar-1709878117"),
        ("foo", "foo-"),
        ("foo", "foo-\u0661\u0662"),
        ("a.b", "axb-1709878117"),
        ("x" * 129, "x" * 129 + "-1709878117"),
    ],
)
def test_a_name_does_not_belong_to_another_app(app_code: str, name: str) -> None:
    assert app_code not in PATTERN.app_codes(name)


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("bk_iam-1709878117", ("bk_iam",)),
        ("foo-2-1709878117", ("foo-2",)),
        ("foo-2", ("foo",)),
        ("bk-paas-mysql", ("bk-paas-mysql",)),
        ("javaapp1709878117", ("javaapp",)),
        ("1709878117", ("1709878117",)),
        # A Java container of the app `my-2`, or a container of the app `my`: nobody can tell.
        ("my-21709878117", ("my", "my-2")),
    ],
)
def test_a_container_is_listed_under_its_likely_apps(name: str, listed: tuple[str, ...]) -> None:
    assert PATTERN.likely_app_codes(name) == listed


def test_what_stands_around_the_app_code_is_obeyed() -> None:
    pattern = NamePattern(r"saas.{app_code}_v\d")

    assert pattern.app_codes("saas.bk_iam_v2") == ("bk_iam",)
    assert pattern.app_codes("saasxbk_iam_v2") == ()
    assert pattern.app_codes("saas.bk_iam_v22") == ()


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "exactly once"),
        (r"-\d+", "exactly once"),
        ("{app_code}{app_code}", "exactly once"),
        (".*{app_code}", "before {app_code} only"),
        ("{app_code}(", "not a regular expression"),
        ("{app_code}a{4294967295}", "not a regular expression"),
        ("{app_code}" + "(" * 5000 + ")" * 5000, "not a regular expression"),
        ("{app_code}[[a]", "ambiguous regular expression, possible nested set at position 1"),
        ("{app_code}[a--b]", "ambiguous regular expression, possible set difference"),
        ("{app_code}[a&&b]", "ambiguous regular expression, possible set intersection"),
        ("{app_code}[a||b]", "ambiguous regular expression, possible set union"),
        ("{app_code}[a~~b]", "ambiguous regular expression, possible set symmetric difference"),
    ],
)
def test_a_bad_pattern_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NamePattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"{app_code}[\[a]", "bk_iam["),
        (r"{app_code}[+\--]", "bk_iam-"),
        (r"{app_code}[a\&&b]", "bk_iam&"),
    ],
)
def test_a_backslash_makes_an_ambiguous_pattern_clear(pattern: str, name: str) -> None:
    assert "bk_iam" in NamePattern(pattern).app_codes(name)


@pytest.mark.parametrize("filter_of_caller", ["error", "ignore", "always"])
def test_what_python_says_of_a_pattern_is_only_in_the_refusal(
    filter_of_caller: Literal["error", "ignore", "always"],
) -> None:
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter(filter_of_caller)
        for _ in range(2):
            with pytest.raises(ValueError, match="ambiguous"):
                NamePattern("{app_code}[[a]")

    assert leaked == []


@pytest.mark.parametrize("text", ["a", "0", "bk_iam", "a.b-c_D", "a" * 128])
def test_these_are_app_codes(text: str) -> None:
    assert is_app_code(text)


# Every character that a regular expression cares about, alone and inside.
SPECIAL = [f"a{character}b" for character in "\\^$|?*+()[]{}/ \n\t\0%&#~,;:<>=!\"'`@"]


@pytest.mark.parametrize(
    "text",
    [
        *SPECIAL,
        "",
        ".",
        "..",
        "-a",
        "_a",
        ".a",
        "a" * 129,
        "应用",
        "a\u0301",
        "ａ",
        "a\n",
        "\ud800",
    ],
)
def test_these_are_not(text: str) -> None:
    assert not is_app_code(text)
