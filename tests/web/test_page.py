"""The status page: what it says, in which language, and that nothing on it does anything."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.drains import HOST, Mark
from container_healthcheck.model.history import Change
from container_healthcheck.model.host_state import state_of
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.web.page import age
from container_healthcheck.web.words import CHINESE, ENGLISH
from tests.unit.containers import PATTERN, container
from tests.web.host import BASE, NOW, Host

HOSTILE = "</bdi></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{7*7}}\u202e"


class Reader(HTMLParser):
    """The text that is seen, and every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self.inline: dict[str, str] = {}
        self._within = ""
        self.feed(page)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, _: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("style", "script"):
            self.inline[self._within] = data
        else:
            self.parts.append(data)


def read(host: Host, path: str = "/", **options: Any) -> Reader:
    answer = host.get(path, **options)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    return Reader(answer.data.decode())


def apps_of(reader: Reader) -> list[str]:
    """The apps on the page, in their order."""
    links = (attributes.get("href") or "" for tag, attributes in reader.tags if tag == "a")
    found = (re.fullmatch(rf"{BASE}/apps/health/(\w+)\?all=true", link) for link in links)
    return [each.group(1) for each in found if each]


def test_the_broken_come_first(host: Host) -> None:
    host.changed(Change(5.5, "b", 0, 13, "it died"))
    host.drain(c=Mark(0, None, "for the night"))
    host.probed(a=LastProbe(None, 7.25, 0.0125))

    page = read(host)

    assert apps_of(page) == ["b", "c", "a"]
    assert "1 in trouble 1 drained 1 healthy" in page.text
    assert "not running 13" in page.text and "b-1 is exited: Exited (1)" in page.text
    assert "until undrained: for the night" in page.text
    assert "a-1 python36e:1.1 , Up 5 days passed 12 ms" in page.text
    assert "healthy 0 → not running 13 it died" in page.text
    # Commands may hold what is not for everybody.
    assert "/build/builder" not in page.text


def test_it_is_found_with_and_without_the_slash(host: Host) -> None:
    for path in ("", "/"):
        assert apps_of(read(host, path)) == ["b", "a"]
    head = host.client.head(BASE)
    assert (head.status_code, head.data) == (200, b"")


@pytest.mark.parametrize(
    ("query", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("", "zh-TW", "zh-CN"),
        ("", "en-US,zh;q=0.5", "en"),
        ("", "fr, de;q=0.3", "en"),
        ("", "fr, zh;q=0", "en"),
        ("", "*", "en"),
        ("", ";;q=x,,\xff", "en"),
        ("?lang=zh", "en", "zh-CN"),
        ("?lang=en", "zh", "en"),
        ("?lang=", "zh", "zh-CN"),
        ("?lang=klingon&lang=zh&format=json&app_code=-", "en", "en"),
        ("?lang=%00%ff", "", "en"),
    ],
)
def test_the_language(host: Host, query: str, accepted: str, language: str) -> None:
    headers = {"Accept-Language": accepted, "Accept": "application/json"}
    page = read(host, f"/{query}", headers=headers)

    assert ("html", {"lang": language}) in page.tags
    words = {"en": ENGLISH, "zh-CN": CHINESE}[language]
    assert words.states[Code.NOT_HEALTHY] in page.text
    assert ("a", f"?lang={words.other_tag}") in [
        (tag, attributes.get("href")) for tag, attributes in page.tags
    ]


def test_both_languages_have_the_same_words() -> None:
    assert ENGLISH.states.keys() == CHINESE.states.keys()
    assert all(ENGLISH) and all(CHINESE)


def test_nothing_that_comes_from_outside_does_anything(host: Host) -> None:
    plain = read(host)
    host.changed(Change(5.5, "b", 0, 13, HOSTILE))
    host.probed(a=LastProbe(HOSTILE, 7.25, 0.5))
    host.drain(c=Mark(0, 1e9, HOSTILE), d=Mark(0, None, "", problem=HOSTILE))
    host.shows(
        snapshot_of(
            [
                container("a-1", image=HOSTILE, status=HOSTILE, command=HOSTILE),
                container("b-1", state=HOSTILE, status=HOSTILE),
            ],
            PATTERN,
            confirmed_at=NOW,
        )
    )

    page = read(host)

    assert HOSTILE.replace("\u202e", "") in page.text
    assert {tag for tag, _ in page.tags} - {tag for tag, _ in plain.tags} <= {"bdi"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
    assert page.inline == plain.inline


def test_a_lone_surrogate_does_no_harm(host: Host) -> None:
    odd = container("a-1", image="\ud800")
    host.shows(snapshot_of([odd], PATTERN, confirmed_at=NOW))

    assert "a-1 ?" in read(host).text


def test_only_its_own_style_and_script_may_do_something(host: Host) -> None:
    answer = host.get("/")
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";")
    )
    page = Reader(answer.data.decode())

    assert policy["default-src"] == "'none'"
    for kind, text in page.inline.items():
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
    assert set(page.inline) == {"style", "script"}
    # No asset, from here or elsewhere, and no style that the policy would refuse.
    for tag, attributes in page.tags:
        assert "src" not in attributes and "style" not in attributes
        assert tag != "link" or attributes == {"rel": "icon", "href": "data:,"}
    assert "url(" not in page.inline["style"]


# --- trouble


def test_without_docker_it_says_so_and_is_200(blind: Host) -> None:
    page = read(blind)

    assert "Docker is away" in page.text and "cannot connect to Docker 10" in page.text
    assert "none yet" in page.text


def test_apps_stay_on_the_page_while_docker_is_away(host: Host) -> None:
    fault = Fault(Code.ENGINE_FAULTY, "Docker does not answer in time")
    containers = [container("a-1")]
    host.shows(snapshot_of(containers, PATTERN, confirmed_at=NOW - 60, fault=fault))

    page = read(host)

    assert apps_of(page) == ["a"]
    assert "unknown 11" in page.text and "1 min old" in page.text
    # It is said once, not at each app.
    assert page.text.count("Docker does not answer in time") == 1


def test_a_drained_host_says_so_once(host: Host) -> None:
    host.drain(**{HOST: Mark(0, None, "new kernel")})

    page = read(host)

    assert page.text.count("new kernel") == 1
    assert "This host is drained" in page.text and "2 drained" in page.text


def test_a_host_without_apps_says_so() -> None:
    host = Host()
    host.shows(Snapshot(confirmed_at=NOW))

    assert "No app has a container on this host" in read(host).text


# --- following it


def etag_of(host: Host, path: str = "/") -> str:
    etag = host.get(path).headers["ETag"]
    assert f"data-tag={etag} " in host.get(path).data.decode()
    return str(etag)


def test_a_known_page_is_not_sent_again(host: Host) -> None:
    etag = etag_of(host)

    answer = host.get("/", headers={"If-None-Match": etag, "Prefer": "wait=0"})

    assert (answer.status_code, answer.data) == (304, b"")
    assert answer.headers["ETag"] == etag
    assert answer.headers["Preference-Applied"] == "wait=0"
    assert etag_of(host, "/?lang=zh") != etag


def test_what_is_new_has_another_etag(host: Host) -> None:
    etags = [etag_of(host)]

    def noted() -> None:
        etags.append(etag_of(host))

    host.changed(Change(5.5, "b", 0, 13, "it died"))
    noted()
    host.drain(b=Mark(0, None, ""))
    noted()
    host.drain(b=Mark(0, None, "why"))
    noted()
    host.shows(snapshot_of([container("a-2")], PATTERN, confirmed_at=NOW))
    noted()
    host.shows(snapshot_of([container("a-3")], PATTERN, confirmed_at=NOW))
    noted()
    host.shows(snapshot_of([container("a-3")], PATTERN, confirmed_at=NOW - 60))
    noted()

    assert len(set(etags)) == len(etags)


def test_what_changes_all_the_time_is_not_new(host: Host) -> None:
    etag = etag_of(host)
    host.probed(a=LastProbe(None, 8.25, 0.5))
    later = [
        container("a-1", status="Up 6 days"),
        container("b-1", state="exited", status="Exited (1) 3 minutes ago"),
    ]
    host.shows(snapshot_of(later, PATTERN, confirmed_at=NOW - 1))

    assert etag_of(host) == etag


def test_another_worker_has_the_same_etag(host: Host) -> None:
    host.changed(Change(5.5, "b", 0, 13, "it died"))
    state = host.board.state
    other = Host()
    # It has received the same in other pieces.
    other.board.publish(state_of(state.messages(), state.pattern), None)

    assert etag_of(other) == etag_of(host)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (86399, "23 h"),
        (86400 * 400, "400 d"),
    ],
)
def test_an_age_is_said_in_one_unit(seconds: float, said: str) -> None:
    assert age(seconds, ENGLISH) == said
