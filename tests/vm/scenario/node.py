# SPDX-License-Identifier: GPL-2.0
"""A guest in its role as a node of a DRBD pair: what its driver and tools are, and their use."""

import re
from dataclasses import dataclass

from drbdvm import Guest, Lab, Result

from .procfile import Minor, minors

MIB = 1 << 20
SYNC_TIMEOUT_S = 300
CHUNK = 1 << 20


@dataclass(frozen=True)
class Flavour:
    """Which driver ("ours" or "c") and which tools ("ours" or "stock") a node has."""

    module: str
    tools: str

    def threads(self, resource: str, minor: int) -> list[str]:
        """Names of worker, receiver and asender of a connected resource."""
        if self.module == "ours":
            return [f"drbd{minor}_{role}" for role in ("worker", "receiver", "asender")]
        return [f"drbd_{role}_{resource}" for role in "wra"]

    def overwrite_peer(self, minor: int) -> str:
        """The command that makes a node primary whatever its peer has."""
        if self.tools == "ours":
            return f"drbdsetup /dev/drbd{minor} primary -o"
        return f"drbdsetup primary {minor} --force"


class Node:
    """A guest with one resource. What is written is text repeated, so that it can be told apart."""

    def __init__(self, guest: Guest, flavour: Flavour, conf: str, *, resource: str = "r0",
                 minor: int = 0, backing_offset: int = 0, disk: int = 0) -> None:
        self.guest = guest
        self.flavour = flavour
        self._conf = conf
        self.resource = resource
        self.minor = minor
        self._backing_offset = backing_offset
        self._disk = disk
        self._marks = 0

    @property
    def name(self) -> str:
        return self.guest.name

    @property
    def device(self) -> str:
        return f"/dev/drbd{self.minor}"

    def run(self, script: str, **options) -> Result:
        return self.guest.run(script, **options)

    def boot(self) -> None:
        """Switch on; a guest's root is in memory, so its configuration is written anew."""
        self.guest.boot()
        self.configure()

    def configure(self, conf: str | None = None) -> None:
        """Write drbd.conf, another one than before if given."""
        self._conf = conf or self._conf
        self.guest.write("/etc/drbd.conf", self._conf)

    # Life of the resource.

    def create(self) -> None:
        """Load the driver and write fresh metadata."""
        self.run(f"modprobe drbd && drbdadm --force create-md {self.resource}")

    def up(self) -> None:
        self.run(f"drbdadm up {self.resource}")

    def down(self) -> None:
        self.run(f"drbdadm down {self.resource}")

    def primary(self) -> None:
        self.run(f"drbdadm primary {self.resource}")

    def secondary(self) -> None:
        self.run(f"drbdadm secondary {self.resource}")

    def overwrite_peer(self) -> None:
        self.run(self.flavour.overwrite_peer(self.minor))

    # What it says about itself.

    def state(self) -> Minor:
        """The resource's device in /proc/drbd."""
        return minors(self.guest.read("/proc/drbd"))[self.minor]

    def wait_state(self, pattern: str, timeout_s: float = SYNC_TIMEOUT_S) -> Minor:
        """Wait until the state line in /proc/drbd (`cs:… ro:… ds:… C r-----`) matches."""
        text = self.guest.wait_until("cat /proc/drbd", rf"(?m)^ ?{self.minor}: .*{pattern}",
                                     timeout_s)
        return minors(text)[self.minor]

    def wait_synced(self, timeout_s: float = SYNC_TIMEOUT_S) -> Minor:
        return self.wait_state("cs:Connected .*ds:UpToDate/UpToDate", timeout_s)

    def threads(self) -> list[str]:
        """Names of the kernel threads that serve the resource."""
        known = self.flavour.threads(self.resource, self.minor)
        running = self.guest.run("cat /proc/[0-9]*/comm 2>/dev/null; true").out.split("\n")
        return [name for name in known if name in running]

    def mark(self) -> str:
        """Put a line into the kernel's log; see `log_since`."""
        self._marks += 1
        line = f"test: mark {self._marks}"
        self.run(f"echo '{line}' > /dev/kmsg")
        return line

    def log_since(self, mark: str) -> str:
        """What the kernel said on this boot after `mark`."""
        before, found, after = self.guest.dmesg().partition(mark)
        assert found, f"{self.name}: the kernel's log has lost `{mark}`:\n{before[-2000:]}"
        return after

    def resyncs_since(self, mark: str) -> list[tuple[str, int]]:
        """Resyncs that began after `mark`: this node's side of it, and how many KiB."""
        found = re.findall(r"Began resync as (\w+) \(will sync (\d+) KB \[(\d+) bits set\]\)",
                           self.log_since(mark))
        assert all(int(size) == 4 * int(bits) for _, size, bits in found)
        return [(side, int(size)) for side, size, _ in found]

    # Data.

    def write(self, word: str, at_kib: int, size_kib: int) -> None:
        """Fill a range of the device with `word`, past the page cache; back when it is stable."""
        self.run(f"yes {word} | dd of={self.device} bs=4k seek={at_kib // 4} "
                 f"count={size_kib // 4} iflag=fullblock oflag=direct conv=notrunc,fsync status=none")

    def holds(self, word: str, at_kib: int, size_kib: int) -> bool:
        """Whether the device, past the page cache, has what `write` put there."""
        result = self.run(
            f"cmp <(dd if={self.device} bs=4k skip={at_kib // 4} count={size_kib // 4} iflag=direct "
            f"status=none) <(yes {word} | head -c {size_kib}K)", check=False)
        return result.code == 0

    def size_bytes(self) -> int:
        """Size of the device, an amount that the backing disk holds in front of its metadata."""
        return 512 * int(self.run(f"cat /sys/block/drbd{self.minor}/size").out)

    def backing_data(self, size_bytes: int):
        """The data area of the backing disk, in chunks, as the host sees it."""
        with open(self.guest.machine.disks[self._disk], "rb") as disk:
            disk.seek(self._backing_offset)
            while size_bytes > 0:
                chunk = disk.read(min(CHUNK, size_bytes))
                assert chunk, f"{self.name}: the backing disk is shorter than the device"
                size_bytes -= len(chunk)
                yield chunk


def node_pair(lab: Lab, flavours: Flavour | tuple[Flavour, Flavour], conf: str | tuple[str, str],
              *, disks: list[str], files: dict | None = None, resource: str = "r0", minor: int = 0,
              backing_offset: int = 0, prepare_disk=None, **image) -> tuple[Node, Node]:
    """The nodes t and Shentar on two guests with a wire; flavours and drbd.conf may differ.

    `image`: what else their images hold, as for `Lab.guest`.
    """
    kinds = flavours if isinstance(flavours, tuple) else (flavours, flavours)
    confs = conf if isinstance(conf, tuple) else (conf, conf)
    guests = lab.pair(
        "t", "Shentar", module=tuple(kind.module for kind in kinds),
        tools=tuple(kind.tools for kind in kinds), disks=disks, files=files or {}, boot=False,
        **image)
    if prepare_disk:
        for guest in guests:
            prepare_disk(guest.machine.disks[0])
    lab.boot(*guests)
    nodes = tuple(Node(guest, kind, text, resource=resource, minor=minor,
                       backing_offset=backing_offset)
                  for guest, kind, text in zip(guests, kinds, confs))
    for node in nodes:
        node.configure()
    return nodes


def same_data(first: Node, second: Node, size_bytes: int) -> None:
    """Fail unless the backing disks are equal; call it only while nothing writes."""
    at = 0
    pairs = zip(first.backing_data(size_bytes), second.backing_data(size_bytes), strict=True)
    for ours, theirs in pairs:
        if ours != theirs:
            byte = next(index for index, both in enumerate(zip(ours, theirs)) if len(set(both)) > 1)
            raise AssertionError(f"the disks of {first.name} and {second.name} differ at byte "
                                 f"{at + byte} (block {(at + byte) // 4096}) of {size_bytes}")
        at += len(ours)
