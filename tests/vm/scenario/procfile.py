# SPDX-License-Identifier: GPL-2.0
"""Reads /proc/drbd in the layout of 8.4.11; a line that does not fit is an error."""

import re
from dataclasses import dataclass, field

VERSION = re.compile(r"version: 8\.4\.11 \(api:1/proto:86-101\)")
SOURCE = re.compile(r"srcversion: \w{1,24} *|built-in")
STATES = re.compile(
    r" ?(?P<minor>\d+): cs:(?P<connection>\w+) ro:(?P<role>\w+)/(?P<peer_role>\w+) "
    r"ds:(?P<disk>\w+)/(?P<peer_disk>\w+) (?P<protocol>[ABC ]) (?P<flags>[sr][a-][p-][u-][a-zN-][s-])")
UNCONFIGURED = re.compile(r" ?(?P<minor>\d+): cs:Unconfigured")
COUNTERS = re.compile(
    r"    ns:(?P<ns>\d+) nr:(?P<nr>\d+) dw:(?P<dw>\d+) dr:(?P<dr>\d+) al:(?P<al>\d+) "
    r"bm:(?P<bm>\d+) lo:(?P<lo>-?\d+) pe:(?P<pe>-?\d+) ua:(?P<ua>-?\d+) ap:(?P<ap>-?\d+) "
    r"ep:(?P<ep>\d+) wo:(?P<wo>[ndf]) oos:(?P<oos>\d+)")
BAR = re.compile(
    r"\t\[(?P<bar>=*>\.*)\] (?P<what>sync'ed:|verified:) *(?P<percent>\d+\.\d)% "
    r"\((?P<left>\d+)/(?P<total>\d+)\)[KM]")
SPEED = re.compile(
    r"\tfinish: \d+:\d\d:\d\d speed: (?P<speed>[\d,]+) \([\d,]+\)( want: (?P<want>[\d,]+))? "
    r"K/sec( \(stalled\))?")


@dataclass
class Minor:
    """One device as /proc/drbd shows it."""

    connection: str
    role: str = ""
    peer_role: str = ""
    disk: str = ""
    peer_disk: str = ""
    protocol: str = ""
    flags: str = ""
    counters: dict[str, int | str] = field(default_factory=dict)
    percent: float | None = None
    left_kib: int | None = None
    total_kib: int | None = None

    @property
    def oos_kib(self) -> int:
        """How much is known to differ from the peer."""
        return self.counters["oos"]


def _fit(pattern: re.Pattern[str], line: str) -> re.Match[str]:
    match = pattern.fullmatch(line)
    if not match:
        raise AssertionError(f"/proc/drbd has a line that does not fit {pattern.pattern}:\n{line}")
    return match


def _progress(minor: Minor, lines: list[str]) -> None:
    bar = _fit(BAR, lines.pop(0))
    minor.percent = float(bar["percent"])
    minor.left_kib, minor.total_kib = int(bar["left"]), int(bar["total"])
    twentieths = round(minor.percent * 10) // 50
    wanted = "=" * max(twentieths - 1, 0) + ">" + "." * (20 - twentieths)
    assert bar["bar"] == wanted, f"the bar of {minor.percent} % must be [{wanted}]: {bar.group()}"
    _fit(SPEED, lines.pop(0))


def minors(text: str) -> dict[int, Minor]:
    """All devices of /proc/drbd by minor number."""
    lines = text.splitlines()
    _fit(VERSION, lines.pop(0))
    _fit(SOURCE, lines.pop(0))
    found = {}
    while lines:
        line = lines.pop(0)
        if not line:
            continue
        unconfigured = UNCONFIGURED.fullmatch(line)
        if unconfigured:
            found[int(unconfigured["minor"])] = Minor("Unconfigured")
            continue
        states = _fit(STATES, line)
        values = states.groupdict()
        minor = Minor(**{name: values[name] for name in values if name != "minor"})
        counters = _fit(COUNTERS, lines.pop(0)).groupdict()
        minor.counters = {name: value if name == "wo" else int(value)
                          for name, value in counters.items()}
        if minor.connection in ("SyncSource", "SyncTarget", "VerifyS", "VerifyT"):
            _progress(minor, lines)
        found[int(values["minor"])] = minor
    return found
