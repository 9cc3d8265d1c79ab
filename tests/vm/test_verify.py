# SPDX-License-Identifier: GPL-2.0
"""Online verify and resync by checksum, between two of ours and with the C driver on either side.

The tests follow each other on one pair: every one leaves t primary, both sides connected and up to
date, and the disks equal. `--module c` plays them on two C drivers, as the proof of the test.
"""

import re

import pytest

from drbdvm import Lab
from scenario import Flavour, life, node_pair, same_data

# The C driver lets the application's writes slow a verify down to its c-min-rate.
CONF = life.conf(net="verify-alg crc32c; csums-alg sha1;",
                 disk="resync-rate 8M; c-min-rate 8M; c-plan-ahead 0;")
PAIRS = ("ours-ours", "ours-c", "c-ours")
# Blocks that differ: three neighbours and one alone.
DIFFER = ((100, 3), (2000, 1))
DIFFER_KIB = 16
DIFFER_BLOCKS = {100, 101, 102, 2000}


def pytest_generate_tests(metafunc):
    control = metafunc.config.getoption("--module") == "c"
    metafunc.parametrize("nodes", ("c-c",) if control else PAIRS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def nodes(request, flavour):
    drivers = request.param.split("-")
    flavours = tuple(Flavour(driver, flavour.tools) for driver in drivers)
    with Lab(keep=f"test_verify_{request.param}") as lab:
        pair = node_pair(lab, flavours, CONF, disks=[life.DISK])
        life.bring_up(pair)
        life.first_sync(*pair)
        yield pair


def spoil(node):
    """Change blocks of the backing disk behind the driver's back."""
    for at, count in DIFFER:
        node.run(f"dd if=/dev/urandom of=/dev/vda bs=4k seek={at} count={count} oflag=direct "
                 "conv=notrunc status=none")


def said(node, mark, pattern, timeout_s=120):
    """Wait until the kernel said something after `mark`."""
    node.guest.wait_until("dmesg", rf"(?s){mark}\n.*{pattern}", timeout_s)


def verify(driver, other, arguments=""):
    """Run an online verify to its end; what each side's kernel said about it."""
    marks = {node: node.mark() for node in (driver, other)}
    driver.run(f"drbdsetup verify {driver.minor} {arguments}")
    for node in (driver, other):
        said(node, marks[node], "Online verify done")
        node.wait_synced()
    return {node: node.log_since(marks[node]) for node in (driver, other)}


def findings(log):
    """Blocks that a kernel said to differ; how it puts neighbours together depends on the disk."""
    found = re.findall(r"Out of sync: start=(\d+), size=(\d+) \(sectors\)", log)
    return {block for start, size in found
            for block in range(int(start) // 8, (int(start) + int(size)) // 8)}


def assert_found(logs, expected):
    """Check what each side's kernel said to differ, and how much it counted.

    The C driver remembers one stretch that it has not told of and forgets it for another that does
    not follow it, so it leaves lines out when answers overtake each other; it counts them all.
    """
    for node, log in logs.items():
        found = findings(log)
        if node.flavour.module == "c":
            assert found and found <= expected
        else:
            assert found == expected


def assert_equal(nodes):
    t, shentar = nodes
    t.secondary()
    shentar.wait_state("ro:Secondary/Secondary")
    same_data(t, shentar, t.size_bytes())
    t.primary()


def repair(nodes):
    """Connect anew, which resyncs what was marked; what each side's kernel said about it."""
    t, shentar = nodes
    marks = {node: node.mark() for node in nodes}
    t.run("drbdadm disconnect r0")
    shentar.wait_state("cs:(WFConnection|Unconnected)")
    t.run("drbdadm connect r0")
    for node in nodes:
        node.wait_synced()
    for node in nodes:
        said(node, marks[node], "had equal checksums")
    return [node.log_since(marks[node]) for node in nodes]


def test_equal_disks_verify_without_a_finding(nodes):
    for log in verify(*nodes).values():
        assert re.search(r"Online verify done \(total \d+ sec; paused 0 sec; \d+ K/sec\)", log)
        assert "ut of sync" not in log
    assert [node.state().oos_kib for node in nodes] == [0, 0]


def test_what_differs_is_marked_on_both_sides_and_repaired_by_a_resync(nodes):
    t, shentar = nodes
    spoil(shentar)
    marks = {node: node.mark() for node in nodes}
    logs = verify(t, shentar)
    assert "Starting Online Verify from sector 0" in logs[t]
    assert "Online Verify start sector: 0" in logs[shentar]
    assert_found(logs, DIFFER_BLOCKS)
    for log in logs.values():
        assert "Online verify found 4 4k block out of sync!" in log
        assert re.search("conn\\( Verify[ST] -> Connected \\)", log)
    for node in nodes:
        said(node, marks[node], "out-of-sync minor-0 exit code 0")
    assert [node.state().oos_kib for node in nodes] == [DIFFER_KIB, DIFFER_KIB]
    for log in repair(nodes):
        assert "0 % had equal checksums, eliminated: 0K; transferred 16K total 16K" in log
    assert [node.state().oos_kib for node in nodes] == [0, 0]
    assert_equal(nodes)


def test_a_verify_of_a_part_stops_where_it_is_told_to(nodes):
    t, shentar = nodes
    spoil(shentar)
    logs = verify(shentar, t, "--start=808s --stop=1600s")
    assert "Starting Online Verify from sector 808" in logs[shentar]
    assert "Online Verify start sector: 808" in logs[t]
    assert_found(logs, {101, 102})
    for log in logs.values():
        assert "Online verify found 2 4k block out of sync!" in log
        assert "Online Verify reached sector 1600" in log
    # The rest of what differs is found from there on.
    logs = verify(shentar, t)
    assert "Starting Online Verify from sector 1600" in logs[shentar]
    assert_found(logs, {2000})
    for log in logs.values():
        assert "Online verify found 3 4k block out of sync!" in log
        assert "reached sector" not in log
    verify(shentar, t, "--start=0 --stop=808s")
    repair(nodes)
    assert_equal(nodes)


def test_a_broken_verify_goes_on_where_it_was(nodes):
    t, shentar = nodes
    marks = {node: node.mark() for node in nodes}
    t.run(f"drbdsetup verify {t.minor}")
    t.guest.wait_until("cat /proc/drbd", r"verified: *([1-9]|\d\d)\.")
    assert shentar.state().connection == "VerifyT"
    t.run("drbdadm disconnect r0")
    [reached] = re.findall(r"Online Verify reached sector (\d+)", t.log_since(marks[t]))
    assert 0 < int(reached) < t.size_bytes() // 512
    said(shentar, marks[shentar], r"Online Verify reached sector \d+")
    t.run("drbdadm connect r0")
    for node in nodes:
        node.wait_synced()
    logs = verify(t, shentar)
    assert f"Starting Online Verify from sector {reached}" in logs[t]
    assert f"Online Verify start sector: {reached}" in logs[shentar]
    for log in logs.values():
        assert "ut of sync" not in log


def test_a_resync_by_checksum_transfers_only_what_differs(nodes):
    t, shentar = nodes
    spoil(shentar)
    size_kib = t.size_bytes() // 1024
    marks = {node: node.mark() for node in nodes}
    shentar.run("drbdadm invalidate r0")
    shentar.wait_state("cs:SyncTarget")
    t.write("during", 16 * 1024, 512)
    for node in nodes:
        node.wait_synced()
    for node in nodes:
        said(node, marks[node], "had equal checksums")
        assert node.resyncs_since(marks[node])[0][1] == size_kib
        [(percent, saved)] = re.findall(r"(\d+) % had equal checksums, eliminated: (\d+)K;",
                                        node.log_since(marks[node]))
        assert int(percent) >= 90 and 0.9 * size_kib < int(saved) < size_kib
    assert_equal(nodes)
    assert t.holds("during", 16 * 1024, 512)


def test_writes_during_a_verify_are_no_findings(nodes):
    t, shentar = nodes
    marks = {node: node.mark() for node in nodes}
    writer = t.guest.spawn("i=0; while [ ! -e /tmp/stop ]; do i=$((i + 1)); yes $i | dd "
                           "of=/dev/drbd0 bs=16k seek=$((i * 37 % 2000)) count=4 iflag=fullblock "
                           "oflag=direct conv=notrunc status=none; done")
    try:
        # drbdadm gives a busy guest only 5 s.
        t.run(f"drbdsetup verify {t.minor}")
        for node in nodes:
            said(node, marks[node], "Online verify done")
            node.wait_synced()
    finally:
        t.run("touch /tmp/stop")
        writer.wait()
    for node in nodes:
        assert "ut of sync" not in node.log_since(marks[node])
    assert_equal(nodes)


def test_the_kernels_said_nothing_bad(nodes):
    for node in nodes:
        assert not re.search(r"drbd.*(ASSERT|ERROR|LOGIC BUG|unexpected|protocol error)",
                             node.guest.log())
