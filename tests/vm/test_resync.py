# SPDX-License-Identifier: GPL-2.0
"""A pair in use: first sync, roles, outages, crashes. After each the disks must be equal.

The tests of this file share one pair and follow each other: every one leaves t primary, both sides
connected and up to date.
"""

import re
import time

import pytest

from scenario import node_pair, same_data
from scenario import life

RATE_MIB = 2
SLOW = f"resync-rate {RATE_MIB}M; c-plan-ahead 0;"


@pytest.fixture(scope="module")
def nodes(module_lab, flavour):
    nodes = node_pair(module_lab, flavour, life.conf(disk=SLOW), disks=[life.DISK])
    life.bring_up(nodes)
    return nodes


def check_disks(nodes):
    """Demote, compare what both disks hold, promote again."""
    t, shentar = nodes
    t.secondary()
    shentar.wait_state("ro:Secondary/Secondary")
    same_data(t, shentar, t.size_bytes())
    t.primary()


def test_the_first_sync_keeps_the_rate_and_shows_its_progress(nodes):
    t, shentar = nodes
    size_kib = t.size_bytes() // 1024
    t.overwrite_peer()
    begun = time.monotonic()
    t.wait_state("cs:SyncSource")
    shown = []
    while (minor := t.state()).connection == "SyncSource":
        shown.append(minor)
        assert time.monotonic() < begun + life.OUTAGE_TIMEOUT_S * t.guest.slowness, \
            "the first sync does not end"
    took_s = time.monotonic() - begun
    for node in nodes:
        node.wait_synced()
    left = [minor.left_kib for minor in shown]
    assert {minor.total_kib for minor in shown} == {size_kib}
    assert left == sorted(left, reverse=True)
    assert len({value for value in left if 0 < value < size_kib}) >= 3, left
    # The rate is a ceiling for the average; the controller's first step may be ahead of it.
    assert took_s >= 0.8 * size_kib / 1024 / RATE_MIB


def test_writes_during_a_resync_reach_both_sides(nodes):
    t, shentar = nodes
    # However slow the guests are, the writes come before its end.
    for node in nodes:
        node.run("drbdsetup disk-options 0 --resync-rate=250k")
    shentar.run("drbdadm invalidate r0")
    t.wait_state("cs:SyncSource")
    # The beginning is synced by now, the end not yet.
    left = t.size_bytes() // 1024
    while left > t.size_bytes() // 1024 - 1024:
        minor = t.state()
        assert minor.connection == "SyncSource", "the resync was over before the writes"
        left = minor.left_kib
    t.write("early", 0, 512)
    t.write("late", t.size_bytes() // 1024 - 512, 512)
    assert t.state().connection == "SyncSource", "the resync was over before the writes"
    # The rate that they had before holds at once: at the slow one this takes minutes.
    seconds_left = t.state().left_kib / 250
    for node in nodes:
        node.run("drbdadm adjust r0")
    for node in nodes:
        node.wait_synced(timeout_s=0.7 * seconds_left)
    check_disks(nodes)
    assert t.holds("early", 0, 512)
    assert t.holds("late", t.size_bytes() // 1024 - 512, 512)


def test_a_write_beside_a_resync_does_not_wait_for_its_end(nodes):
    t, shentar = nodes
    for node in nodes:
        node.run("drbdsetup disk-options 0 --c-plan-ahead=20 --c-fill-target=10M --c-max-rate=1G "
                 "--c-min-rate=0")
    # The target asks faster than the wire takes the answers, so there always is one to be given.
    t.run(f"modprobe sch_tbf && tc qdisc add dev {life.NIC} root tbf rate 8mbit burst 64k "
          "latency 500ms")
    size_kib = t.size_bytes() // 1024
    shentar.run("drbdadm invalidate r0")
    t.wait_state("cs:SyncSource")
    while t.state().left_kib > size_kib - 1024:
        assert t.state().connection == "SyncSource", "the resync was over before the write"
    t.write("beside", 0, 4)
    after = t.state()
    t.run(f"tc qdisc del dev {life.NIC} root")
    for node in nodes:
        node.run("drbdadm adjust r0")
        node.wait_synced()
    assert after.connection == "SyncSource" and after.left_kib > size_kib // 2, after
    check_disks(nodes)


def test_a_second_primary_is_refused(nodes):
    t, shentar = nodes
    result = shentar.run("drbdadm primary r0", check=False)
    assert result.code == 11
    assert "State change failed: (-1) Multiple primaries not allowed by config" in result.err
    assert t.state().role == "Primary"
    assert shentar.state().role == "Secondary"


def test_a_device_in_use_stays_primary(nodes):
    t, _ = nodes
    holder = t.guest.spawn("exec 3</dev/drbd0; echo open; read")
    t.guest.wait_until("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c /dev/drbd0; true", "^1")
    result = t.run("drbdadm secondary r0", check=False)
    assert result.code == 11
    assert "State change failed: (-12) Device is held open by someone" in result.err
    assert t.run("drbdadm down r0", check=False).code != 0
    holder.feed("\n")
    holder.wait()
    assert t.state().role == "Primary"


def test_a_secondary_is_not_written_and_not_read(nodes):
    _, shentar = nodes
    assert shentar.run("dd if=/dev/zero of=/dev/drbd0 bs=4k count=1", check=False).code != 0
    assert shentar.run("dd if=/dev/drbd0 of=/dev/null bs=4k count=1", check=False).code != 0


def test_an_outage_resyncs_exactly_what_was_written(nodes, module_lab):
    t, shentar = nodes
    life.outage(module_lab, t, shentar, "outage")
    check_disks(nodes)
    assert t.holds("outage", 9 * 1024, 256)


def test_a_broken_resync_goes_on_where_it_was(nodes, module_lab):
    t, shentar = nodes
    life.lose_sight(module_lab, nodes)
    t.write("broken", 0, 16 * 1024)
    module_lab.plug_wire()
    t.wait_state("cs:SyncSource")
    # The percentage is too coarse here: at 4096 bits nothing done reads 20.0% (see progress.rs).
    t.guest.wait_until("cat /proc/drbd", r"\((?!16384)\d+/16384\)K")
    life.lose_sight(module_lab, nodes)
    left = t.state().oos_kib
    assert 0 < left < 16 * 1024
    mark = t.mark()
    module_lab.plug_wire()
    for node in nodes:
        node.wait_synced()
    [(side, size_kib)] = t.resyncs_since(mark)
    assert side == "SyncSource"
    # What was on its way when the wire was cut may be sent again.
    assert left <= size_kib < 16 * 1024
    check_disks(nodes)


def test_a_peer_without_power_comes_back_for_what_it_missed(nodes):
    t, shentar = nodes
    t.write("before", 1024, 64)
    shentar.guest.kill()
    t.wait_state(r"cs:(WFConnection|Unconnected) ro:Primary/Unknown ds:UpToDate/DUnknown",
                 life.OUTAGE_TIMEOUT_S)
    t.write("alone", 20 * 1024, 128)
    assert t.state().oos_kib == 128
    mark = t.mark()
    shentar.boot()
    shentar.run("modprobe drbd")
    shentar.up()
    for node in nodes:
        node.wait_synced()
    assert t.resyncs_since(mark) == [("SyncSource", 128)]
    check_disks(nodes)


def test_the_activity_log_changes_its_size_online(nodes):
    t, _ = nodes
    for extents in (67, 257, 1237):
        t.write(f"before {extents}", 1024, 512)
        for node in nodes:
            node.run(f"drbdsetup disk-options 0 --al-extents={extents}")
            shown = node.run("drbdsetup show --show-defaults r0").out
            assert re.search(rf"al-extents\s+{extents}\b", shown)
        t.write(f"after {extents}", 2048, 512)
    check_disks(nodes)


def test_a_primary_without_power_resyncs_what_its_activity_log_names(nodes):
    t, shentar = nodes
    life.crash_of_primary(t, shentar, "acked")
    t.primary()
    check_disks(nodes)


def test_a_clean_restart_resyncs_nothing(nodes):
    t, shentar = nodes
    for node in nodes:
        node.down()
    marks = {node: node.mark() for node in nodes}
    for node in nodes:
        node.up()
    for node in nodes:
        node.wait_synced()
        assert node.resyncs_since(marks[node]) == []
    t.primary()


def test_the_kernels_said_nothing_bad(nodes):
    for node in nodes:
        assert not re.search(r"drbd.*(ASSERT|ERROR|LOGIC BUG|unexpected|protocol error)",
                             node.guest.log())
