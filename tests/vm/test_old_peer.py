# SPDX-License-Identifier: GPL-2.0
"""Peers of older versions, played in user space: connect, full sync, write, and failover.

The peer (tests/peer) speaks what DRBD 8.0 to 8.4 spoke: the header of its version, no feature
flags, its forms of P_SYNC_PARAM and P_PROTOCOL, acks by the configured protocol. Each peer is once
the one that calls and once the one that is called.

One of today's sends its consent, on its one socket, after the state that it leads to, on its other:
no order is kept between the two. The C driver remains between Connected and the resync then, which
`--module c` shows.
"""

import pytest

from config import resource
from scenario import peer as userspace
from scenario import Node
from scenario.life import FAST

# Short: what connects is in the same guest.
PATIENCE = "timeout 40; ping-int 5; ping-timeout 10; connect-int 3;"
MIB_KIB = 1024
DISK_KIB = 12 * MIB_KIB


@pytest.fixture(scope="module")
def guest(module_lab, flavour):
    guest = module_lab.guest("t", module=flavour.module, tools=flavour.tools, disks=["16M"],
                             files=userspace.FILES)
    module_lab.boot(guest)
    guest.run(f"ip address add 192.0.2.1/32 dev lo; ip address add {userspace.ADDRESS}/32 dev lo")
    return guest


def node(guest, flavour, net="") -> Node:
    conf = resource("t", "peer", net=f"{PATIENCE} {net}", disk_options=FAST)
    conf = conf.replace("192.0.2.2", userspace.ADDRESS)
    made = Node(guest, flavour, conf)
    made.configure()
    made.create()
    made.up()
    return made


def start(guest, version: int, *, calls: bool, options: str = "") -> userspace.Peer:
    way = "--call 192.0.2.1:7788" if calls else f"--wait {userspace.ADDRESS}:7788"
    peer = userspace.Peer(guest, f"--proto {version} --disk /tmp/peer --kib {DISK_KIB} {way} "
                                 f"{options}")
    peer.do("connect")
    return peer


# Which side calls matters little to the rest, so that every day sees each way once.
DAILY = [(86, False), (91, True), (96, False)]
LONG = [(version, calls) for version in (86, 87, 88, 89, 90, 91, 94, 95, 96, 99)
        for calls in (True, False) if (version, calls) not in DAILY]


@pytest.mark.parametrize("version, calls", DAILY + LONG)
def test_the_life_of_a_pair_with_an_old_peer(guest, flavour, request, version, calls):
    if (version, calls) in LONG and not request.config.getoption("--long"):
        pytest.skip("takes too long for every day")
    guest.run("rm -f /tmp/peer*")
    ours = node(guest, flavour)
    peer = start(guest, version, calls=calls)
    try:
        life(guest, ours, peer, version, calls)
    finally:
        guest.run("drbdadm down r0; pkill -9 -x drbd-peer; true")


def test_a_full_sync_begins_though_the_consent_comes_late(guest, flavour):
    guest.run("rm -f /tmp/peer*")
    ours = node(guest, flavour)
    peer = start(guest, 101, calls=False)
    try:
        ours.wait_state("cs:Connected")
        ours.overwrite_peer()
        ours.wait_synced()
        ours.write("held", 1024, 256)
        ours.secondary()
        peer.do("wait ds:UpToDate/UpToDate")
        for command, side in (("invalidate-remote", "SyncSource"), ("invalidate", "SyncTarget")):
            peer.do("consent-late 300")
            mark = ours.mark()
            guest.run(f"drbdadm {command} r0")
            ours.wait_synced()
            peer.do("wait ds:UpToDate/UpToDate")
            peer.do("holds held 1024 256")
            assert ours.resyncs_since(mark) == [(side, DISK_KIB)]
    finally:
        guest.run("drbdadm down r0; pkill -9 -x drbd-peer; true")


def life(guest, ours, peer, version, calls):
    ours.wait_state("cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent")
    assert f"Agreed network protocol version {version}" in guest.dmesg()
    assert int(ours.size_bytes()) == DISK_KIB * 1024

    # Full sync from the module, and writes of its application.
    ours.overwrite_peer()
    ours.wait_synced()
    assert "ds:UpToDate/UpToDate" in peer.do("wait ds:UpToDate/UpToDate")
    ours.write("first", 1024, 256)
    peer.do("holds first 1024 256")

    # The roles change in good order.
    ours.secondary()
    peer.do("primary")
    ours.wait_state("ro:Secondary/Primary")
    result = guest.run("drbdadm primary r0", check=False)
    assert result.code == 11
    peer.do("write second 2048 128")

    # The peer dies as Primary; the module takes over.
    peer.crash()
    ours.wait_state(r"cs:\w+ ro:Secondary/Unknown ds:UpToDate/DUnknown")
    ours.primary()
    assert ours.holds("second", 2048, 128)
    ours.write("third", 4096, 64)
    assert ours.state().oos_kib == 64

    # It comes back, and gets what it missed.
    peer = start(guest, version, calls=calls)
    ours.wait_synced()
    peer.do("wait ds:UpToDate/UpToDate")
    peer.do("holds third 4096 64")
    peer.do("holds second 2048 128")

    # The module goes; the peer takes over and writes alone.
    ours.secondary()
    peer.do("wait ro:Secondary/Secondary")
    ours.down()
    peer.do("wait cs:WFConnection")
    peer.do("primary")
    peer.do("write fourth 6144 96")
    ours.up()
    ours.wait_synced()
    peer.do("wait ds:UpToDate/UpToDate")

    # Disconnected in good order by either side.
    peer.do("secondary")
    ours.wait_state("ro:Secondary/Secondary")
    peer.do("disconnect")
    ours.wait_state("cs:WFConnection")
    ours.primary()
    assert ours.holds("fourth", 6144, 96)
    ours.write("fifth", 8192, 32)
    peer.do("connect")
    ours.wait_synced()
    peer.do("wait ds:UpToDate/UpToDate")
    peer.do("holds fifth 8192 32")
    ours.secondary()
    guest.run("drbdadm disconnect r0")
    peer.do("wait cs:WFConnection")
    assert_nothing_left(ours)


def assert_nothing_left(ours):
    """Nothing is in flight once the peer is gone."""
    counters = ours.state().counters
    assert {name: counters[name] for name in ("lo", "pe", "ua", "ap")} == \
        {"lo": 0, "pe": 0, "ua": 0, "ap": 0}
