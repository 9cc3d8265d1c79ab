# SPDX-License-Identifier: GPL-2.0
"""Fencing, suspended I/O, and the helpers: what a node asks the user space, and does by its answer.

The expectations are what the C driver does: `--module c` plays the same with it. A few tests run
every day, `--long` runs all.
"""

import re
import time
from dataclasses import dataclass

import pytest

from config import resource
from scenario import life, node_pair, same_data

HELPER = "/usr/sbin/test-helper"
HELPER_SCRIPT = r"""#!/bin/bash
# Writes down how it was called, waits while it is held, and exits as it is told.
mkdir -p /tmp/helper
{ printf '%s\n' "== $*"; tr '\0' '\n' < /proc/$$/environ; } > /tmp/helper/part.$$
cat /tmp/helper/part.$$ >> /tmp/helper/calls
while [ -e /tmp/helper/hold.$1 ]; do sleep 0.1; done
exit $(cat /tmp/helper/exit.$1 2>/dev/null || echo 0)
"""
BACKING = "/dev/mapper/backing"
TIMEOUT_S = 60
# So long nothing may happen to I/O that is suspended.
STILL_S = 1.0
# Nobody else writes there.
AT_KIB = 1024
SIZE_KIB = 64


def conf(*, fencing: str = "dont-care", on_no_data: str = "io-error", net: str = "",
         disk: str = "", handlers: str = "") -> str:
    text = resource(net=f"{life.PATIENCE} {net}", disk=BACKING,
                    disk_options=f"{life.FAST} fencing {fencing}; {disk}")
    return text.replace("resource r0 {\n", "resource r0 {\n"
                        f"    options {{ on-no-data-accessible {on_no_data}; }}\n"
                        f"    handlers {{ {handlers} }}\n")


class Pair:
    """Two nodes whose disks can be broken; booted anew after a test that failed."""

    def __init__(self, lab, nodes):
        self.lab = lab
        self.nodes = nodes
        self.is_clean = False

    def begin(self, conf: str):
        """Connected and in sync, the first one Primary; no helper was called yet."""
        was_clean, self.is_clean = self.is_clean, False
        if not was_clean:
            self.boot(conf)
        t, shentar = self.nodes
        for node in self.nodes:
            node.configure(conf)
            node.run("rm -rf /tmp/helper; mkdir /tmp/helper; drbdadm adjust r0")
        for node in self.nodes:
            node.wait_state("cs:Connected")
        if not was_clean:
            t.run("drbdsetup new-current-uuid 0 --clear-bitmap")
        for node in self.nodes:
            node.wait_synced()
        t.primary()
        t.write("before", AT_KIB, SIZE_KIB)
        return t, shentar

    def boot(self, conf: str):
        for node in self.nodes:
            node.guest.kill()
        for node in self.nodes:
            start(node, conf)
            node.run("drbdadm --force create-md r0")
            node.up()

    def end(self):
        """All is well again, and the disks are equal."""
        t, shentar = self.nodes
        for node in self.nodes:
            node.wait_synced()
        assert suspended(t) == "no"
        t.secondary()
        same_data(t, shentar, t.size_bytes())
        self.is_clean = True

    def close(self):
        if self.is_clean:
            for node in self.nodes:
                node.down()
            for node in self.nodes:
                node.run("rmmod drbd")


def start(node, conf: str):
    """Boots a node up to where its metadata can be looked at."""
    node.boot()
    node.configure(conf)
    node.run("modprobe dm_mod; dmsetup create --noudevsync --noudevrules backing "
             f"<<< '{table(node, 'linear')}' && dmsetup mknodes")
    node.run(f"modprobe drbd usermode_helper={HELPER}")


def table(node, target: str) -> str:
    sectors = node.guest.machine.disks[0].stat().st_size // 512
    return f"0 {sectors} linear /dev/vda 0" if target == "linear" else f"0 {sectors} error"


def set_disk(node, target: str):
    node.run(f"dmsetup reload backing <<< '{table(node, target)}' && "
             "dmsetup suspend --noflush --nolockfs --noudevsync backing && "
             "dmsetup resume --noudevsync backing")


EVERY_DAY = (
    "test_what_the_helper_answers_decides_about_a_lost_peer[resource-and-stonith-4]",
    "test_a_peer_that_comes_back_while_the_helper_runs_needs_no_answer",
    "test_a_peer_that_was_restarted_is_synced_before_frozen_writes_are_told_done",
    "test_what_is_suspended_when_the_peer_is_lost_goes_on_without_it",
    "test_what_was_on_its_way_when_the_admin_suspends_is_sent_again",
    "test_what_protocol_a_called_done_is_synced_when_the_peer_is_back",
    "test_without_data_io_waits_for_the_disk",
    "test_helpers_are_called_around_a_resync",
)


@pytest.fixture(autouse=True)
def daily(request):
    if request.node.name not in EVERY_DAY and not request.config.getoption("long"):
        pytest.skip("takes minutes; give --long")


@pytest.fixture(scope="module")
def pair(module_lab, flavour):
    nodes = node_pair(module_lab, flavour, conf(), disks=[life.DISK],
                      files={HELPER[1:]: HELPER_SCRIPT})
    made = Pair(module_lab, nodes)
    yield made
    made.close()


@dataclass
class Call:
    """A call of the helper, as it saw it."""

    arguments: list[str]
    environment: dict[str, str]


def calls(node) -> list[Call]:
    text = node.run("cat /tmp/helper/calls 2>/dev/null; true").out
    found = []
    for part in text.split("== ")[1:]:
        arguments, *variables = part.splitlines()
        environment = dict(line.split("=", 1) for line in variables if line)
        found.append(Call(arguments.split(), environment))
    return found


def wait_for_call(node, *arguments: str) -> Call:
    node.guest.wait_until("cat /tmp/helper/calls", f"(?m)^== {' '.join(arguments)}$", TIMEOUT_S)
    return next(call for call in calls(node) if call.arguments == list(arguments))


def hold(node, name: str):
    node.run(f"touch /tmp/helper/hold.{name}")


def let_go(node, name: str, code: int):
    node.run(f"echo {code} > /tmp/helper/exit.{name}; rm -f /tmp/helper/hold.{name}")


def answer(node, name: str, code: int):
    node.run(f"echo {code} > /tmp/helper/exit.{name}")


def wait_for_log(node, mark: str, *lines: str):
    """Wait until the kernel has said all of `lines` (regular expressions) after `mark`."""
    deadline = time.monotonic() + TIMEOUT_S * node.guest.slowness
    while True:
        log = node.log_since(mark)
        missing = [line for line in lines if not re.search(line, log)]
        if not missing:
            return log
        assert time.monotonic() < deadline, f"{node.name} has not said {missing}:\n{log}"
        time.sleep(0.2)


def lose_peer(t, shentar):
    """The connection breaks, and is not there again before `find_peer`."""
    shentar.run("drbdsetup disconnect ipv4:192.0.2.2:7788 ipv4:192.0.2.1:7788 --force")
    t.wait_state(r"cs:(WFConnection|Unconnected) ro:Primary/Unknown", TIMEOUT_S)


def find_peer(shentar):
    shentar.run("drbdadm connect r0")


class Write:
    """A write that may have to wait."""

    def __init__(self, node, word: str = "during"):
        self._node, self._word = node, word
        self._process = node.guest.spawn(
            f"yes {word} | dd of={node.device} bs={SIZE_KIB}k seek={AT_KIB // SIZE_KIB} count=1 "
            "iflag=fullblock oflag=direct conv=notrunc status=none && "
            f"echo 'test: {word} is written' > /dev/kmsg", timeout_s=300)

    def waits(self):
        time.sleep(STILL_S)
        assert self._process.running(), f"the write has ended: {self._process.wait()}"

    def is_told_done(self):
        result = self._process.wait()
        assert result.code == 0, result.err

    def succeeds(self):
        self.is_told_done()
        assert self._node.holds(self._word, AT_KIB, SIZE_KIB)

    def fails(self):
        result = self._process.wait()
        assert result.code != 0 and "Input/output error" in result.err


class Read:
    """A read that may have to wait."""

    def __init__(self, node):
        self._process = node.guest.spawn(
            f"dd if={node.device} of=/dev/null bs={SIZE_KIB}k skip={AT_KIB // SIZE_KIB} count=1 "
            "iflag=direct status=none", timeout_s=300)

    def waits(self):
        assert self._process.running(), f"the read has ended: {self._process.wait()}"

    def succeeds(self):
        result = self._process.wait()
        assert result.code == 0, result.err

    def fails(self):
        result = self._process.wait()
        assert result.code != 0 and "Input/output error" in result.err


def suspended(node) -> str:
    """What `status` and `events2` say why I/O is suspended; both say the same."""
    status = node.run("drbdsetup status r0 --verbose").out
    told = re.search(r"suspended:(\S+)", status)[1]
    events = node.run("drbdsetup events2 r0 --now").out
    assert re.search(r"exists resource .*suspended:(\S+)", events)[1] == told
    flag = node.state().flags[0]
    assert flag == ("r" if told == "no" else "s"), f"{flag} in /proc/drbd, {told} in status"
    return told


POLICIES = ("resource-only", "resource-and-stonith")


@dataclass(frozen=True)
class Answer:
    """What an exit code of the fence-peer helper does."""

    disks: str
    told: str
    # What was frozen goes on.
    thaws: bool = True


ANSWERS = {
    3: Answer("UpToDate/Inconsistent", r"returned 3 \(peer is inconsistent or worse\)"),
    4: Answer("UpToDate/Outdated", r"returned 4 \(peer was fenced\)"),
    5: Answer("UpToDate/Outdated", r"returned 5 \(peer is unreachable, assumed to be dead\)"),
    6: Answer("UpToDate/DUnknown", r"returned 6 \(peer is active\)", thaws=False),
    7: Answer("UpToDate/Outdated", r"returned 7 \(peer was stonithed\)"),
    1: Answer("UpToDate/DUnknown", r"broken, returned 1", thaws=False),
}


@pytest.mark.parametrize("code", ANSWERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_what_the_helper_answers_decides_about_a_lost_peer(pair, policy, code):
    t, shentar = pair.begin(conf(fencing=policy))
    want = ANSWERS[code]
    freezes = policy == "resource-and-stonith"
    mark = t.mark()
    hold(t, "fence-peer")
    lose_peer(t, shentar)
    wait_for_call(t, "fence-peer", "r0")
    assert suspended(t) == ("fencing" if freezes else "no")
    t.wait_state("ds:UpToDate/DUnknown")
    write = Write(t)
    if freezes:
        read = Read(t)
        write.waits()
        read.waits()
    else:
        write.succeeds()
    let_go(t, "fence-peer", code)
    wait_for_log(t, mark, rf"helper command: {HELPER} fence-peer r0\n",
                 rf"helper command: {HELPER} fence-peer r0 exit code {code} \(0x{code << 8:x}\)",
                 f"fence-peer helper {want.told}")
    state = t.wait_state(f"ds:{want.disks}", TIMEOUT_S)
    if freezes and not want.thaws:
        write.waits()
        read.waits()
        assert suspended(t) == "fencing"
    elif freezes:
        write.succeeds()
        read.succeeds()
    assert state.role == "Primary"
    find_peer(shentar)
    if freezes and not want.thaws:
        write.succeeds()
        read.succeeds()
        # It was sent to the peer, of which nothing was known: no generation began without it.
        resynced = []
    else:
        wait_for_call(t, "unfence-peer", "r0")
        resynced = [("SyncSource", SIZE_KIB)]
    pair.end()
    assert t.resyncs_since(mark) == resynced


def test_a_peer_that_comes_back_while_the_helper_runs_needs_no_answer(pair):
    """And one that is lost again meanwhile is asked about again."""
    t, shentar = pair.begin(conf(fencing="resource-and-stonith"))
    mark = t.mark()
    hold(t, "fence-peer")
    lose_peer(t, shentar)
    wait_for_call(t, "fence-peer", "r0")
    write = Write(t)
    write.waits()
    find_peer(shentar)
    t.wait_synced()
    write.succeeds()
    lose_peer(t, shentar)
    assert suspended(t) == "fencing"
    write = Write(t, "again")
    write.waits()
    let_go(t, "fence-peer", 4)
    t.wait_state("ds:UpToDate/Outdated", TIMEOUT_S)
    write.succeeds()
    wait_for_log(t, mark, "Ignoring fence-peer exit code")
    assert [call.arguments for call in calls(t)].count(["fence-peer", "r0"]) == 2
    find_peer(shentar)
    pair.end()


def test_a_peer_that_was_restarted_is_synced_before_frozen_writes_are_told_done(pair):
    """It may have lost what it had acked, and the helper finds nothing out.

    The C driver tells them done when it refuses the peer.
    """
    text = conf(fencing="resource-and-stonith")
    t, shentar = pair.begin(text)
    mark = t.mark()
    answer(t, "fence-peer", 1)
    shentar.guest.kill()
    # On its way when the peer is found to be lost; what comes later waits outside.
    write = Write(t)
    t.wait_state(r"cs:(WFConnection|Unconnected) ro:Primary/Unknown", TIMEOUT_S)
    write.waits()
    start(shentar, text)
    shentar.up()
    t.wait_synced()
    write.succeeds()
    log = t.log_since(mark)
    steps = ("Aborting Connect, can not thaw IO with an only Consistent peer",
             "WFReportParams -> WFBitMapS", "test: during is written")
    found = [log.index(step) for step in steps]
    assert found == sorted(found), f"told done before the peer is synced:\n{log}"
    pair.end()
    assert [side for side, _ in t.resyncs_since(mark)] == ["SyncSource"]


def test_a_primary_without_data_of_its_own_does_not_fence(pair):
    """What is frozen ends, by what on-no-data-accessible says."""
    t, shentar = pair.begin(conf(fencing="resource-and-stonith"))
    for node in (t, shentar):
        node.run("drbdsetup disk-options 0 --resync-rate=100k")
    t.run("drbdadm invalidate r0")
    t.wait_state("cs:SyncTarget")
    mark = t.mark()
    lose_peer(t, shentar)
    wait_for_log(t, mark, "Not fencing peer, I'm not even Consistent myself",
                 r"susp\( 0 -> 1 \)", r"susp\( 1 -> 0 \)")
    assert suspended(t) == "no"
    # The last block is not there yet.
    result = t.run("dd if=/dev/drbd0 of=/dev/null bs=4k count=1 iflag=direct status=none "
                   f"skip={t.size_bytes() // 4096 - 1}", check=False)
    assert result.code != 0 and "Input/output error" in result.err
    assert "fence-peer" not in str(calls(t))
    for node in (t, shentar):
        node.run("drbdsetup disk-options 0 --resync-rate=200M")
    find_peer(shentar)
    pair.end()


@pytest.mark.parametrize("code, force, disks, told", [
    (4, "", "UpToDate/Outdated", ""),
    (1, "", None, "Refusing to be Primary while peer is not outdated"),
    (1, "--force", "UpToDate/Outdated", "Forced into split brain situation!"),
])
def test_a_promotion_asks_whether_the_lost_peer_is_outdated(pair, code, force, disks, told):
    t, shentar = pair.begin(conf(fencing="resource-only"))
    t.secondary()
    answer(t, "fence-peer", code)
    shentar.run("drbdsetup disconnect ipv4:192.0.2.2:7788 ipv4:192.0.2.1:7788 --force")
    t.wait_state("cs:(WFConnection|Unconnected) ro:Secondary/Unknown ds:UpToDate/DUnknown")
    mark = t.mark()
    result = t.run(f"drbdadm primary {force} r0", check=False)
    assert ["fence-peer", "r0"] in [call.arguments for call in calls(t)]
    assert told in result.err + t.log_since(mark)
    assert (result.code == 0) == bool(disks)
    if disks:
        t.wait_state(f"ro:Primary/Unknown ds:{disks}")
    else:
        t.wait_state("ro:Secondary/Unknown ds:UpToDate/DUnknown")
    find_peer(shentar)
    pair.end()


# Suspended I/O.

def test_suspend_io_holds_reads_and_writes_until_resume_io(pair):
    t, _ = pair.begin(conf())
    t.run("drbdadm suspend-io r0")
    assert suspended(t) == "user"
    write, read = Write(t), Read(t)
    write.waits()
    read.waits()
    t.run("drbdadm resume-io r0")
    assert suspended(t) == "no"
    write.succeeds()
    read.succeeds()
    pair.end()


def test_what_is_suspended_when_the_peer_is_lost_goes_on_without_it(pair):
    t, shentar = pair.begin(conf())
    mark = t.mark()
    t.run("drbdadm suspend-io r0")
    write = Write(t)
    write.waits()
    lose_peer(t, shentar)
    write.waits()
    assert suspended(t) == "user"
    t.run("drbdadm resume-io r0")
    write.succeeds()
    find_peer(shentar)
    pair.end()
    assert t.resyncs_since(mark) == [("SyncSource", SIZE_KIB)]


def test_writes_on_their_way_when_the_wire_is_cut_are_sent_again(pair):
    """Frozen by fencing without an answer; the peer is back with what it had."""
    t, shentar = pair.begin(conf(fencing="resource-and-stonith"))
    mark = t.mark()
    hold(t, "fence-peer")
    writer = t.guest.spawn(
        "at=0; until [ -e /tmp/helper/stop ]; do yes $at | dd of=/dev/drbd0 bs=4k seek=$at count=1 "
        "iflag=fullblock oflag=direct conv=notrunc status=none || exit 1; "
        "echo $at; at=$(((at + 1) % 200)); done", timeout_s=300)
    time.sleep(STILL_S)
    pair.lab.cut_wire()
    t.wait_state(r"cs:(WFConnection|Unconnected) ro:Primary/Unknown", TIMEOUT_S)
    assert suspended(t) == "fencing"
    time.sleep(STILL_S)
    done = writer.out
    time.sleep(STILL_S)
    assert writer.out == done and writer.running(), "it is not suspended"
    pair.lab.plug_wire()
    t.wait_synced()
    time.sleep(STILL_S)
    t.run("touch /tmp/helper/stop")
    result = writer.wait()
    assert result.code == 0 and len(result.out) > len(done), "the application did not go on"
    let_go(t, "fence-peer", 1)
    pair.end()
    assert t.resyncs_since(mark) == []


def test_what_was_on_its_way_when_the_admin_suspends_is_sent_again(pair):
    """The peer is back before I/O goes on. With the C driver it waits until ko-count is over."""
    t, shentar = pair.begin(conf())
    mark = t.mark()
    pair.lab.cut_wire()
    write = Write(t)
    write.waits()
    t.run("drbdadm suspend-io r0")
    for node in (t, shentar):
        node.wait_state(r"cs:(WFConnection|Unconnected)", TIMEOUT_S)
    pair.lab.plug_wire()
    t.wait_synced()
    assert suspended(t) == "user"
    t.run("drbdadm resume-io r0")
    write.succeeds()
    pair.end()
    assert t.resyncs_since(mark) == []


def test_what_protocol_a_called_done_is_synced_when_the_peer_is_back(pair):
    """The peer never got it, and is back before I/O goes on. The C driver forgets it."""
    t, shentar = pair.begin(conf().replace("protocol C", "protocol A"))
    mark = t.mark()
    pair.lab.cut_wire()
    Write(t).is_told_done()
    t.run("drbdadm suspend-io r0")
    for node in (t, shentar):
        node.wait_state(r"cs:(WFConnection|Unconnected)", TIMEOUT_S)
    pair.lab.plug_wire()
    t.wait_synced()
    t.run("drbdadm resume-io r0")
    pair.end()
    assert t.resyncs_since(mark) == [("SyncSource", SIZE_KIB)]


def without_data(pair, policy: str):
    """t is Primary without a disk, and has lost its peer; what is suspended, and a write."""
    t, shentar = pair.begin(conf(on_no_data=policy))
    t.run("drbdadm detach r0")
    t.wait_state("ds:Diskless/UpToDate")
    t.write("through", AT_KIB, SIZE_KIB)
    lose_peer(t, shentar)
    t.wait_state("ds:Diskless/DUnknown")
    wait_for_call(t, "pri-on-incon-degr", "minor-0")
    return t, shentar


def attach_again(pair, t):
    t.run("drbdadm attach r0")
    pair.end()


def test_without_data_io_fails_where_the_policy_says_so(pair):
    t, shentar = without_data(pair, "io-error")
    assert suspended(t) == "no"
    Write(t).fails()
    Read(t).fails()
    find_peer(shentar)
    t.wait_state("cs:Connected .*ds:Diskless/UpToDate")
    assert t.holds("through", AT_KIB, SIZE_KIB)
    attach_again(pair, t)


def test_without_data_io_waits_for_the_peer(pair):
    t, shentar = without_data(pair, "suspend-io")
    assert suspended(t) == "no-data"
    write, read = Write(t), Read(t)
    write.waits()
    read.waits()
    find_peer(shentar)
    write.succeeds()
    read.succeeds()
    assert suspended(t) == "no"
    attach_again(pair, t)


def test_without_data_io_waits_for_the_disk(pair):
    t, shentar = pair.begin(conf(on_no_data="suspend-io"))
    mark = t.mark()
    lose_peer(t, shentar)
    t.write("alone", AT_KIB + 2 * SIZE_KIB, SIZE_KIB)
    set_disk(t, "error")
    # The write that finds the disk broken waits for a better one, too.
    write = Write(t)
    t.wait_state("ds:Diskless/DUnknown", TIMEOUT_S)
    write.waits()
    assert suspended(t) == "no-data"
    read = Read(t)
    read.waits()
    set_disk(t, "linear")
    t.run("drbdadm attach r0")
    write.succeeds()
    read.succeeds()
    assert suspended(t) == "no"
    find_peer(shentar)
    for node in (t, shentar):
        node.wait_synced()
    assert t.holds("alone", AT_KIB + 2 * SIZE_KIB, SIZE_KIB)
    assert t.resyncs_since(mark)[0][0] == "SyncSource"
    pair.end()


def test_resume_io_without_data_fails_what_waited(pair):
    t, shentar = without_data(pair, "suspend-io")
    mark = t.mark()
    write, read = Write(t), Read(t)
    write.waits()
    read.waits()
    t.run("drbdadm resume-io r0")
    write.fails()
    read.fails()
    assert suspended(t) == "no"
    wait_for_log(t, mark, "IO ERROR: neither local nor remote data, sector "
                 rf"{AT_KIB * 2}\+{SIZE_KIB * 2}")
    t.down()
    t.up()
    find_peer(shentar)
    for node in (t, shentar):
        node.wait_synced()
    pair.end()


# What helpers are called with.

def environment_of(node) -> dict[str, str]:
    peer = {"192.0.2.1": "192.0.2.2", "192.0.2.2": "192.0.2.1"}[node.guest.address]
    return {"HOME": "/", "TERM": "linux", "PATH": "/sbin:/usr/sbin:/bin:/usr/bin",
            "DRBD_PEER_AF": "ipv4", "DRBD_PEER_ADDRESS": peer}


def was_called(node, *arguments: str):
    assert wait_for_call(node, *arguments).environment == environment_of(node)


def test_helpers_are_called_around_a_resync(pair):
    t, shentar = pair.begin(conf(fencing="resource-only"))
    told = t.guest.spawn("drbdsetup events2 r0", timeout_s=300)
    answer(t, "fence-peer", 4)
    lose_peer(t, shentar)
    was_called(t, "fence-peer", "r0")
    t.wait_state("ds:UpToDate/Outdated")
    Write(t).succeeds()
    find_peer(shentar)
    was_called(t, "before-resync-source", "minor-0")
    was_called(shentar, "before-resync-target", "minor-0")
    was_called(shentar, "after-resync-target", "minor-0")
    was_called(t, "unfence-peer", "r0")
    deadline = time.monotonic() + TIMEOUT_S
    while not re.search("response helper .*helper:unfence-peer status:0", told.out):
        assert time.monotonic() < deadline, told.out
        time.sleep(0.1)
    assert "call helper name:r0 conn-name:" in told.out or "call helper name:r0 " in told.out
    assert re.search("call helper .*helper:fence-peer", told.out)
    assert re.search("response helper .*helper:fence-peer status:1024", told.out)
    assert re.search("call helper .*minor:0 helper:before-resync-source", told.out)
    told.kill()
    pair.end()


@pytest.mark.parametrize("side", ("source", "target"))
def test_the_helper_before_a_resync_may_forbid_it(pair, side):
    t, shentar = pair.begin(conf())
    asked = {"source": t, "target": shentar}[side]
    mark = asked.mark()
    lose_peer(t, shentar)
    Write(t).succeeds()
    answer(asked, f"before-resync-{side}", 1)
    find_peer(shentar)
    asked.wait_state("cs:StandAlone", TIMEOUT_S)
    wait_for_log(asked, mark, f"before-resync-{side} handler returned 1, dropping "
                 "connection")
    answer(asked, f"before-resync-{side}", 0)
    for node in (t, shentar):
        node.run("drbdadm adjust r0")
    pair.end()


def apart(pair, options: str):
    """Both nodes have been Primary without the other; shentar has written."""
    t, shentar = pair.begin(conf(net=options))
    lose_peer(t, shentar)
    shentar.primary()
    shentar.write("there", AT_KIB, SIZE_KIB)
    return t, shentar


def test_helpers_are_called_for_a_split_brain(pair):
    t, shentar = apart(pair, "")
    t.write("here", AT_KIB, SIZE_KIB)
    shentar.secondary()
    marks = {node: node.mark() for node in (t, shentar)}
    find_peer(shentar)
    for node in (t, shentar):
        was_called(node, "initial-split-brain", "minor-0")
        node.wait_state("cs:(StandAlone|WFConnection)", TIMEOUT_S)
    # The one that sees it first may have hung up before the other one has judged.
    both = [call.arguments[0] for node in (t, shentar) for call in calls(node)]
    assert "split-brain" in both
    logs = "".join(node.log_since(mark) for node, mark in marks.items())
    assert "Split-Brain detected but unresolved, dropping connection!" in logs
    shentar.run("drbdadm disconnect r0; drbdadm connect --discard-my-data r0")
    t.run("drbdadm adjust r0")
    for node in (t, shentar):
        node.wait_synced()
    assert t.holds("here", AT_KIB, SIZE_KIB)
    pair.end()


def test_a_primary_that_would_lose_its_data_asks_for_its_end(pair):
    policy = "after-sb-0pri discard-zero-changes; after-sb-1pri violently-as0p; rr-conflict "
    t, shentar = apart(pair, policy + "call-pri-lost;")
    shentar.secondary()
    t.secondary()
    t.primary()
    find_peer(shentar)
    was_called(t, "pri-lost", "minor-0")
    t.wait_state("cs:(StandAlone|WFConnection)", TIMEOUT_S)
    t.secondary()
    for node in (t, shentar):
        node.run("drbdadm adjust r0")
    for node in (t, shentar):
        node.wait_synced()
    t.primary()
    assert t.holds("there", AT_KIB, SIZE_KIB)
    pair.end()


def test_a_broken_disk_is_told_before_it_is_given_up(pair):
    t, shentar = pair.begin(conf(disk="on-io-error call-local-io-error;"))
    set_disk(t, "error")
    Write(t).succeeds()
    was_called(t, "local-io-error", "minor-0")
    t.wait_state("ds:Diskless/UpToDate", TIMEOUT_S)
    set_disk(t, "linear")
    attach_again(pair, t)


def test_a_verify_that_finds_differences_tells_so(pair):
    t, shentar = pair.begin(conf(net="verify-alg sha1;"))
    shentar.run("head -c 4096 /dev/urandom | dd of=/dev/vda bs=4k seek=300 oflag=direct conv=notrunc "
                "iflag=fullblock status=none")
    t.run("drbdadm verify r0")
    was_called(t, "out-of-sync", "minor-0")
    for node in (t, shentar):
        node.wait_state("cs:Connected")
    # Such blocks are resynced with the next connection.
    lose_peer(t, shentar)
    find_peer(shentar)
    pair.end()


def test_handlers_of_drbd_conf_are_run_by_drbdadm(pair):
    handlers = "".join(f'{name} "{HELPER} {name}"; '
                       for name in ("fence-peer", "before-resync-target"))
    t, shentar = pair.begin(conf(fencing="resource-only", handlers=handlers))
    parameter = "/sys/module/drbd/parameters/usermode_helper"
    for node in (t, shentar):
        node.run(f"echo -n /sbin/drbdadm > {parameter}")
    answer(t, "fence-peer", 4)
    lose_peer(t, shentar)
    call = wait_for_call(t, "fence-peer")
    want = {"DRBD_RESOURCE": "r0", "DRBD_MINOR": "0", "DRBD_CONF": "/etc/drbd.conf",
            "DRBD_PEER": "Shentar", "DRBD_PEER_ADDRESS": "192.0.2.2", "DRBD_PEER_AF": "ipv4"}
    assert call.environment == call.environment | want
    t.wait_state("ds:UpToDate/Outdated", TIMEOUT_S)
    Write(t).succeeds()
    find_peer(shentar)
    call = wait_for_call(shentar, "before-resync-target")
    want |= {"DRBD_VOLUME": "0", "DRBD_LL_DISK": BACKING, "DRBD_PEER": "t",
             "DRBD_PEER_ADDRESS": "192.0.2.1"}
    assert call.environment == call.environment | want
    for node in (t, shentar):
        node.run(f"echo -n {HELPER} > {parameter}")
    pair.end()
