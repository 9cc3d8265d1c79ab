# SPDX-License-Identifier: GPL-2.0
"""A peer that sends what no node would (tests/peer): the module drops it, and serves the next one.

The peer runs in the module's guest, over the loopback interface. Resources are of four tempers:
r0 is plain, r1 with authentication, r2 with digests of the data; r3 is Primary, and its
application writes again and again; then r4 is as r0. `--evil-packets` makes the run longer.
"""

import pytest

from config import resource
from drbdvm.report import find_trouble
from scenario import peer as userspace
from scenario import Node
from scenario.life import FAST

RESOURCES = 8
DISK_KIB = 8 * 1024
COMMON = "timeout 20; ping-int 3; ping-timeout 10; connect-int 3; ko-count 2;"
NET = [
    "",
    'cram-hmac-alg sha1; shared-secret "evil";',
    "data-integrity-alg sha1;",
    "",
]
# An application that has writes under way; errors while a resource is away are no news.
WRITER = ("while :; do for minor in {}; do dd if=/dev/zero of=/dev/drbd$minor bs=16k count=64 "
          "oflag=direct status=none 2>/dev/null; done; sleep 0.2; done")


def conf() -> str:
    parts = [
        resource("t", "peer", name=f"r{number}", minor=number, disk=f"/dev/ram{number}",
                 net=f"{COMMON} {NET[number % 4]}", disk_options=FAST, port=7788 + number)
        for number in range(RESOURCES)
    ]
    text = parts[0] + "".join(part.partition("\n")[2] for part in parts[1:])
    return text.replace("192.0.2.2", userspace.ADDRESS)


@pytest.fixture(scope="module")
def guest(module_lab, flavour):
    guest = module_lab.guest("t", module=flavour.module, tools=flavour.tools,
                             files=userspace.FILES, options=["log_buf_len=8M"])
    module_lab.boot(guest)
    prepare(guest)
    return guest


def prepare(guest):
    # Every drop is told in a line; the console of an emulated guest is too slow for that.
    guest.run("echo 5 > /proc/sys/kernel/printk; "
              f"ip address add 192.0.2.1/32 dev lo; ip address add {userspace.ADDRESS}/32 dev lo; "
              f"modprobe brd rd_nr={RESOURCES} rd_size={DISK_KIB}; modprobe drbd")
    guest.write("/etc/drbd.conf", conf())
    # Stock drbdadm gives a slow kernel five seconds.
    guest.run("drbdadm --force create-md all && "
              "{ drbdadm up all || { sleep 5; drbdadm adjust all; }; } && "
              "drbdadm primary --force all && drbdadm secondary r0 r1 r2")


def counters(guest) -> list[dict]:
    nodes = [Node(guest, None, conf(), minor=number) for number in range(RESOURCES)]
    return [{name: node.state().counters[name] for name in ("lo", "pe", "ua", "ap")}
            for node in nodes]


def test_an_evil_peer_costs_its_connection_and_nothing_else(guest, request):
    packets = request.config.getoption("--evil-packets")
    seed = request.config.getoption("--evil-seed")
    writer = guest.spawn(WRITER.format(" ".join(map(str, range(3, RESOURCES, 4)))),
                         timeout_s=24 * 3600)
    seconds = max(30, packets // 5)
    result = guest.run(
        f"drbd-peer evil --to 192.0.2.1:7788 --resources {RESOURCES} --seed {seed} "
        f"--packets {packets} --seconds {seconds}", check=False, timeout_s=seconds + 120)
    writer.kill()
    print(result.out)
    assert result.code == 0, result.out + result.err
    guest.wait_until("cat /proc/drbd", rf"(?s)(lo:0 pe:0 ua:0 ap:0.*){{{RESOURCES}}}")
    trouble = find_trouble(guest.dmesg(), [])
    assert not trouble, trouble


def test_a_good_peer_is_served_afterwards(guest, flavour):
    node = Node(guest, flavour, conf())
    guest.run("drbdadm down r0; drbdadm up r0; drbdadm primary --force r0")
    peer = userspace.Peer(guest, f"--proto 101 --features 1 --disk /tmp/good --kib {DISK_KIB} "
                                 "--call 192.0.2.1:7788")
    peer.do("connect")
    node.wait_synced()
    peer.do("wait ds:UpToDate/UpToDate")
    node.write("good", 1024, 64)
    peer.do("holds good 1024 64")
    peer.do("disconnect")
    peer.crash()
    guest.run("drbdadm down all && rmmod drbd")
