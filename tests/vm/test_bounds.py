# SPDX-License-Identifier: GPL-2.0
"""No admin command waits longer than Documentation/faults.md says, whatever hangs meanwhile.

A peer stands still, or a disk does not answer, or a signal comes while the command waits. The
command ends within its bound, with success or with a message; when what hung goes on, both nodes
are taken down, and the module is unloaded.

A few cells run every day; `--long` runs all. How long each took is written to `build/bounds.json`.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from config import resource
from scenario import life, node_pair

BUILD = Path(__file__).resolve().parents[2] / "build"
BACKING = "/dev/mapper/backing"
# An answer is awaited for at least ten seconds.
ANSWER_S = 10
NET = "timeout 20; ko-count 2; ping-int 3; ping-timeout 20; connect-int 3;"
CONF = resource(net=NET, disk=BACKING, disk_options=life.FAST)
# A program's start, and its turn on a busy processor.
START_S = 3
# When the admin gives up a disk that hangs.
RESCUE_S = 15
WRITER = ("rm -f /tmp/stop; until [ -e /tmp/stop ]; do dd if=/dev/zero of=/dev/drbd0 bs=64k "
          "count=8 oflag=direct conv=notrunc status=none 2>/dev/null || sleep 0.1; done")
# How a node is brought back to nothing: `down` is the sum of its parts.
DOWN_S = 50 + 70 + 120


@dataclass(frozen=True)
class Command:
    """A command, and how long it may take by Documentation/faults.md."""

    script: str
    bound_s: float
    # It is given on the node that is not Primary.
    on_secondary: bool = False
    # It ends when the metadata are written, or their disk is given up.
    writes_metadata: bool = False


# Stock drbdadm gives up on drbdsetup after some seconds; what is asked here is the module.
COMMANDS = {
    "status": Command("drbdsetup status r0 && drbdsetup show r0 && cat /proc/drbd", 0),
    "detach": Command("drbdsetup detach 0", 120),
    "detach --force": Command("drbdsetup detach 0 --force", 2),
    "disconnect": Command("drbdsetup disconnect $local $remote", ANSWER_S + 60),
    "disconnect --force": Command("drbdsetup disconnect $local $remote --force", 60),
    "secondary": Command("drbdsetup secondary 0", 2 * ANSWER_S + 30, writes_metadata=True),
    "primary": Command("drbdsetup primary 0", ANSWER_S + 60, on_secondary=True,
                       writes_metadata=True),
    "down": Command("drbdsetup down r0", DOWN_S, writes_metadata=True),
    "invalidate": Command("drbdsetup invalidate 0", 60 + ANSWER_S, on_secondary=True,
                       writes_metadata=True),
    "invalidate-remote": Command("drbdsetup invalidate-remote 0", 60 + ANSWER_S,
                                 writes_metadata=True),
    "rmmod": Command("! rmmod drbd", 0),
}


class Fault:
    """Something that hangs until it is let go."""

    def __init__(self, nodes):
        self.own, self.peer = nodes

    def begin(self):
        raise NotImplementedError

    def end(self):
        raise NotImplementedError


class DeadPeer(Fault):
    def begin(self):
        self.peer.guest.stop()

    def end(self):
        self.peer.guest.cont()


class HungDisk(Fault):
    def begin(self):
        self.own.run("dmsetup suspend --noflush --nolockfs --noudevsync backing")

    def end(self):
        self.own.run("dmsetup resume --noudevsync backing")


class HungDiskOfPeer(Fault):
    def begin(self):
        self.peer.run("dmsetup suspend --noflush --nolockfs --noudevsync backing")

    def end(self):
        self.peer.run("dmsetup resume --noudevsync backing")


FAULTS = {"dead peer": DeadPeer, "hung disk": HungDisk, "hung disk of the peer": HungDiskOfPeer}
EVERY_DAY = {("dead peer", "secondary", False), ("hung disk", "detach --force", False),
             ("hung disk of the peer", "disconnect", True)}
CELLS = [(fault, command, signalled) for fault in FAULTS for command in COMMANDS
         for signalled in (False, True) if not (signalled and command in ("status", "rmmod"))]


def name_of(cell) -> str:
    fault, command, signalled = cell
    return f"{fault}_{command}{'_signal' if signalled else ''}".replace(" ", "-")


class Pair:
    """Two nodes that are booted anew after a cell that failed."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.is_clean = False

    def ready(self):
        """Both with a disk that can hang, without the driver."""
        if not self.is_clean:
            for node in self.nodes:
                node.guest.kill()
            for node in self.nodes:
                node.boot()
                size = node.guest.machine.disks[0].stat().st_size // 512
                node.run("modprobe dm_mod; dmsetup create --noudevsync --noudevrules backing "
                         f"<<< '0 {size} linear /dev/vda 0' && dmsetup mknodes")
        self.is_clean = False
        return self.nodes


@pytest.fixture(scope="module")
def pair(module_lab, flavour):
    return Pair(node_pair(module_lab, flavour, CONF, disks=[life.DISK]))


@pytest.fixture(params=CELLS, ids=name_of)
def cell(request):
    if request.param not in EVERY_DAY and not request.config.getoption("long"):
        pytest.skip("takes minutes; give --long")
    return request.param


def note(cell, seconds: float, bound: float, code: int):
    BUILD.mkdir(exist_ok=True)
    file = BUILD / "bounds.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    known[name_of(cell)] = {"seconds": round(seconds, 1), "bound": bound, "code": code}
    file.write_text(json.dumps(known, indent=1))


def begin(nodes):
    """Both nodes as new, connected, the first Primary; its application writes."""
    for node in nodes:
        node.run("modprobe drbd")
        node.create()
        node.up()
    for node in nodes:
        node.wait_state("cs:Connected")
    primary = nodes[0]
    primary.run("drbdsetup new-current-uuid 0 --clear-bitmap")
    primary.wait_synced()
    primary.primary()
    return primary.guest.spawn(WRITER, timeout_s=1200)


def end(nodes, writer):
    """Take all down, and unload the module."""
    nodes[0].run("touch /tmp/stop")
    # One that hung for the peer goes on without it.
    writer.wait()
    for node in nodes:
        begun = time.monotonic()
        node.run("drbdadm down r0", timeout_s=DOWN_S + START_S)
        assert time.monotonic() - begun < (DOWN_S + START_S) * node.guest.slowness
    for node in nodes:
        node.run("rmmod drbd")


def test_a_command_ends_within_its_bound(pair, cell):
    nodes = pair.ready()
    fault_name, command_name, signalled = cell
    command = COMMANDS[command_name]
    own, peer = nodes if not command.on_secondary else nodes[::-1]
    writer = begin(nodes)
    fault = FAULTS[fault_name]((own, peer))
    time.sleep(0.5)
    fault.begin()
    # Requests are on their way to what hangs.
    time.sleep(0.5)
    bound = (command.bound_s + START_S) * own.guest.slowness
    local, remote = (f"ipv4:{node.guest.address}:7788" for node in (own, peer))
    script = command.script.replace("$local", local).replace("$remote", remote)
    if signalled:
        script = f"timeout --signal=INT 1 bash -c {script!r}"
    # What needs the metadata of a disk that hangs waits until that is given up.
    rescue_s = RESCUE_S * own.guest.slowness if command.writes_metadata and \
        isinstance(fault, HungDisk) else 0
    bound += rescue_s
    begun = time.monotonic()
    try:
        rescue = own.guest.spawn(f"sleep {rescue_s}; drbdsetup detach 0 --force") if rescue_s \
            else None
        result = own.run(script, check=False, timeout_s=bound + 60)
        took = time.monotonic() - begun
        if rescue:
            rescue.kill()
    finally:
        fault.end()
    note(cell, took, bound, result.code)
    print(f"{took:.1f} s of {bound} s, exit code {result.code}: {result.err.strip()}")
    assert took <= bound
    if command.bound_s == 0:
        assert result.code == 0
    elif not signalled:
        assert result.code == 0 or result.err.strip(), "it failed without a word"
    end(nodes, writer)
    pair.is_clean = True


def test_who_waits_behind_a_hung_disk_does_not_look_hung(pair):
    """The activity log waits for the disk, the worker for its turn to write the metadata."""
    own, peer = nodes = pair.ready()
    writer = begin(nodes)
    own.run("echo 6 > /proc/sys/kernel/hung_task_timeout_secs")
    fault = HungDisk(nodes)
    fault.begin()
    try:
        # An extent that no write of the other writer made hot.
        cold = own.guest.spawn("dd if=/dev/zero of=/dev/drbd0 bs=4k count=1 seek=8000 "
                               "oflag=direct conv=notrunc", timeout_s=600)
        time.sleep(1)
        # A Primary that is alone begins a new generation.
        peer.run("drbdsetup disconnect "
                 f"ipv4:{peer.guest.address}:7788 ipv4:{own.guest.address}:7788")
        time.sleep(15)
        waiting = own.run("for t in /proc/[0-9]*; do read -r name < $t/comm; "
                          "case $name in drbd*) echo $name $(cut -d' ' -f3 $t/stat) "
                          "$(cat $t/wchan);; esac; done").out
    finally:
        fault.end()
    print(waiting)
    assert cold.wait().code == 0
    own.guest.check()
    end(nodes, writer)
    pair.is_clean = True
