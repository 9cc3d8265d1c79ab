# SPDX-License-Identifier: GPL-2.0
"""The machines a benchmark runs on: two pairs, alike in all but the driver.

Both pairs live at the same time, and the one that is not measured is stopped (under QEMU its clock,
too), so that runs of the two drivers alternate within seconds and see the same load of the host.
"""

import contextlib
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests" / "vm"))

from config import resource  # noqa: E402
from drbdvm import Guest, Lab  # noqa: E402
from drbdvm.uml import MEMORY_DIRECTORY  # noqa: E402

DEVICE = "/dev/drbd0"
BARE = "/dev/vdb"
HUGE = "/dev/vdc"
# Of many extents, for a small activity log.
COLD = "/dev/drbd8"
_COLD_MIB = 4096
DISK_MIB = 256
# One seed for all, so that both drivers see the same blocks in the same order.
SEED = 4711
_STAMP = re.compile(r"^\[\s*(\d+\.\d+)\]")
_QUIET_S = 120


@dataclass(frozen=True)
class Lane:
    """What the guests run on, and what is peculiar to it."""

    # Its name in drbdvm, and what is appended to the names of files about it.
    guests: str
    suffix: str = ""
    # Where the disks' files are, if not where the system has temporary files.
    below: str | None = None
    # None: as many as tests have.
    processors: int | None = None
    kernel_options: tuple[str, ...] = ()
    # How long after a stop the nodes may take to notice what has expired meanwhile.
    settles_s: float = 0


LANES = {
    "qemu": Lane("stock"),
    # A flush goes through to the host's disk, if it is one. The clock goes on while a guest is
    # stopped: an RCU grace period seems to take as long, and a ping may be answered too late.
    "um": Lane("umbench", "-um", MEMORY_DIRECTORY, processors=1, settles_s=1,
               kernel_options=("rcupdate.rcu_cpu_stall_suppress=1",)),
}


class Pair:
    """Two connected guests with one driver: `primary` and `secondary`."""

    def __init__(self, driver: str, lane: Lane = LANES["qemu"],
                 plugin: Path | None = None, cards: bool = False) -> None:
        self.driver = driver
        self._lane = lane
        self._protocol = "C"
        config = {"etc/drbd.conf": resource(), "etc/drbd-huge.conf": _huge_resource(),
                  "etc/drbd-cold.conf": _cold_resource()}
        with contextlib.ExitStack() as stack:
            self._lab = stack.enter_context(Lab(
                f"bench{lane.suffix}-{driver}", lane.guests, lane.below, cards))
            self.primary, self.secondary = self._lab.pair(
                module=driver, tools="stock", bench=True, files=config, plugin=plugin,
                processors=lane.processors, options=list(lane.kernel_options),
                disks=[f"{DISK_MIB}M", f"{DISK_MIB}M", "1024G", f"{_COLD_MIB}M"])
            self._set_up()
            self.pause()
            # From here on the guests are the caller's; if anything failed they are gone.
            self._held = stack.pop_all()

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_) -> None:
        self._held.close()

    def _set_up(self) -> None:
        for guest in self.guests:
            guest.run("modprobe drbd")
        self._make("drbdadm", "r0")
        # The first write to a block of the host's file is slower than all others.
        for device in (DEVICE, BARE):
            self.primary.run(f"dd if=/dev/zero of={device} bs=1M oflag=direct 2>/dev/null || true",
                             timeout_s=_QUIET_S)

    def _make(self, adm: str, name: str) -> None:
        for guest in self.guests:
            guest.run(f"{adm} create-md --force {name} && {adm} up {name}")
        self.primary.wait_until(f"{adm} cstate {name}", "^Connected$")
        # Equal disks need no first resync, and a benchmark no memory of it.
        self.primary.run(f"{adm} -- --clear-bitmap new-current-uuid {name}")
        self.primary.wait_until(f"{adm} dstate {name}", "^UpToDate/UpToDate$")
        self.primary.run(f"{adm} primary {name}")

    @contextlib.contextmanager
    def cold(self):
        """With a resource whose activity log is small for its disk: `COLD`."""
        adm = "drbdadm -c /etc/drbd-cold.conf"
        self._make(adm, "cold")
        try:
            yield
        finally:
            for guest in self.guests:
                guest.run(f"{adm} down cold")

    @property
    def guests(self) -> tuple[Guest, Guest]:
        return self.primary, self.secondary

    def pause(self) -> None:
        for guest in self.guests:
            guest.stop()

    @contextlib.contextmanager
    def running(self):
        """The pair runs only in here."""
        for guest in self.guests:
            guest.cont()
        try:
            time.sleep(self._lane.settles_s)
            self.wait_idle()
            yield self
        finally:
            self.pause()

    def wait_idle(self) -> None:
        self.primary.wait_until("drbdadm cstate r0; drbdadm dstate r0",
                                "^Connected\nUpToDate/UpToDate$", timeout_s=_QUIET_S)

    def use_protocol(self, protocol: str) -> None:
        if protocol != self._protocol:
            for guest in self.guests:
                guest.run(f"drbdsetup net-options 192.0.2.{1 + (guest is self.secondary)}:7788 "
                          f"192.0.2.{1 + (guest is self.primary)}:7788 --protocol={protocol}")
            self._protocol = protocol

    def disk_options(self, options: str) -> None:
        """Options of the disk section, on both nodes; all others go back to their defaults."""
        for guest in self.guests:
            guest.run(f"drbdsetup disk-options 0 --set-defaults {options}")

    def disconnect(self) -> None:
        self.primary.run("drbdadm disconnect r0")
        self.primary.wait_until("drbdadm cstate r0", "^StandAlone$")

    def connect(self) -> None:
        for guest in self.guests:
            guest.run("drbdadm connect r0 2>/dev/null || true")

    def fio(self, device: str, options: str, *, guest: Guest | None = None) -> dict:
        """Run one fio job; its part of the result."""
        guest = guest or self.primary
        where = f"--filename={device}" if device.startswith("/dev/") else f"--directory={device}"
        result = guest.run(
            f"fio --name=job {where} --direct=1 --ioengine=libaio --randseed={SEED} "
            f"--output-format=json {options}", timeout_s=_QUIET_S)
        text = result.out
        return json.loads(text[text.index("{"):])["jobs"][0]

    def resync_seconds(self, start, ends_on: Guest | None = None) -> float:
        """How long the resync that `start` sets off takes, by the kernel's own clock."""
        guest = ends_on or self.primary
        guest.run("dmesg -C")
        start()
        deadline = time.monotonic() + _QUIET_S
        while True:
            log = guest.dmesg()
            began, ended = _stamp(log, "Began resync as"), _stamp(log, "Resync done")
            if began is not None and ended is not None:
                return ended - began
            if time.monotonic() > deadline:
                raise TimeoutError(f"no resync ended:\n{log}")
            time.sleep(0.5)


def _stamp(log: str, text: str) -> float | None:
    for line in log.splitlines():
        match = _STAMP.match(line)
        if match and text in line:
            return float(match.group(1))
    return None


def _huge_resource() -> str:
    return resource(name="huge", minor=9, disk=HUGE, port=7799)


def _cold_resource() -> str:
    return resource(name="cold", minor=8, disk="/dev/vdd", port=7798, disk_options="al-extents 67;")


def ground() -> dict:
    """What the figures depend on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"processors": os.cpu_count(), "processor": model.group(1) if model else "unknown",
            "load": os.getloadavg()[0]}
