"""What the status page says, in each of its languages.

The reasons of verdicts are not among them: they stand on the page as in the JSON and in the log,
where people search for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from container_healthcheck.model.verdict import Code


class Words(NamedTuple):
    """One language. `units` are those of an age: seconds, minutes, hours, days."""

    tag: str
    other_language: str
    other_tag: str
    in_trouble: str
    drained: str
    healthy: str
    all_well: str
    no_apps: str
    app: str
    state: str
    since: str
    why: str
    probe: str
    passed: str
    failed: str
    changes: str
    no_changes: str
    appeared: str
    host: str
    engine: str
    version: str
    snapshot: str
    snapshot_age: str
    no_snapshot: str
    docker_away: str
    host_drained: str
    until: str
    until_undrained: str
    drained_since: str
    no_reason: str
    unreadable: str
    not_answering: str
    as_of: str
    json: str
    comma: str
    colon: str
    units: tuple[str, str, str, str]
    states: Mapping[Code, str]


ENGLISH = Words(
    tag="en",
    other_language="中文",
    other_tag="zh",
    in_trouble="in trouble",
    drained="drained",
    healthy="healthy",
    all_well="All apps are healthy",
    no_apps="No app has a container on this host",
    app="App",
    state="State",
    since="For",
    why="Container, or reason",
    probe="Last probe",
    passed="passed",
    failed="failed",
    changes="Recent changes",
    no_changes="Nothing has changed yet.",
    appeared="new",
    host="Host",
    engine="Docker",
    version="Version",
    snapshot="Snapshot",
    snapshot_age=" old",
    no_snapshot="none yet",
    docker_away="Docker is away",
    host_drained="This host is drained",
    until="until",
    until_undrained="until undrained",
    drained_since="drained since",
    no_reason="no reason given",
    unreadable="the mark cannot be read:",
    not_answering="The service does not answer. What you see is from",
    as_of="As of",
    json="JSON",
    comma=", ",
    colon=": ",
    units=("s", "min", "h", "d"),
    states={
        Code.HEALTHY: "healthy",
        Code.ENGINE_UNREACHABLE: "unknown",
        Code.ENGINE_FAULTY: "unknown",
        Code.NO_CONTAINER: "no container",
        Code.NOT_HEALTHY: "not running",
        Code.NOT_SERVING: "not answering",
        Code.DRAINED: "drained",
    },
)

CHINESE = Words(
    tag="zh",
    other_language="English",
    other_tag="en",
    in_trouble="个异常",
    drained="个已摘除",
    healthy="个正常",
    all_well="所有应用正常",
    no_apps="本机没有任何应用的容器",
    app="应用",
    state="状态",
    since="持续",
    why="容器或原因",
    probe="最近一次探测",
    passed="通过",
    failed="失败",
    changes="最近的变化",
    no_changes="还没有变化。",
    appeared="新增",
    host="主机",
    engine="Docker",
    version="版本",
    snapshot="快照",
    snapshot_age="前",
    no_snapshot="尚无",
    docker_away="Docker 不可用",
    host_drained="本机已摘除",
    until="至",
    until_undrained="直到恢复",
    drained_since="摘除于",
    no_reason="未说明原因",
    unreadable="摘除标记无法读取：",
    not_answering="服务没有应答，以下内容截至",
    as_of="截至",
    json="JSON",
    comma="，",
    colon="：",
    units=("秒", "分钟", "小时", "天"),
    states={
        Code.HEALTHY: "正常",
        Code.ENGINE_UNREACHABLE: "未知",
        Code.ENGINE_FAULTY: "未知",
        Code.NO_CONTAINER: "没有容器",
        Code.NOT_HEALTHY: "未运行",
        Code.NOT_SERVING: "无应答",
        Code.DRAINED: "已摘除",
    },
)

LANGUAGES = {words.tag: words for words in (ENGLISH, CHINESE)}
