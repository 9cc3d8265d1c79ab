# SPDX-License-Identifier: GPL-2.0
"""Our drbdmeta and that of drbd-utils do the same: exit codes, output, and every byte on disk."""

import re
from pathlib import Path

import pytest

from config import GLOBAL

CHECKOUT = Path(__file__).resolve().parents[2]
DISK_SIZE = "16M"
# The two disks, with the minors they go by: neither is in use.
STOCK = ("drbdmeta", "/dev/vda", 17)
OURS = ("drbd-tools drbdmeta", "/dev/vdb", 18)

STEPS = [
    "create-md", "dump-md", "show-gi", "get-gi", "dstate", "apply-al",
    "write-dev-uuid 0x1122334455667788", "read-dev-uuid", "outdate", "create-md",
    "--force set-gi 1111:2222:3333:4444:1:1:1:0:0:0:0", "dstate", "outdate", "dstate", "show-gi",
    "dump-md", "invalidate", "get-gi", "--force create-md", "get-gi",
    "--force wipe-md", "wipe-md", "dump-md",
    "--al-stripes 4 --al-stripe-size-kB 64 --force create-md", "dump-md", "--force wipe-md",
    "--peer-max-bio-size 1M create-md", "dump-md", "bogus", "set-gi",
]


def command(tool: tuple[str, str, int], step: str) -> str:
    program, disk, minor = tool
    words = step.split()
    options = []
    while words[0].startswith("--"):
        options.append(words.pop(0))
        if options[-1] != "--force":
            options.append(words.pop(0))
    return f"{program} {' '.join(options)} {minor} v08 {disk} internal {' '.join(words)}"


def compare(guest, steps: list[str]) -> None:
    """Take each step with both programs; every time outcome and disks must be the same."""
    script = "".join(
        f"for program in '{command(STOCK, step)}' '{command(OURS, step)}'; do "
        "$program 2>&1 </dev/null; echo \"=> $?\"; echo @@; done; "
        f"cmp {STOCK[1]} {OURS[1]} && echo same; echo @@\n"
        for step in steps
    )
    parts = guest.run(script, check=False, timeout_s=300).out.split("@@\n")
    for number, step in enumerate(steps):
        stock, ours, disks = parts[3 * number:3 * number + 3]
        assert neutral(ours) == neutral(stock), step
        assert disks == "same\n", f"{step}: the disks differ"


def neutral(text: str) -> list[str]:
    """Lines without what tells the two apart, in no order: stock output is buffered."""
    text = text.replace(OURS[1], STOCK[1])
    lines = (re.sub(r"^# (20\d\d-|\S+> ).*", "# stamp", line) for line in text.splitlines())
    return sorted(lines)


@pytest.fixture
def guest(lab):
    made = lab.guest("t", module="c", tools="stock", disks=[DISK_SIZE, DISK_SIZE],
                     files={"usr/sbin/drbd-tools": CHECKOUT / "build/bin/drbdadm"})
    made.boot()
    made.run("chmod 755 /usr/sbin/drbd-tools; modprobe drbd")
    return made


def test_every_command_leaves_the_bytes_of_stock_drbdmeta(guest):
    compare(guest, STEPS)


def test_a_crashed_primary_recovers_to_the_same_bitmap(guest):
    up = ("drbdsetup new-resource r0 && drbdsetup new-minor r0 0 0 && "
          "drbdsetup attach 0 /dev/vda /dev/vda internal")
    guest.run(f"drbdmeta 0 v08 /dev/vda internal create-md; {up} && drbdsetup down r0 && "
              "drbdmeta 0 v08 /dev/vda internal apply-al")
    # In sync as far as the metadata say, so that the activity log is kept.
    bitmap = re.search(r"bm_offset (\d+)",
                       guest.run("drbdmeta 0 v08 /dev/vda internal dump-md").out)[1]
    guest.run("drbdmeta --force 0 v08 /dev/vda internal set-gi 1234567890ABCDEE:0:0:0:1:1:0; "
              f"dd if=/dev/zero of=/dev/vda bs=4096 seek=$(({bitmap} / 4096)) count=1 "
              f"conv=fsync; {up} && drbdsetup primary 0")
    for block in (0, 1500, 4080):
        guest.run(f"dd if=/dev/urandom of=/dev/drbd0 bs=4k count=1 seek={block} oflag=direct")
    guest.run("drbdsetup suspend-io 0; dd if=/dev/vda of=/tmp/crashed bs=1M; "
              "drbdsetup resume-io 0; drbdsetup down r0; "
              "for disk in vda vdb; do dd if=/tmp/crashed of=/dev/$disk bs=1M conv=fsync; done")
    compare(guest, ["dump-md", "get-gi", "apply-al", "dump-md", "show-gi", "apply-al"])
    assert "# bits-set 0;" not in guest.run(command(OURS, "dump-md")).out


def test_volumes_keep_their_metadata_in_slots_of_one_device(lab):
    """As many as have a slot, each with the other in use."""
    one = "resource {0} {{\n    on t {{ device /dev/drbd{1}; disk /dev/vd{2}; " \
          "address 192.0.2.1:{3}; meta-disk /dev/vdc [{1}]; }}\n" \
          "    on Shentar {{ device /dev/drbd{1}; disk /dev/vd{2}; address 192.0.2.2:{3}; " \
          "meta-disk /dev/vdc [{1}]; }}\n}}\n"
    # Names that could be minors: each is that of the other.
    conf = GLOBAL + one.format("1", 0, "a", 7788) + one.format("0", 1, "b", 7789)
    made = lab.guest("t", tools="ours", disks=[DISK_SIZE, DISK_SIZE, "512M"])
    made.boot()
    made.write("/etc/drbd.conf", conf)
    made.run("ip addr add 192.0.2.1/24 dev lo && ip link set lo up && modprobe drbd && "
             "drbdadm create-md --force all && drbdadm up all")
    states = made.run("cat /proc/drbd").out
    assert states.count("ds:Inconsistent/DUnknown") == 2, states
    # It is the resource that is named, and nothing is to be changed.
    assert made.run("drbdadm adjust --dry-run all").out.strip() == ""
    made.run("drbdadm down 1")
    states = made.run("cat /proc/drbd").out
    assert " 0: cs:" not in states and " 1: cs:WFConnection" in states, states
    assert made.run("drbdadm apply-al 1 && drbdadm dump-md 1").out.count("al-extents") == 1
    made.run("drbdadm up 1 && drbdadm down all")
