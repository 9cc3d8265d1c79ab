# SPDX-License-Identifier: GPL-2.0
"""Bad input: one clear message and the right exit code, and nothing changes on any disk.

Broken configuration files are tested with the tools; here is what needs a driver.
"""

import hashlib
import re
import struct
from pathlib import Path

import pytest

from scenario import node_pair
from scenario import life

ATTACH = "drbdsetup attach 0 /dev/vda /dev/vda internal"
NO_VALID_METADATA = (119, "No valid meta-data signature found")
UNCLEAN_METADATA = (165, "Unclean meta-data found")

# Field: offset in the super block, format, damaged value, what the attach answers.
DAMAGE = {
    "magic": (60, ">I", 0x12345678, NO_VALID_METADATA),
    "magic of version 07": (60, ">I", 0x8374026A, NO_VALID_METADATA),
    "magic of unclean metadata": (60, ">I", 0x8374026C, UNCLEAN_METADATA),
    "flags without AL_CLEAN": (56, ">I", 0, UNCLEAN_METADATA),
    "last agreed size": (0, ">Q", 1 << 40, NO_VALID_METADATA),
    "size of the area, too large": (64, ">I", 0x7FFFFFFF, NO_VALID_METADATA),
    "offset of the activity log": (68, ">i", -72, NO_VALID_METADATA),
    "offset of the activity log, behind": (68, ">i", 8, NO_VALID_METADATA),
    "offset of the bitmap, in the log": (76, ">i", -56, NO_VALID_METADATA),
    "bytes per bit": (80, ">I", 8192, NO_VALID_METADATA),
    "stripes": (88, ">I", 5, NO_VALID_METADATA),
    "size of a stripe": (92, ">I", 5, NO_VALID_METADATA),
}
# The C driver takes no notice of these.
DAMAGE_THE_C_DRIVER_MISSES = {
    "size of the area, too small": (64, ">I", 72, NO_VALID_METADATA),
    "offset of the bitmap, in the data": (76, ">i", -80, NO_VALID_METADATA),
}


def conf(secret: str) -> str:
    return life.conf(net=f'cram-hmac-alg sha1; shared-secret "{secret}";')


@pytest.fixture(scope="module")
def nodes(module_lab, flavour):
    nodes = node_pair(module_lab, flavour, (conf("one"), conf("two")), disks=["16M", "16M"])
    for node in nodes:
        node.create()
    return nodes


@pytest.fixture
def device(nodes):
    """A minor without a disk on the first node."""
    t, _ = nodes
    t.run("drbdsetup new-resource r0 && drbdsetup new-minor r0 0 0")
    yield t
    t.run("drbdsetup down r0")


def disk_of(node) -> Path:
    return node.guest.machine.disks[0]


def superblock_at(disk: Path) -> int:
    """Byte offset of the super block of internal metadata (Spec §2.2)."""
    return ((disk.stat().st_size // 512 & ~7) - 8) * 512


def digest(disk: Path) -> str:
    return hashlib.sha256(disk.read_bytes()).hexdigest()


def overwrite(disk: Path, at: int, data: bytes) -> bytes:
    """Replace bytes of a disk that nobody uses; returns what was there."""
    with open(disk, "r+b") as file:
        file.seek(at)
        before = file.read(len(data))
        file.seek(at)
        file.write(data)
    return before


def attach_is_refused(device, offset, form, value, answer):
    """Damage one field, attach, and put it right again."""
    code, text = answer
    disk = disk_of(device)
    at = superblock_at(disk) + offset
    before = overwrite(disk, at, struct.pack(form, value))
    damaged = digest(disk)
    result = device.run(ATTACH, check=False)
    after = digest(disk)
    overwrite(disk, at, before)
    assert result.code == 10
    assert f"({code})" in result.err and text in result.err
    assert after == damaged, "the attach that was refused has changed the disk"


@pytest.mark.parametrize("field", DAMAGE)
def test_damaged_metadata_are_refused_and_left_alone(device, field):
    attach_is_refused(device, *DAMAGE[field])


@pytest.mark.parametrize("field", DAMAGE_THE_C_DRIVER_MISSES)
def test_damage_the_c_driver_misses_is_refused(device, flavour, field):
    if flavour.module == "c":
        pytest.skip("the C driver attaches them")
    attach_is_refused(device, *DAMAGE_THE_C_DRIVER_MISSES[field])


def test_undamaged_metadata_are_accepted_once(device):
    device.run(ATTACH)
    result = device.run(ATTACH, check=False)
    assert result.code == 10
    assert "(124) Device is attached to a disk" in result.err


def test_a_disk_in_use_is_not_taken(device):
    device.run("mkfs.ext3 -q /dev/vdb && mkdir -p /inuse && mount /dev/vdb /inuse")
    result = device.run("drbdsetup attach 0 /dev/vdb /dev/vdb internal", check=False)
    device.run("touch /inuse/still-mine && umount /inuse")
    assert result.code == 10
    assert "(104) Can not open backing device" in result.err


def test_metadata_are_not_written_over_a_file_system(device):
    device.run("mkfs.ext3 -q /dev/vdb")
    device.run("sed s,/dev/vda,/dev/vdb, /etc/drbd.conf > /tmp/vdb.conf")
    disk = device.guest.machine.disks[1]
    before = digest(disk)
    result = device.run("drbdadm -c /tmp/vdb.conf create-md r0", check=False, stdin="no\n")
    assert result.code != 0
    assert "ext3" in result.out + result.err
    assert digest(disk) == before


@pytest.mark.parametrize("path, message", [
    ("/dev/vdz", "No such file or directory"),
    ("/etc/hosts", "not a block device"),
])
def test_a_disk_that_is_none_is_named(device, path, message):
    result = device.run(f"drbdsetup attach 0 {path} {path} internal", check=False)
    assert result.code in (10, 20)
    assert path in result.err and message in result.err
    device.run(f"sed s,/dev/vda,{path}, /etc/drbd.conf > /tmp/none.conf")
    result = device.run("drbdadm -c /tmp/none.conf attach r0", check=False)
    assert result.code not in (0, 10)
    assert path in result.err


@pytest.mark.parametrize("command", ["up", "down", "primary", "cstate", "create-md"])
def test_an_unknown_resource_is_named(nodes, command):
    t, _ = nodes
    result = t.run(f"drbdadm {command} nosuch", check=False)
    assert result.code == 1
    assert "'nosuch' not defined in your config (for this host)." in result.err


def test_an_unknown_minor_is_named(nodes):
    t, _ = nodes
    result = t.run("drbdsetup primary 7", check=False)
    assert result.code == 10
    assert "7: Failure: (127) Device minor not allocated" in result.err
    result = t.run("drbdsetup new-minor nosuch 3 0", check=False)
    assert result.code == 10
    assert "(158) Unknown resource" in result.err


def wait_standalone(nodes, message: str):
    """Both gave up, and said why."""
    for node in nodes:
        node.wait_state(r"cs:StandAlone ro:Secondary/Unknown", life.OUTAGE_TIMEOUT_S)
    for node in nodes:
        assert re.search(message, node.guest.dmesg()), f"{node.name} did not say why"


def test_a_wrong_secret_ends_the_connection(nodes):
    for node in nodes:
        node.up()
    wait_standalone(nodes, r"drbd r0: Authentication of peer failed")
    for node in nodes:
        assert node.guest.run("drbdadm role r0").out == "Secondary/Unknown\n"
        node.down()


def test_different_protocols_end_the_connection(nodes):
    for node, protocol in zip(nodes, "AC"):
        node.configure(life.conf(protocol=protocol))
        node.up()
    wait_standalone(nodes, r"drbd r0: incompatible protocol settings")
    for node in nodes:
        node.down()
