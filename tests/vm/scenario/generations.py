# SPDX-License-Identifier: GPL-2.0
"""Two disks with made-up data generations, attached and connected, and what came of it.

A case says what is on either disk and how the nodes are configured. Many are played in one boot,
each with a resource, a minor and a partition of its own. What came of a case is told by the
kernel's log, by /proc/drbd, and by the disks after `down`.
"""

import os
import random
import re
import string
import struct
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from drbdvm import Guest, Lab

from .procfile import minors

SECTOR = 512
# The smallest backing device that the drivers take, and a little more.
BACKING_KIB = 1152
SUPERBLOCK_SECTOR = BACKING_KIB * 2 - 8
AL_SECTORS = 64
BITMAP_SECTORS = 8
DATA_SECTORS = SUPERBLOCK_SECTOR - AL_SECTORS - BITMAP_SECTORS
METADATA_SECTORS = BITMAP_SECTORS + AL_SECTORS + 8

JUST_CREATED = 4
SYNC_UUID_OFFSET = 1 << 48

CONSISTENT, PRIMARY_IND, CONNECTED_IND, WAS_UP_TO_DATE = 1, 2, 4, 16
PEER_OUT_DATED, CRASHED_PRIMARY, AL_CLEAN = 32, 64, 128

# Partitions for the cases of a batch, one every 2 MiB.
BATCH = 50
STRIDE_SECTORS = 4096

PORT = 7000
SETTLE_TIMEOUT_S = 600
# What has not moved for so long does not move any more.
STILL_S = 10 if os.environ.get("DRBD_LANE") in ("um", "umdebug") else 40
BATCH_TIMEOUT_S = 600
BUSY = re.compile(r"WF|Sync|Starting|Verify|Unconnected|Broken|Network|Protocol|Timeout|Tear")


@dataclass(frozen=True)
class Side:
    """What one node brings."""

    uuids: tuple[int, int, int, int]
    flags: int = CONSISTENT | WAS_UP_TO_DATE
    bits: int = 0
    primary: bool = False
    discard: bool = False

    def text(self) -> str:
        """One word; `parse` reads it."""
        uuids = ":".join(f"{uuid:016X}" for uuid in self.uuids)
        return f"{uuids},{self.flags},{self.bits},{int(self.primary)},{int(self.discard)}"

    @staticmethod
    def parse(text: str) -> "Side":
        uuids, *numbers = text.split(",")
        flags, bits, primary, discard = (int(number) for number in numbers)
        return Side(tuple(int(uuid, 16) for uuid in uuids.split(":")), flags, bits, bool(primary),
                    bool(discard))

    def metadata(self) -> bytes:
        """Bitmap, activity log and super block, as they lie behind the data."""
        bitmap = bytearray(BITMAP_SECTORS * SECTOR)
        for bit in range(self.bits):
            bitmap[bit // 8] |= 1 << bit % 8
        # Valid, empty, with its checksum.
        log_block = struct.pack(">IIIH", 0x69CB65A2, 0, 0x709CC651, 0xFFFF).ljust(4096, b"\0")
        superblock = struct.pack(
            ">Q4QQQIIIiIiIIII", DATA_SECTORS, *self.uuids, 0, 0, self.flags | AL_CLEAN, 0x8374026B,
            METADATA_SECTORS, -AL_SECTORS, 257, -(BITMAP_SECTORS + AL_SECTORS), 4096, 0, 1, 8)
        return bytes(bitmap) + log_block * (AL_SECTORS // 8) + superblock.ljust(4096, b"\0")


@dataclass(frozen=True)
class Case:
    """Two sides, the net options of both, and whether the disks come after the connection."""

    sides: tuple[Side, Side]
    net: tuple[str, str] = ("", "")
    late: bool = False

    def text(self) -> str:
        """Columns; `parse` reads them."""
        return "\t".join((*(side.text() for side in self.sides), *(net or "-" for net in self.net),
                          "late" if self.late else "early"))

    @staticmethod
    def parse(columns: list[str]) -> "Case":
        first, second, net, peer_net, late = columns
        return Case((Side.parse(first), Side.parse(second)),
                    tuple("" if each == "-" else each for each in (net, peer_net)), late == "late")


@dataclass
class Outcome:
    """What one side did."""

    compared: str = ""
    steps: list[str] = field(default_factory=list)
    end: str = ""
    uuids: str = ""

    def text(self) -> str:
        return "\t".join((self.compared or "-", "; ".join(self.steps) or "-", self.end,
                          self.uuids))


# Making cases.

def _rule(own: tuple[int, ...], peer: tuple[int, ...]) -> str:
    """Roughly which rule is going to decide, to have some of each; no test relies on it."""
    (c, b, *h), (pc, pb, *ph) = ([uuid & ~1 for uuid in each] for each in (own, peer))
    new = (JUST_CREATED, 0)
    if c in new or pc in new:
        return f"new {c in new} {pc in new}"
    if c == pc:
        kind = ("bitmaps" if b and pb else "mine" if b else "theirs" if pb else "equal")
        exact = (b == ph[0] and h[0] == ph[1]) if b else (pb == h[0] and ph[0] == h[1])
        return f"same {kind} {bool(exact and (b or pb))}"
    for mine, theirs, name in (((c, b, h), (pc, pb, ph), "behind"), ((pc, pb, ph), (c, b, h),
                                                                     "ahead")):
        if mine[0] == theirs[1]:
            return f"{name} bitmap"
        if mine[0] == theirs[2][0] and theirs[2][0] + SYNC_UUID_OFFSET == theirs[1]:
            return f"{name} lost"
        if mine[0] in theirs[2]:
            return f"{name} history"
    if b and b == pb:
        return "split"
    return f"history {bool(set(h) & set(ph))} {bool(set(h) & set(ph) - {0})}"


def _uuids(pool: list[int], chance: random.Random) -> tuple[int, ...]:
    def one(empty: float) -> int:
        if chance.random() < empty:
            return 0
        uuid = chance.choice(pool)
        if chance.random() < 0.2:
            uuid = (uuid + SYNC_UUID_OFFSET) % (1 << 64)
        return uuid | int(chance.random() < 0.3)
    current = chance.choice((JUST_CREATED, 0)) if chance.random() < 0.05 else one(0)
    return (current, one(0.5), one(0.3), one(0.4))


def _template(pool: list[int], chance: random.Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Both sides of what chance seldom makes: split brains, and resyncs whose end was lost."""
    one, two, three = pool
    extra = chance.choice((0, 0, one + SYNC_UUID_OFFSET, three))
    pair = chance.choice((
        # A split brain.
        ((two, one, three, 0), (three, one, extra, 0)),
        ((two, one, extra, 0), (three, one, extra, two)),
        # The source missed the end of a resync.
        ((two, one, three, extra), (two, 0, one, three)),
        ((two, one, three, extra), (two, 0, three, one)),
        ((two, one, three, extra), (two, extra, one, three)),
        # The target never got the UUID of the resync.
        ((two, one + SYNC_UUID_OFFSET, one, three), (one, extra, three, 0)),
        ((two, one + SYNC_UUID_OFFSET, one, extra), (one, 0, extra, three)),
        ((two, one + SYNC_UUID_OFFSET, three, one), (one, 0, 0, 0)),
    ))
    pair = tuple(tuple(uuid | (chance.random() < 0.3 and uuid != 0) for uuid in side)
                 for side in pair)
    return pair if chance.random() < 0.5 else pair[::-1]


NET_0PRI = ("discard-younger-primary", "discard-older-primary", "discard-zero-changes",
            "discard-least-changes", "discard-local", "discard-remote", "disconnect")
NET_1PRI = ("consensus", "violently-as0p", "discard-secondary", "call-pri-lost-after-sb",
            "disconnect")
NET_2PRI = ("violently-as0p", "call-pri-lost-after-sb", "disconnect")
RR_CONFLICT = ("call-pri-lost", "violently", "disconnect")
MIRRORED = {"discard-local": "discard-remote", "discard-remote": "discard-local"}


def _net(chance: random.Random) -> tuple[str, str]:
    none, one, two = (chance.choice(values) for values in (NET_0PRI, NET_1PRI, NET_2PRI))
    common = f" --after-sb-1pri={one} --after-sb-2pri={two}"
    common += f" --rr-conflict={chance.choice(RR_CONFLICT)}" if chance.random() < 0.5 else ""
    common += " --always-asbp=yes" if chance.random() < 0.5 else ""
    return tuple(f"--after-sb-0pri={policy}{common}" for policy in (none, MIRRORED.get(none, none)))


def _flags(chance: random.Random) -> int:
    if chance.random() < 0.1:
        return chance.choice((0, CONSISTENT, WAS_UP_TO_DATE, CONSISTENT | WAS_UP_TO_DATE |
                              CONNECTED_IND, CONSISTENT | WAS_UP_TO_DATE | PEER_OUT_DATED))
    crashed = chance.choice((CRASHED_PRIMARY, PRIMARY_IND)) if chance.random() < 0.3 else 0
    return CONSISTENT | WAS_UP_TO_DATE | crashed


def _side(uuids: tuple[int, ...], chance: random.Random) -> Side:
    flags = _flags(chance)
    usable = flags & CONSISTENT and flags & WAS_UP_TO_DATE and uuids[0] not in (0, JUST_CREATED)
    primary = bool(usable) and chance.random() < 0.15
    return Side(uuids, flags, chance.choice((0, 0, 1, 2, 9)), primary,
                discard=not primary and chance.random() < 0.08)


def generate(count: int, seed: int) -> list[Case]:
    """Cases that meet all rules about as often, most of them with policies."""
    chance = random.Random(seed)
    seen: dict[str, int] = {}
    cases = []
    while len(cases) < count:
        pool = [chance.getrandbits(63) << 1 & ~(1 << 63) | 1 << 40 for _ in range(3)]
        uuids = _template(pool, chance) if chance.random() < 0.2 else \
            (_uuids(pool, chance), _uuids(pool, chance))
        kind = _rule(*uuids)
        if seen.get(kind, 0) > 1.2 * len(cases) / 14 + 2:
            continue
        seen[kind] = seen.get(kind, 0) + 1
        sides = tuple(_side(each, chance) for each in uuids)
        if sides[0].discard and sides[1].discard:
            continue
        net = _net(chance) if chance.random() < 0.7 else ("", "")
        cases.append(Case(sides, net, late=chance.random() < 0.15 and
                          not any(side.primary for side in sides)))
    return cases


# Playing them.

def _partition_start(number: int) -> int:
    return (number + 1) * STRIDE_SECTORS


def _partition(disk: Path) -> None:
    """A GUID partition table with the partitions of a batch."""
    def guid(number: int) -> bytes:
        return struct.pack("<QQ", 0x44D2_4433_0FC6_3DAF, number + 1)
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", guid(99), guid(number), _partition_start(number),
                    _partition_start(number) + 2 * BACKING_KIB - 1, 0, b"")
        for number in range(BATCH)).ljust(128 * 128, b"\0")
    last = disk.stat().st_size // SECTOR - 1

    def header(own: int, other: int, table: int) -> bytes:
        def packed(check: int) -> bytes:
            return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, check, 0, own, other,
                               34, last - 33, guid(100), table, 128, 128, zlib.crc32(entries))
        return packed(zlib.crc32(packed(0)))
    protective = bytes(446) + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1,
                                          last).ljust(64, b"\0") + b"\x55\xaa"
    with open(disk, "r+b") as table:
        table.write(protective + header(1, last, 2).ljust(SECTOR, b"\0") + entries)
        table.seek((last - 32) * SECTOR)
        table.write(entries + header(last, 1, last - 32))


def machines(lab: Lab, modules: tuple[str, str]) -> tuple[Guest, Guest]:
    """Two nodes with a partition for each case of a batch, quiet helpers, and a long memory."""
    size = _partition_start(BATCH) * SECTOR + (1 << 20)
    guests = lab.pair("t", "Shentar", module=modules, tools="stock", disks=[str(size)], boot=False,
                      options=["log_buf_len=16M"], memory_mib=1536, processors=1)
    for guest in guests:
        _partition(guest.machine.disks[0])
    lab.boot(*guests)
    for guest in guests:
        # The stock drbdsetup is a program that looks for the one it then becomes.
        guest.run("modprobe drbd usermode_helper=/bin/true && echo 5 > /proc/sys/kernel/printk;"
                  "cp -f /lib/drbd/drbdsetup-84 /usr/sbin/drbdsetup")
    return guests


def _metadata_at(number: int, sector: int) -> int:
    return (_partition_start(number) + sector) * SECTOR


def _write_metadata(guest: Guest, cases: list[Case], node: int) -> None:
    with open(guest.machine.disks[0], "r+b") as disk:
        for number, case in enumerate(cases):
            disk.seek(_metadata_at(number, DATA_SECTORS))
            disk.write(case.sides[node].metadata())


def _read_uuids(guest: Guest, count: int) -> list[str]:
    found = []
    with open(guest.machine.disks[0], "rb") as disk:
        for number in range(count):
            disk.seek(_metadata_at(number, SUPERBLOCK_SECTOR) + 8)
            found.append(":".join(f"{uuid:016X}" for uuid in struct.unpack(">4Q", disk.read(32))))
    return found


def _attach(number: int) -> str:
    disk = f"/dev/vda{number + 1}"
    return f"drbdsetup attach {number} {disk} {disk} internal --c-plan-ahead=0 --resync-rate=50M"


def _set_up(cases: list[Case], node: int) -> list[str]:
    lines = []
    for number, case in enumerate(cases):
        lines += [f"drbdsetup new-resource r{number}",
                  f"drbdsetup new-minor r{number} {number} 0"]
        if not case.late:
            lines.append(_attach(number))
        if case.sides[node].primary:
            lines.append(f"drbdsetup primary {number}")
    return lines


def _connect(cases: list[Case], node: int) -> list[str]:
    lines = []
    for number, case in enumerate(cases):
        ends = [f"ipv4:192.0.2.{end}:{PORT + number}" for end in (1, 2)]
        if node == 1:
            ends.reverse()
        discard = " --discard-my-data" if case.sides[node].discard else ""
        lines.append(f"drbdsetup connect r{number} {' '.join(ends)} --timeout=600 --ping-timeout="
                     f"300 --connect-int=60 {case.net[node]}{discard}")
    return lines


def _attach_late(cases: list[Case]) -> list[str]:
    return [_attach(number) + " || echo refused" for number, case in enumerate(cases) if case.late]


def _begin(guest: Guest, lines: list[str]):
    """Run lines in a file, since there are many; says which of them failed."""
    trap = "trap 'echo FAILED: $BASH_COMMAND' ERR"
    guest.write("/tmp/batch", "\n".join([trap, *lines, ""]))
    return guest.spawn(". /tmp/batch; true", timeout_s=BATCH_TIMEOUT_S)


def _finish(guest: Guest, process) -> str:
    result = process.wait()
    assert result.code == 0 and "FAILED" not in result.out, \
        f"{guest.name}: {result.out}{result.err}"
    return result.out


def _run(guest: Guest, lines: list[str]) -> str:
    return _finish(guest, _begin(guest, lines))


def _both(guests: tuple[Guest, Guest], scripts: list[list[str]]) -> list[str]:
    """Side by side."""
    running = [_begin(guest, lines) for guest, lines in zip(guests, scripts)]
    return [_finish(guest, process) for guest, process in zip(guests, running)]


def _settled(guest: Guest, count: int):
    """States once nothing moves any more, be it that something hangs.

    Who was left by its peer waits for a connection; that is rest, too.
    """
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    before, since = None, 0.0
    while True:
        states = minors(guest.read("/proc/drbd"))
        assert len(states) == count
        moving = [minor for minor in states.values()
                  if BUSY.match(minor.connection) and minor.connection != "WFConnection"]
        if moving != before:
            before, since = moving, time.monotonic()
        if not moving or time.monotonic() > since + STILL_S:
            return states
        assert time.monotonic() < deadline, f"{guest.name}: {moving}"
        time.sleep(0.5)


def play(guests: tuple[Guest, Guest], cases: list[Case]) -> list[tuple[Outcome, Outcome]]:
    """One batch, from metadata to `down`."""
    mark = f"test: batch {random.getrandbits(32):08x}"
    for node, guest in enumerate(guests):
        guest.run(f"echo '{mark}' > /dev/kmsg")
        _write_metadata(guest, cases, node)
    _both(guests, [_set_up(cases, node) for node in (0, 1)])
    for node, guest in enumerate(guests):
        _run(guest, _connect(cases, node))
    if any(case.late for case in cases):
        _wait_connected(guests, cases)
        for guest in guests:
            _run(guest, _attach_late(cases))
    states = [_settled(guest, len(cases)) for guest in guests]
    # The slower of the two may have taken the faster along.
    states = [_settled(guest, len(cases)) for guest in guests]
    logs = [guest.dmesg().partition(mark)[2] for guest in guests]
    down = [f"drbdsetup down r{number}" for number in range(len(cases))]
    _both(guests, [down, down])
    uuids = [_read_uuids(guest, len(cases)) for guest in guests]
    return [tuple(_outcome(number, logs[node], states[node][number], uuids[node][number])
                  for node in (0, 1)) for number, case in enumerate(cases)]


def _wait_connected(guests: tuple[Guest, Guest], cases: list[Case]) -> None:
    late = [number for number, case in enumerate(cases) if case.late]
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    for guest in guests:
        while True:
            states = minors(guest.read("/proc/drbd"))
            if all(states[number].connection == "Connected" for number in late):
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)


# What is said on the way to a decision, and what of it.
TOLD = (
    (re.compile(r"uuid_compare\(\)=(-?\d+) by rule (\d+)"), "compare {} {}"),
    (re.compile(r"Becoming sync (\w+) due to disk states"), "disks {}"),
    (re.compile(r"helper command: /bin/true ([\w-]+sb|split-brain|initial-split-brain|pri-lost)\b"
                r"(?!.*exit code)"), "helper {}"),
    (re.compile(r"Split-Brain detected, (\d) primaries, automatically solved. Sync from (\w+)"),
     "solved {} {}"),
    (re.compile(r"Split-Brain detected, manually solved. Sync from (\w+)"), "chosen {}"),
    (re.compile(r"Doing a full sync, since UUIDs where ambiguous"), "full"),
    (re.compile(r"Split-Brain detected but unresolved"), "unsolved"),
    (re.compile(r"Unrelated data"), "unrelated"),
    (re.compile(r"Configuration error"), "misconfigured"),
    (re.compile(r"Discard younger/older primary did not find"), "no age"),
    (re.compile(r"I shall become SyncSource, but"), "inconsistent source"),
    (re.compile(r"I shall become SyncTarget, but"), "primary target"),
    (re.compile(r"violating the stable-data"), "violently"),
    (re.compile(r"No resync, but (\d+) bits"), "bits {}"),
    (re.compile(r"Writing the whole bitmap, (full sync required after drbd_sync_handshake)"),
     "all bits"),
    (re.compile(r"Began resync as (\w+) \(will sync (\d+) KB"), "resync {} {}"),
    (re.compile(r"State change failed: (.*)"), "refused {}"),
)


def _outcome(number: int, log: str, state, uuids: str) -> Outcome:
    lines = [line for line in log.split("\n")
             if f" r{number}/0 " in line or f" drbd{number}: " in line or f" r{number}: " in line]
    outcome = Outcome()
    sets = {}
    for line in lines:
        found = re.search(r"(self|peer) ([0-9A-F:]{67}) bits:(\d+) flags:([0-9A-F]+)", line)
        # After a correction the C driver tells them again.
        if found and found[1] not in sets:
            sets[found[1]] = f"{found[2]},{found[3]},{found[4]}"
        for pattern, form in TOLD:
            found = pattern.search(line)
            if found:
                outcome.steps.append(form.format(*found.groups()))
    if sets:
        outcome.compared = f"{sets['self']} {sets['peer']}"
    # Who saw the other leave, and when, is chance: both are apart.
    connection = "apart" if state.connection in ("WFConnection", "StandAlone") else \
        state.connection
    outcome.end = f"{connection} {state.role} {state.disk}"
    if connection != "apart":
        outcome.end += f" {state.peer_role} {state.peer_disk}"
    outcome.uuids = uuids
    return outcome


# Records. A UUID's value says nothing, so a line names each by a letter: `B` is the second that it
# mentions, `B1` the UUID of a resync that was made of it, and `+` the lowest bit.

SET = re.compile(r"\b[0-9A-F]{16}(?::[0-9A-F]{16}){3}\b")
NAMED_SET = re.compile(r"(?<=\t)[^\t:,]+(?::[^\t:, ]+){3}|(?<= )[^\t:, ]+(?::[^\t:, ]+){3}(?=,)")


def short(line: str) -> str:
    """The line with names for its UUIDs."""
    known: list[int] = []

    def name(text: str) -> str:
        uuid, bit = int(text, 16) & ~1, int(text, 16) & 1
        if uuid in (0, JUST_CREATED):
            return str(uuid | bit)
        for letter, base in zip(string.ascii_uppercase, known):
            distance, rest = divmod(uuid - base, SYNC_UUID_OFFSET)
            if not rest and abs(distance) < 8:
                return f"{letter}{distance or ''}{'+' * bit}"
        known.append(uuid)
        return f"{string.ascii_uppercase[len(known) - 1]}{'+' * bit}"
    return SET.sub(lambda found: ":".join(map(name, found[0].split(":"))), line)


def _uuid(name: str) -> int:
    """A number for a name."""
    if name[0].isdigit():
        return int(name)
    letter, bit = name.rstrip("+"), name.endswith("+")
    number = string.ascii_uppercase.index(letter[0]) + 1
    return (number << 56 | 0x40_5A5A_5A5A_5A50) + int(letter[1:] or 0) * SYNC_UUID_OFFSET + bit


def long(line: str) -> str:
    """The line with numbers for its names."""
    return NAMED_SET.sub(
        lambda found: ":".join(f"{_uuid(name):016X}" for name in found[0].split(":")), line)


Recorded = tuple[Case, tuple[Outcome, Outcome]]


def read(path) -> list[Recorded]:
    """Cases and what came of them, as `scripts/record-generations` wrote them."""
    recorded = []
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        columns = long(line).split("\t")[1:]
        outcomes = []
        for compared, steps, end, uuids in (columns[5:9], columns[9:13]):
            outcomes.append(Outcome("" if compared == "-" else compared,
                                    [] if steps == "-" else steps.split("; "), end, uuids))
        recorded.append((Case.parse(columns[:5]), tuple(outcomes)))
    return recorded


def _neutral(case: Case, text: str) -> str:
    """Without the UUIDs that a driver made up, and without what says nothing about the data.

    Bit 0 of a current UUID tells the role of the moment; no comparison looks at it. The flag 4 of
    P_UUIDS means something only while the sender attaches; the C driver remembers it afterwards.
    """
    known = {uuid & ~1 for side in case.sides for uuid in side.uuids}
    known |= {(uuid + SYNC_UUID_OFFSET) % (1 << 64) for uuid in known} | {0, JUST_CREATED}

    def name(found: re.Match[str]) -> str:
        uuid = int(found[0], 16)
        return found[0] if uuid & ~1 in known else "new"

    def current(found: re.Match[str]) -> str:
        return f"{int(found[1], 16) & ~1:016X}:"
    text = re.sub(r"\b([0-9A-F]{16}):(?=[0-9A-F]{16}:[0-9A-F]{16}:)", current, text)
    text = re.sub(r"\b[0-9A-F]{16}\b", name, text)
    if case.late:
        text = re.sub(r",([0-7])(?= |$)", lambda found: f",{int(found[1]) & ~4}", text)
    return text


# Where our driver decides otherwise on purpose (Documentation/interoperability.md).
#
# What the C driver says, what ours says instead, and whose writes are kept: those of the node that
# says it, or of the other; the C driver makes it the target.
KEEPS_WRITES = {"compare -1 50": ("compare -100 49", 0), "compare 1 70": ("compare -100 69", 1)}
# Rule 38 stands in front of rules 40 and 41; whose bits count, both nodes know.
STALE_BITMAP = (re.compile(r"compare -?\d+ 4[01]$"), "compare -100 38")
KEEPS_BITMAP = re.compile(r"compare -?\d+ (34|35)$")
# The peer of a disk that is attached late hears of the bitmap UUID, which the C driver has retired.
HEARS_OF_BITMAP = {"compare 0 40": "compare -1 35"}


def _verdict(outcome: Outcome) -> str:
    return next((step for step in outcome.steps if step.startswith("compare")), "")


def _splits(want: Outcome, got: Outcome) -> bool:
    """Whether ours called it a split brain where the C driver does not, and may."""
    pattern, instead = STALE_BITMAP
    return KEEPS_WRITES.get(_verdict(want), ("", 0))[0] == _verdict(got) != "" or \
        bool(pattern.match(_verdict(want))) and _verdict(got) == instead


def _splits_instead(recorded: Recorded, outcomes: tuple[Outcome, Outcome]) -> list[str] | None:
    """Ours calls it a split brain where the source of a resync never heard of its end and has bits.

    Returns what is wrong with that, None if it did not.
    """
    case, wanted = recorded
    splits = [_splits(want, got) for want, got in zip(wanted, outcomes)]
    if not any(splits):
        return None
    found = []
    for node, (want, got) in enumerate(zip(wanted, outcomes)):
        writers = (node ^ KEEPS_WRITES[_verdict(want)][1],) if _verdict(want) in KEEPS_WRITES \
            else (0, 1)
        if splits[node] and not any(case.sides[writer].bits for writer in writers):
            found.append(f"node {node} keeps what nobody wrote")
        # Whether a node compared before the other left is chance.
        both_compared = got.compared and want.compared
        if both_compared and not splits[node] and _verdict(want) != _verdict(got):
            found.append(f"node {node} steps: wanted {want.steps}, got {got.steps}")
        # A split brain that is solved is a full sync: more bits than were recorded.
        sets = [re.sub(r",\d+,\d+", "", _neutral(case, each.compared)) for each in (want, got)]
        if both_compared and sets[0] != sets[1]:
            found.append(f"node {node} compared: wanted {want.compared}, got {got.compared}")
    ends = [got.end.split()[0] for got in outcomes]
    if any("unsolved" in got.steps for got in outcomes):
        good = ends == ["apart", "apart"]
    else:
        # Solved by a policy, of which a C driver as the peer knows nothing: both may mean to be the
        # target, or the source, one may leave, or wait for a bitmap that the other does not send.
        good = ends[0] == ends[1] or any(end.startswith("WFBitMap") for end in ends)
    if not good:
        found.append(f"ends: wanted {[want.end for want in wanted]}, "
                     f"got {[(got.steps, got.end) for got in outcomes]}")
    return [f"{text}\n    {case.text()}" for text in found]


def _comparable(outcome: Outcome) -> list[str]:
    """The steps, but for those that chance decides."""
    # Of two Primaries the one is refused that comes to it first.
    return [step for step in outcome.steps if not step.startswith("refused Multiple primaries")]


def _without_history(uuids: str) -> str:
    """The UUIDs but for the younger history UUID."""
    return ":".join(uuid for place, uuid in enumerate(uuids.split(":")) if place != 2)


def differences(recorded: Recorded, outcomes: tuple[Outcome, Outcome]) -> list[str]:
    """What the nodes did that the recorded ones did not.

    One node may leave before the other has compared anything. That is chance, so of a node that
    compared in one of the two runs only nothing is said, as long as the other one did. Neither of
    the UUIDs that a Primary ends with: they depend on who goes down first.
    """
    case, wanted = recorded
    splits = _splits_instead(recorded, outcomes)
    if splits is not None:
        return splits
    found = []
    if case.late and any("WFBitMap" in want.end for want in wanted) and \
            all(got.end == "Connected Secondary UpToDate Secondary UpToDate" for got in outcomes):
        # The two C drivers, of which one had heard of a bitmap UUID that the other had retired,
        # waited for each other. Ours did not.
        return found
    keeps_bitmap = any(KEEPS_BITMAP.match(_verdict(each)) for each in wanted)
    for node, (want, got) in enumerate(zip(wanted, outcomes)):
        if bool(want.compared) != bool(got.compared):
            continue
        fields = {"compared": (want.compared, got.compared),
                  "steps": tuple("; ".join(_comparable(each)) for each in (want, got)),
                  "end": (want.end, got.end), "uuids": (want.uuids, got.uuids)}
        if keeps_bitmap:
            fields["uuids"] = tuple(map(_without_history, fields["uuids"]))
            instead = HEARS_OF_BITMAP.get(_verdict(want))
            if case.late and _verdict(got) == instead:
                fields["steps"] = (fields["steps"][0].replace(_verdict(want), instead),
                                   fields["steps"][1])
                del fields["compared"]
        if any(side.primary for side in case.sides):
            del fields["uuids"]
        if "helper pri-lost-after-sb" in want.steps and all(side.primary for side in case.sides):
            # Whether it is still connected when it becomes Secondary is chance.
            del fields["steps"], fields["end"]
        if any("primary target" in each.steps for each in wanted):
            # It leaves; how far the other had come until then is chance.
            if "end" in fields:
                fields["end"] = tuple(end.replace("Outdated", "UpToDate")
                                      for end in fields["end"])
        for what, texts in fields.items():
            pair = [_neutral(case, text) for text in texts]
            if pair[0] != pair[1]:
                found.append(f"node {node} {what}: wanted {pair[0]}, got {pair[1]}\n    "
                             f"{case.text()}")
    if not any(outcome.compared for outcome in outcomes):
        found.append("neither node compared anything")
    return found
