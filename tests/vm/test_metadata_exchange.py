# SPDX-License-Identifier: GPL-2.0
"""Either driver attaches what the other one and the other's drbdmeta wrote, in all places.

One guest without a peer: what was written there is out of sync afterwards, block by block after a
clean `down`, and by extents of the activity log after a crash. `drbdmeta dump-md` of both tool sets
says the same of every image, and both drivers leave the same metadata after the same history.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from scenario import Flavour, Node
from scenario.drivers import load_driver
from scenario.procfile import minors

CHECKOUT = Path(__file__).resolve().parents[2]
TOOLS = {"c": "drbdmeta", "ours": "drbd-tools drbdmeta"}
OTHER = {"c": "ours", "ours": "c"}
AL_EXTENT_KIB = 4096
# Where a history writes, in KiB: each in an extent of its own, in two for the last one.
WRITTEN = ((0, 64), (9 * 1024, 4), (16 * 1024 - 8, 16))
EXTENTS = (0, 2, 3, 4)
GENERATION = "1234567890ABCDEE"
UNCLEAN = 165


@dataclass(frozen=True)
class Place:
    """Where metadata lie: the device, its name for drbdmeta and for drbdsetup, and their form."""

    device: str
    index: str
    setup_index: str
    create: str = ""

    def meta(self, tools: str, command: str, options: str = "--force") -> str:
        return f"{TOOLS[tools]} {options} 0 v08 {self.device} {self.index} {command}"

    def attach(self) -> str:
        return f"drbdsetup attach 0 /dev/vda {self.device} {self.setup_index}"


STRIPES = "--al-stripes 3 --al-stripe-size-kB 16"
PLACES = {
    "internal": Place("/dev/vda", "internal", "internal"),
    "internal-striped": Place("/dev/vda", "internal", "internal", STRIPES),
    "external": Place("/dev/vdb", "flex-external", "flexible"),
    "external-striped": Place("/dev/vdb", "flex-external", "flexible", STRIPES),
    "indexed": Place("/dev/vdb", "1", "1"),
}
# Those that run every day; the others with --long.
DAILY = ("internal-striped", "indexed")


@pytest.fixture(scope="module")
def node(module_lab):
    guest = module_lab.guest("t", module="ours", tools="stock", disks=["24M", "257M"],
                             files={"usr/sbin/drbd-tools": CHECKOUT / "build/bin/drbdadm",
                                    "usr/sbin/udevadm": "#!/bin/sh\nexit 0\n"})
    guest.boot()
    # The stock drbdsetup is a program that looks for the one it then becomes.
    guest.run("chmod 755 /usr/sbin/drbd-tools; cp -f /lib/drbd/drbdsetup-84 /usr/sbin/drbdsetup")
    return Node(guest, Flavour("ours", "stock"), "")


def up(node: Node, place: Place) -> None:
    node.run(f"drbdsetup new-resource r0 && drbdsetup new-minor r0 0 0 && {place.attach()}")


def down(node: Node) -> None:
    node.run("drbdsetup down r0")


def dump(node: Node, place: Place) -> list[str]:
    """What both tool sets say of the metadata, which must be the same, without when and where."""
    said = [node.run(place.meta(tools, "dump-md", ""), check=False) for tools in TOOLS]
    texts = [re.sub(r"(?m)^# (20\d\d-|\S+> ).*", "# stamp", each.out) for each in said]
    assert texts[0] == texts[1]
    assert [each.code for each in said] == [said[0].code] * 2
    return texts[0].splitlines()


def neutral(lines: list[str]) -> list[str]:
    """Without what drivers and tools make up."""
    text = "\n".join(lines)
    text = re.sub(r"(?m)^(device-uuid) .*", r"\1", text)
    known = (GENERATION, "0" * 16)
    return re.sub(r"\b0x([0-9A-F]{16})\b",
                  lambda found: found[0] if found[1] in known else "made up", text).split("\n")


def prepare(node: Node, place: Place, author: str) -> None:
    """Fresh metadata of an author's tools and driver, in sync as far as they say."""
    load_driver(node.guest, author)
    wipe = "".join(f"dd if=/dev/zero of={disk} bs=1M count=24 status=none conv=fsync;"
                   for disk in ("/dev/vda", place.device))
    node.run(f"{wipe} {place.meta(author, 'create-md', '--force ' + place.create)}")
    up(node, place)
    down(node)
    node.run(place.meta(author, "apply-al"))
    [offset] = re.findall(r"bm_offset (\d+)", node.run(place.meta(author, "dump-md", "")).out)
    node.run(f"{place.meta(author, f'set-gi {GENERATION}:0:0:0:1:1:0')} && "
             f"dd if=/dev/zero of={place.device} bs=4096 seek=$(({offset} / 4096)) count=1 "
             "conv=notrunc,fsync status=none")


def write(node: Node, word: str) -> None:
    """A history on the device, from Secondary to Primary."""
    node.run("drbdsetup primary 0")
    for at_kib, size_kib in WRITTEN:
        node.write(word, at_kib, size_kib)


def check_data(node: Node, word: str) -> None:
    node.run("drbdsetup primary 0")
    assert all(node.holds(word, at_kib, size_kib) for at_kib, size_kib in WRITTEN)


def out_of_sync_kib(node: Node) -> int:
    return minors(node.guest.read("/proc/drbd"))[0].oos_kib


def crash(node: Node, place: Place) -> None:
    """Leave the disks as a power cut does, in the middle of it all."""
    # Only the first 24 MiB of a disk, and where the second index is, were ever written.
    parts = [("/dev/vda", 0, 24)]
    if place.device != "/dev/vda":
        parts.append((place.device, 0 if place.index == "flex-external" else 128, 24))
    copies = [(f"/tmp/crashed{number}", *part) for number, part in enumerate(parts)]
    save = "".join(f"dd if={disk} of={copy} bs=1M skip={at} count={size} status=none;"
                   for copy, disk, at, size in copies)
    restore = "".join(f"dd if={copy} of={disk} bs=1M seek={at} conv=notrunc,fsync status=none;"
                      for copy, disk, at, _ in copies)
    node.run(f"drbdsetup suspend-io 0; {save} drbdsetup resume-io 0; drbdsetup down r0; {restore}"
             "echo 3 > /proc/sys/vm/drop_caches")


@pytest.mark.parametrize("place_name", PLACES)
@pytest.mark.parametrize("history", ["clean", "crashed"])
def test_metadata_go_from_driver_to_driver_and_back(node, request, place_name, history):
    if place_name not in DAILY and not request.config.getoption("--long"):
        pytest.skip("runs with --long")
    place = PLACES[place_name]
    left = {}
    for author in TOOLS:
        reader = OTHER[author]
        prepare(node, place, author)
        up(node, place)
        write(node, f"by-{author}")
        if history == "clean":
            down(node)
            wanted_kib = sum(size for _, size in WRITTEN)
        else:
            crash(node, place)
            wanted_kib = len(EXTENTS) * AL_EXTENT_KIB
            unclean = dump(node, place)
            load_driver(node.guest, reader)
            node.run("drbdsetup new-resource r0 && drbdsetup new-minor r0 0 0")
            refused = node.run(place.attach(), check=False)
            assert f"({UNCLEAN})" in refused.err, refused.err
            down(node)
            assert dump(node, place) == unclean
        # The kernel leaves the mark of metadata in use, which the tools take away.
        node.run(place.meta(reader, "apply-al"))
        before = dump(node, place)
        left[author] = neutral(before)
        # There: the reader finds what the author wrote.
        load_driver(node.guest, reader)
        up(node, place)
        assert node.run("drbdsetup dstate 0").out.startswith("UpToDate/")
        assert out_of_sync_kib(node) == wanted_kib
        check_data(node, f"by-{author}")
        write(node, f"by-{reader}")
        down(node)
        # And back.
        node.run(place.meta(author, "apply-al"))
        load_driver(node.guest, author)
        up(node, place)
        assert out_of_sync_kib(node) == wanted_kib
        check_data(node, f"by-{reader}")
        down(node)
        node.run(place.meta(author, "apply-al"))
        dump(node, place)
    assert left["ours"] == left["c"]


@pytest.mark.parametrize("place_name", PLACES)
def test_fresh_metadata_of_both_tool_sets_are_equal_bytes(node, request, place_name):
    if place_name not in DAILY and not request.config.getoption("--long"):
        pytest.skip("runs with --long")
    place = PLACES[place_name]
    load_driver(node.guest, "ours")
    found = {}
    for author in TOOLS:
        node.run(f"dd if=/dev/zero of={place.device} bs=1M count=24 status=none conv=fsync;"
                 f"{place.meta(author, 'create-md', '--force ' + place.create)}")
        found[author] = neutral(dump(node, place))
    assert found["ours"] == found["c"]
