# SPDX-License-Identifier: GPL-2.0
"""The fault matrix: fault × when × protocol × drivers, under an application that remembers.

t is Primary and its application writes, alone or beside a resync of the peer. Something breaks, and
is mended. The application has to survive it where the node does; afterwards both nodes come back to
UpToDate by themselves (a disk that was lost is attached by the admin), the disks are equal, and
every acknowledged write is read on either node.

A few cells run every day; `--long` runs all. What became of each is written to
`build/faults.json`, and as a table to `build/faults.md`; runs add to both.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from config import resource
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


@dataclass
class Cell:
    """What a fault is done to."""

    lab: object
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
        broken.run("drbdadm attach r0")
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
        detached.run("drbdadm attach r0")
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
CELLS = [(fault, when, protocol, drivers) for drivers in PAIRS for protocol in "CBA"
         for when in WHEN for fault in FAULTS]


def note(cell: tuple[str, ...], outcome: str):
    """Write down what became of a cell."""
    BUILD.mkdir(exist_ok=True)
    file = BUILD / "faults.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    known["|".join(cell)] = outcome
    file.write_text(json.dumps(known, indent=1, ensure_ascii=False))
    columns = [(drivers, protocol, when) for drivers in PAIRS for protocol in "CBA"
               for when in WHEN if any(f"|{when}|{protocol}|{drivers}" in key for key in known)]
    lines = ["| fault | " + " | ".join(f"{drivers} {protocol}, {when}"
                                        for drivers, protocol, when in columns) + " |",
             "| --- |" + " --- |" * len(columns)]
    for fault in FAULTS:
        found = [known.get(f"{fault}|{when}|{protocol}|{drivers}", "")
                 for drivers, protocol, when in columns]
        lines.append(f"| {fault} | " + " | ".join(found) + " |")
    (BUILD / "faults.md").write_text("\n".join(lines) + "\n")


def name_of(cell: tuple[str, ...]) -> str:
    return "_".join(cell).replace(",", "").replace(" ", "-")


@pytest.fixture(params=CELLS, ids=name_of)
def cell(request) -> tuple[str, ...]:
    if request.param not in EVERY_DAY and not request.config.getoption("long"):
        pytest.skip("takes minutes; give --long")
    return request.param


def test_nothing_is_lost(cell, lab):
    try:
        play(*cell, lab)
    except Exception:
        note(cell, "**failed**")
        raise
    note(cell, "held")


def play(name: str, when: str, protocol: str, drivers: str, lab):
    """One cell of the matrix."""
    fault = FAULTS[name]
    conf = resource(protocol=protocol, net=f"{life.PATIENCE} ko-count 2;", disk=BACKING,
                    disk_options=f"{life.FAST} al-extents 7;")
    flavours = tuple(Flavour(module, "stock") for module in PAIRS[drivers])
    nodes = node_pair(lab, flavours, conf, files=ledger.files(lab),
                      disks=[LARGE if fault.is_large else life.DISK])
    for node in nodes:
        start(node)
    life.bring_up(nodes)
    primary, secondary = nodes
    if fault.is_large:
        # The disks are as new, and equal.
        primary.run("drbdsetup new-current-uuid 0 --clear-bitmap")
        primary.wait_synced()
        primary.primary()
    else:
        life.first_sync(primary, secondary)
    pair = Pair(nodes)
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
    primary.secondary()
    same_data(*nodes, pair.size_bytes())
    for node in nodes:
        pair.check(node)
