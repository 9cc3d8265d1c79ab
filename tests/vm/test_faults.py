# SPDX-License-Identifier: GPL-2.0
"""The fault matrix: fault × when × protocol × drivers, under an application that remembers.

t is Primary and its application writes, alone or beside a resync of the peer. Something breaks, and
is mended. The application has to survive it where the node does; afterwards both nodes come back to
UpToDate by themselves (a disk that was lost is attached by the admin), the disks are equal, and
every acknowledged write is read on either node.

The faults of a column follow each other on one pair, and the ledger remembers all of them: what an
earlier fault lost is missed by each later one. A cell that fails takes its pair with it.

A few cells run every day; `--long` runs all. What became of each is written to
`build/fault-matrix.json`, and as tables to `build/fault-matrix.md`; runs add to both, also side by
side.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from config import resource
from drbdvm import Lab
from scenario import Flavour, Node, ledger, life, node_pair, same_data
from scenario.ledger import Pair, let_it_write

BUILD = Path(__file__).resolve().parents[2] / "build"
PAIRS = {"ours-ours": ("ours", "ours"), "ours-C": ("ours", "c"), "C-ours": ("c", "ours"),
         "C-C": ("c", "c")}
WHEN = ("writes", "resync")
BACKING = "/dev/mapper/backing"
# More extents than the smallest activity log holds.
LARGE = "320M"
# While a fault lasts the application goes on for so long.
WHILE_S = 1.0
ON_THE_WAY_S = 10
# What a node is at: states, what its disks have not answered, where its threads wait.
AT = ("cat /proc/drbd; grep . /sys/block/*/inflight; for task in /proc/[0-9]*; do "
      "grep -Hs drbd $task/comm && cat $task/stack; done; true")


@dataclass(frozen=True)
class Pace:
    """How soon nodes give each other up, and how much a resync has to do."""

    net: str
    disk: str
    disk_options: str
    processors: int | None = None


PATIENT = Pace(f"{life.PATIENCE} ko-count 2;", life.DISK, life.FAST)
# Where guests run at the host's speed. A resync beside the application is slowed down to no less
# than c-min-rate: by default it takes longer than all the rest.
BRISK = Pace("timeout 15; ko-count 5; ping-int 2; ping-timeout 30; connect-int 2;", "8M",
             f"{life.FAST} c-min-rate 4M;", processors=1)


@dataclass
class Cell:
    """What a fault is done to."""

    lab: Lab
    primary: Node
    secondary: Node
    writer: object

    def go_on(self):
        """The application goes on as it is."""
        let_it_write(self.writer, WHILE_S)

    def lost(self, node: Node):
        """Wait until a node has noticed that its peer is gone."""
        node.wait_state(r"cs:(WFConnection|Unconnected) ro:\w+/Unknown", life.OUTAGE_TIMEOUT_S)


def table(node: Node, what: str) -> str:
    """The device-mapper's table of a disk: its data lie in front of its metadata."""
    whole = node.guest.machine.disks[0].stat().st_size // 512
    # The bitmap in whole blocks, log and super block (Spec §2.1).
    data = whole - (-(-whole // 32768) + 7) // 8 * 8 - 72
    return {
        "good": f"0 {whole} linear /dev/vda 0",
        "data": f"0 {data} error\n{data} {whole - data} linear /dev/vda {data}",
        "metadata": f"0 {data} linear /dev/vda 0\n{data} {whole - data} error",
        "slow": f"0 {whole} delay /dev/vda 0 300",
    }[what]


def disk(node: Node, what: str):
    """What a backing disk is from now on."""
    node.run(f"dmsetup load --noudevsync backing <<< '{table(node, what)}' && "
             "dmsetup resume --noudevsync backing")


def attach(node: Node):
    """Attach again a disk that was given up, once it is let go."""
    node.wait_state(r"ds:Diskless/", life.OUTAGE_TIMEOUT_S)
    node.run("drbdadm attach r0")
    # What is Negotiating counts as none with stock drbdadm.
    node.wait_state(r"ds:(Inconsistent|Outdated|Consistent|UpToDate)/", life.OUTAGE_TIMEOUT_S)


def start(node: Node):
    """A disk that can break, and the driver."""
    node.run(f"modprobe dm_mod; dmsetup create --noudevsync --noudevrules backing "
             f"<<< '{table(node, 'good')}' && dmsetup mknodes && modprobe drbd")


def come_back(node: Node):
    node.boot()
    start(node)
    node.up()


def power_of_primary(cell: Cell):
    cell.primary.guest.kill()
    come_back(cell.primary)
    cell.primary.wait_synced()
    cell.primary.primary()


def power_of_secondary(cell: Cell):
    cell.secondary.guest.kill()
    cell.lost(cell.primary)
    cell.go_on()
    come_back(cell.secondary)


def power_of_both(cell: Cell):
    cell.primary.guest.kill()
    cell.secondary.guest.kill()
    for node in (cell.secondary, cell.primary):
        come_back(node)
    cell.primary.wait_synced()
    cell.primary.primary()


def wire_cut(cell: Cell):
    cell.lab.cut_wire()
    for node in (cell.primary, cell.secondary):
        cell.lost(node)
    cell.go_on()
    cell.lab.plug_wire()


def half_open(cell: Cell):
    """The secondary hears, but is not heard."""
    cell.secondary.run(f"modprobe sch_netem; tc qdisc add dev {life.NIC} root netem loss 100%")
    cell.lost(cell.primary)
    cell.go_on()
    cell.secondary.run(f"tc qdisc del dev {life.NIC} root")


def delay_and_loss(cell: Cell):
    for node in (cell.primary, cell.secondary):
        node.run(f"modprobe sch_netem; tc qdisc add dev {life.NIC} root netem delay 20ms 10ms "
                 "loss 3%")
    let_it_write(cell.writer, 3 * WHILE_S)
    for node in (cell.primary, cell.secondary):
        node.run(f"tc qdisc del dev {life.NIC} root")


def peer_stalls(cell: Cell):
    """Its processor stands still; its network card takes what comes."""
    cell.secondary.guest.stop()
    cell.lost(cell.primary)
    cell.go_on()
    cell.secondary.guest.cont()


def disk_breaks(node: str, what: str) -> Callable[[Cell], None]:
    def fault(cell: Cell):
        broken = getattr(cell, node)
        disk(broken, what)
        if node == "secondary" and what == "metadata":
            # It has nothing to write there until it is alone.
            cell.lab.cut_wire()
            cell.lost(cell.secondary)
            cell.lab.plug_wire()
        broken.wait_state(r"ds:Diskless/", life.OUTAGE_TIMEOUT_S)
        time.sleep(WHILE_S)
        disk(broken, "good")
        attach(broken)
    return fault


def disk_is_slow(cell: Cell):
    cell.secondary.run("modprobe dm_delay || true")
    disk(cell.secondary, "slow")
    let_it_write(cell.writer, 3 * WHILE_S)
    disk(cell.secondary, "good")


def detach_by_force(node: str) -> Callable[[Cell], None]:
    def fault(cell: Cell):
        detached = getattr(cell, node)
        detached.run("drbdadm detach --force r0")
        time.sleep(WHILE_S)
        attach(detached)
    return fault


def disconnect_by_force(cell: Cell):
    cell.primary.run("drbdadm disconnect --force r0")
    cell.go_on()
    for node in (cell.primary, cell.secondary):
        node.run("drbdadm adjust r0")


def secondary_goes_down(cell: Cell):
    cell.secondary.down()
    cell.go_on()
    cell.secondary.up()


@dataclass(frozen=True)
class Fault:
    """What breaks."""

    act: Callable[[Cell], None]
    # The node on which the application runs goes down with it.
    kills: bool = False
    # More than the activity log covers, so that the metadata are written all the time.
    is_large: bool = False
    # Beside a resync the only good data are gone for a while: the application gets an error.
    takes_the_source: bool = False


FAULTS = {
    "power of the primary": Fault(power_of_primary, kills=True),
    "power of the secondary": Fault(power_of_secondary),
    "power of both": Fault(power_of_both, kills=True),
    "wire cut": Fault(wire_cut),
    "half-open": Fault(half_open),
    "delay and loss": Fault(delay_and_loss),
    "peer stalls": Fault(peer_stalls),
    "data errors, primary": Fault(disk_breaks("primary", "data"), takes_the_source=True),
    "data errors, secondary": Fault(disk_breaks("secondary", "data")),
    "metadata errors, primary": Fault(disk_breaks("primary", "metadata"), is_large=True,
                                      takes_the_source=True),
    "metadata errors, secondary": Fault(disk_breaks("secondary", "metadata")),
    "slow disk, secondary": Fault(disk_is_slow),
    "detach --force, primary": Fault(detach_by_force("primary"), takes_the_source=True),
    "detach --force, secondary": Fault(detach_by_force("secondary")),
    "disconnect --force": Fault(disconnect_by_force),
    "down, secondary": Fault(secondary_goes_down),
}
EVERY_DAY = {
    ("half-open", "resync", "C", "ours-ours"),
    ("data errors, primary", "writes", "C", "ours-ours"),
    ("metadata errors, secondary", "writes", "B", "ours-ours"),
}
# What the C driver does as the Primary, whatever its peer is: a write that its own disk refused and
# only the target of its resync took is acknowledged, and then overwritten by that resync.
C_LOSES = ("data errors, primary", "resync")
# What it says when a disk answers that was given up by force.
C_PANICS = "Kernel panic - not syncing: drbd0 r0/0 potential random memory corruption caused by " \
           "delayed completion of aborted local request"
# Those that need a pair of their own come last.
IN_TURN = sorted(FAULTS, key=lambda name: FAULTS[name].is_large)
CELLS = [(fault, when, protocol, drivers) for drivers in PAIRS for protocol in "CBA"
         for when in WHEN for fault in IN_TURN]


class Column:
    """The pair on which the faults of a column follow each other, and its ledger."""

    def __init__(self):
        self._lab: Lab | None = None
        self._pair: Pair | None = None
        self._kind = None
        # As long as a cell has not ended well nothing is known about its pair.
        self.is_in_doubt = False

    def take(self, cell: tuple[str, ...]) -> tuple[Lab, Pair]:
        """The pair that the last cell left in order, or a new one where this cell needs another."""
        kind = (cell[1:], FAULTS[cell[0]].is_large)
        if self._kind != kind:
            self.close()
            self._lab = Lab(keep=f"test_faults-{name_of(cell)}")
            self._pair = boot(self._lab, cell)
            self._kind = kind
        return self._lab, self._pair

    def tell(self):
        """Print what the nodes are at."""
        for guest in self._lab.guests if self._lab else []:
            with contextlib.suppress(AssertionError, OSError):
                guest.run(AT, check=False, timeout_s=20)

    def close(self):
        if self._lab:
            self._lab.close()
        self._lab = self._kind = None


def pace_of(lab: Lab) -> Pace:
    return BRISK if lab.lane == "um" else PATIENT


def boot(lab: Lab, cell: tuple[str, ...]) -> Pair:
    """Two nodes that are in sync; the first one is Primary."""
    name, _, protocol, drivers = cell
    is_large = FAULTS[name].is_large
    pace = pace_of(lab)
    conf = resource(protocol=protocol, net=pace.net, disk=BACKING,
                    disk_options=f"{pace.disk_options} al-extents 7;")
    flavours = tuple(Flavour(module, "stock") for module in PAIRS[drivers])
    nodes = node_pair(lab, flavours, conf, files=ledger.files(lab),
                      disks=[LARGE if is_large else pace.disk], processors=pace.processors)
    for node in nodes:
        start(node)
    life.bring_up(nodes)
    primary, secondary = nodes
    if is_large:
        # The disks are as new, and equal.
        primary.run("drbdsetup new-current-uuid 0 --clear-bitmap")
        primary.wait_synced()
        primary.primary()
    else:
        life.first_sync(primary, secondary)
    return Pair(nodes)


def known_of_c(cell: tuple[str, ...], trouble: Exception) -> str | None:
    """What the C driver is known to do to this cell, if that is what happened."""
    name, when, _, drivers = cell
    primary, secondary = PAIRS[drivers]
    told = str(trouble)
    if primary == "c" and (name, when) == C_LOSES and " was acknowledged, " in told:
        return "lost by C"
    detached = {"detach --force, primary": primary, "detach --force, secondary": secondary}
    if detached.get(name) == "c" and C_PANICS in told:
        return "panic of C"
    return None


def note(cell: tuple[str, ...], took_s: float, trouble: Exception | None = None):
    """Write down what became of a cell."""
    outcome = "held"
    if trouble:
        outcome = known_of_c(cell, trouble) or "**failed**"
    why = {"why": f"{type(trouble).__name__}: {trouble}"[:300]} if trouble else {}
    BUILD.mkdir(exist_ok=True)
    file = BUILD / "fault-matrix.json"
    with open(BUILD / "fault-matrix.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(file.read_text()) if file.exists() else {}
        known["|".join(cell)] = {
            "outcome": outcome, "lane": os.environ.get("DRBD_LANE") or "stock",
            "date": time.strftime("%Y-%m-%d"), "took_s": round(took_s, 1), **why}
        file.write_text(json.dumps(known, indent=1, ensure_ascii=False))
        tables = (as_table(drivers, known) for drivers in PAIRS)
        (BUILD / "fault-matrix.md").write_text("\n".join(filter(None, tables)))


def as_table(drivers: str, known: dict[str, dict]) -> str:
    """What is known of a pair of drivers; nothing if that is nothing."""
    columns = [(protocol, when) for protocol in "CBA" for when in WHEN]
    lines = [f"| {drivers} | " + " | ".join(f"{protocol}, {when}" for protocol, when in columns)
             + " |", "| --- |" + " --- |" * len(columns)]
    runs = set()
    for fault in FAULTS:
        found = [known.get(f"{fault}|{when}|{protocol}|{drivers}") for protocol, when in columns]
        runs |= {(cell["lane"], cell["date"]) for cell in found if cell}
        lines.append(f"| {fault} | "
                     + " | ".join(cell["outcome"] if cell else "" for cell in found) + " |")
    told = ", ".join(f"lane `{lane}` {date}" for lane, date in sorted(runs))
    return "\n".join([*lines, "", f"{told}.", ""]) if runs else ""


def name_of(cell: tuple[str, ...]) -> str:
    return "_".join(cell).replace(",", "").replace(" ", "-")


@pytest.fixture(params=CELLS, ids=name_of)
def cell(request) -> tuple[str, ...]:
    if request.param not in EVERY_DAY and not request.config.getoption("long"):
        pytest.skip("takes minutes; give --long")
    return request.param


@pytest.fixture(scope="module")
def columns():
    column = Column()
    yield column
    column.close()


@pytest.fixture
def column(columns):
    columns.is_in_doubt = True
    yield columns
    if columns.is_in_doubt:
        columns.close()


def test_nothing_is_lost(cell, column):
    begun = time.monotonic()
    try:
        play(cell, *column.take(cell))
    except Exception as trouble:
        note(cell, time.monotonic() - begun, trouble)
        column.tell()
        if known := known_of_c(cell, trouble):
            pytest.xfail(known)
        raise
    column.is_in_doubt = False
    note(cell, time.monotonic() - begun)


def play(cell: tuple[str, ...], lab: Lab, pair: Pair):
    """One cell of the matrix."""
    name, when, protocol, _ = cell
    fault = FAULTS[name]
    nodes = primary, secondary = pair.nodes
    for node in nodes:
        node.run(f"echo 'test: {name}' > /dev/kmsg")
    primary.primary()
    if when == "resync":
        for node in nodes:
            node.run("drbdsetup disk-options 0 --resync-rate=400k")
        secondary.run("drbdadm invalidate r0")
        primary.wait_state("cs:SyncSource")
    writer = pair.start_writing(primary)
    let_it_write(writer, WHILE_S)
    fault.act(Cell(lab, primary, secondary, writer))
    # The target's rate counts.
    for node in nodes:
        node.run("drbdadm adjust r0")
    for node in nodes:
        node.wait_synced()
    if not fault.kills:
        may_fail = fault.takes_the_source and when == "resync"
        writer.close_input()
        result = writer.wait()
        assert may_fail or result.code == 0, f"the application got an error: {result.err[-500:]}"
    pair.take_down(writer)
    # A connection that was lost once more, on a busy host, comes back by itself.
    for node in nodes:
        node.wait_synced()
    primary.secondary()
    arrive(pair, 0 if protocol == "C" else ON_THE_WAY_S)
    for node in nodes:
        pair.check(node)
    lab.check()


def arrive(pair: Pair, within_s: float):
    """The disks are equal, or become so: a write of protocol A or B may be on its way to the peer's
    when the application is told that it is done, and the C driver's `secondary` does not wait.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            same_data(*pair.nodes, pair.size_bytes())
            return
        except AssertionError:
            if time.monotonic() > deadline:
                print(differences(pair))
                raise
        time.sleep(0.5)


def differences(pair: Pair) -> str:
    """Which versions of which blocks the disks hold, and which were acknowledged."""
    told = []
    chunks = (node.backing_data(pair.size_bytes()) for node in pair.nodes)
    data = [b"".join(chunk) for chunk in chunks]
    for block in range(pair.blocks):
        at = block * ledger.BLOCK_KIB * 1024
        here, there = (disk[at:at + 24] for disk in data)
        if here != there:
            versions = (int.from_bytes(which[16:24], "little") for which in (here, there))
            known = pair.acknowledged.get(block, 0)
            told.append(f"block {block}: " + ", ".join(f"{version:#x}" for version in versions)
                        + f"; {known:#x} was acknowledged")
    return "\n".join(told)
