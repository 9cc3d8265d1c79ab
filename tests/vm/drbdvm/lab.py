# SPDX-License-Identifier: GPL-2.0
"""A lab: some guests, the wire between them, their disks, and the check of all their kernels."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from . import accelerator, qemu, uml
from .guest import Guest
from .image import CHECKOUT, DEBUG_LANES, LANES, UML_LANES, Ground, write_image

_SUFFIXES = {"K": 10, "M": 20, "G": 30}

_live: list["Lab"] = []

# Labs of all processes that may run side by side. The guests of a pair mostly wait for each other,
# so that a pair keeps less than one processor busy.
_SIDE_BY_SIDE = int(os.environ.get("DRBDVM_SIDE_BY_SIDE", 0)) or os.cpu_count() or 1


class _Place:
    """One of the places that labs of all processes on this machine share."""

    def __init__(self) -> None:
        self._file = None
        while self._file is None:
            self._file = self._try_all()
            if self._file is None:
                time.sleep(0.5)

    @staticmethod
    def _try_all():
        for number in range(_SIDE_BY_SIDE):
            path = Path(tempfile.gettempdir()) / f"drbdvm-place-{os.getuid()}-{number}"
            file = open(path, "w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                file.close()
        return None

    def leave(self) -> None:
        """Let the next one in."""
        if self._file is not None:
            self._file.close()
            self._file = None


# What the machine must have of memory for labs to keep their disks there.
_ROOMY_MIB = 8192
# By then whoever makes a directory has its lock.
_SETTLED_S = 60


def _below() -> str:
    """Where a lab's directory is made: in memory if there is room, so that neither a full nor a
    slow disk of the host disturbs a test, otherwise where the system has temporary files."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        if min(int(available.split()[1]) >> 10,
               shutil.disk_usage(uml.MEMORY_DIRECTORY).free >> 20) >= _ROOMY_MIB:
            return uml.MEMORY_DIRECTORY
    return tempfile.gettempdir()


class _Directory:
    """A lab's directory, known to be in use as long as this process holds a lock in it."""

    def __init__(self, below: str) -> None:
        self._sweep(below)
        self.path = Path(tempfile.mkdtemp(prefix="drbdvm-", dir=below))
        self._alive = open(self.path / "alive", "w")
        fcntl.flock(self._alive, fcntl.LOCK_EX)

    @staticmethod
    def _sweep(below: str) -> None:
        """Removes what killed runs have left."""
        for alive in Path(below).glob("drbdvm-*/alive"):
            with contextlib.suppress(OSError), open(alive) as file:
                if time.time() - alive.stat().st_mtime < _SETTLED_S:
                    continue
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(alive.parent, ignore_errors=True)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._alive.close()


# Shadow memory, quarantine and lock tables come on top of what a guest needs.
DEBUG_MEMORY_MIB = 1536
SLOWNESS = {"debug": 5, "umdebug": 3}


def live_labs() -> list["Lab"]:
    """Labs that are in use, newest last."""
    return list(_live)


def _bytes(size: str) -> int:
    return int(size[:-1]) << _SUFFIXES[size[-1]] if size[-1] in _SUFFIXES else int(size)


class Lab:
    """Makes guests; everything they leave is in `directory`, which ends with the lab.

    `keep` names a directory under build/vm/, or build/vm/LANE/, where consoles are kept when the
    lab ends. `lane` is what the guests run, one of `LANES` (see `Ground`); DRBD_LANE= says which
    unless the test does. The lab's directory is made in `below`, by default in memory if the
    machine has enough.
    With `cards` the wires under QEMU are such as take long frames (`qemu.Card`).
    """

    def __init__(self, keep: str | None = None, lane: str | None = None,
                 below: str | None = None, cards: bool = False) -> None:
        self.lane = lane or os.environ.get("DRBD_LANE") or "stock"
        if self.lane not in LANES:
            raise ValueError(f"no lane {self.lane!r}: DRBD_LANE= is one of {', '.join(LANES)}")
        self._ground = Ground.get(self.lane)
        self._accelerator = "um" if self.lane in UML_LANES else accelerator.choose(self._ground)
        self._wires: list[uml.Wire] = []
        self._cards = cards
        kept_in = CHECKOUT / "build" / "vm" / ("" if self.lane == "stock" else self.lane)
        self._keep = kept_in / keep if keep else None
        self._directory = _Directory(below or _below())
        self.directory = self._directory.path
        self.guests: list[Guest] = []
        # A process has one place, however many labs it has at a time; without emulation guests are
        # no burden.
        self._place = None if _live or self.lane in UML_LANES else _Place()
        _live.append(self)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def guest(self, name: str, *, module: str = "ours", tools: str = "ours",
              disks: list[str] = (), files: dict | None = None, bench: bool = False,
              memory_mib: int = 512, processors: int | None = None, options: list[str] = (),
              wire=None, capture: bool = False, plugin: Path | None = None,
              hosts: dict[str, str] | None = None, address: str | None = None,
              system: bool = False) -> Guest:
        """A guest that is switched off. `disks` are sizes ("64M"); they appear as vda, vdb, …

        An emulated guest has one processor unless told otherwise: the emulator at times runs
        stale code on one processor after the kernel has patched it on another (`Oops: int3` in
        an untainted kernel, mostly while it boots). `plugin` is one of the emulator's; what it
        finds is the file "instructions" in the guest's directory.
        """
        if processors is None:
            processors = 1 if self._accelerator == "tcg" else 2
        if self.lane == "umdebug":
            # Made by clang it cannot have seccomp, and so no more.
            processors = 1
        number = len(self.guests) + 1
        address = address or f"192.0.2.{number}"
        directory = self.directory / f"{number}"
        directory.mkdir()
        paths = []
        for index, size in enumerate(disks):
            path = directory / f"disk{index}"
            with open(path, "wb") as disk:
                disk.truncate(_bytes(size))
            paths.append(path)
        names = {"localhost": "127.0.0.1", **(hosts or {name: address})}
        table = "".join(f"{where} {who}\n" for who, where in names.items())
        files = {"etc/hosts": table, **(files or {})}
        write_image(directory / "initrd", self._ground, module=module, tools=tools,
                    bench=bench, system=system, files=files)
        guest = self._machine(name, address, directory, memory_mib, processors, paths, wire,
                              capture, list(options), plugin)
        guest.may_lose_lockdep = module == "c"
        self.guests.append(guest)
        return guest

    def _machine(self, name: str, address: str, directory: Path, memory_mib: int, processors: int,
                 disks: list[Path], wire, capture: bool, options: list[str],
                 plugin: Path | None) -> Guest:
        kernel, initrd = self._ground.vmlinuz, directory / "initrd"
        if self.lane in DEBUG_LANES:
            memory_mib = max(memory_mib, DEBUG_MEMORY_MIB)
            options = ["kmemleak=on", *options]
        if self.lane in UML_LANES:
            if capture or plugin:
                raise ValueError("packets are captured, and plugins run, under QEMU only")
            machine = uml.Machine(
                kernel, self._ground.loader, self._ground.libraries, initrd, memory_mib,
                processors, disks, *(wire or (None, 0)), options,
                has_seccomp=self.lane != "umdebug")
            if self.lane == "umdebug":
                # What watches takes a millisecond for each frame.
                machine.mtu = 60000
            guest = uml.UmlGuest(name, address, directory, machine)
        else:
            if self.lane == "debug":
                # Walking the ACPI tables takes KASAN a minute.
                options = ["acpi=off", *options]
            machine = qemu.Machine(kernel, initrd, self._accelerator, memory_mib, processors,
                                   disks, wire, capture, options, plugin)
            guest = qemu.QemuGuest(name, address, directory, machine)
        guest.slowness = SLOWNESS.get(self.lane, 1)
        return guest

    def _wire(self, first_number: int) -> tuple:
        """The two ends of a wire, for the guests with this number and the next."""
        if self.lane in UML_LANES:
            self._wires.append(uml.Wire(self._ground.relay))
            return (self._wires[-1], 0), (self._wires[-1], 1)
        macs = tuple(f"52:54:00:00:00:{first_number + index:02x}" for index in range(2))
        if self._cards:
            return qemu.cards(macs)
        sockets = [self.directory / f"wire{first_number + index}" for index in range(2)]
        return tuple(qemu.Wire(sockets[index], sockets[1 - index], macs[index])
                     for index in range(2))

    def pair(self, first: str = "t", second: str = "Shentar", *, module: str | tuple = "ours",
             tools: str | tuple = "ours", boot: bool = True, **common) -> tuple[Guest, Guest]:
        """Two guests joined by a wire, booted at the same time.

        `module` and `tools` may be a pair of values, one for each guest.
        """
        modules = module if isinstance(module, tuple) else (module, module)
        tool_sets = tools if isinstance(tools, tuple) else (tools, tools)
        base = len(self.guests)
        hosts = {first: f"192.0.2.{base + 1}", second: f"192.0.2.{base + 2}"}
        ends = self._wire(base + 1)
        pair = tuple(
            self.guest(name, module=modules[index], tools=tool_sets[index], hosts=hosts,
                       wire=ends[index], **common)
            for index, name in enumerate((first, second))
        )
        if boot:
            self.boot(*pair)
        return pair

    def boot(self, *guests: Guest) -> None:
        """Boot guests side by side."""
        for guest in guests:
            guest.power_on()
        for guest in guests:
            guest.wait_ready()

    def cut_wire(self) -> None:
        """Pull the cable between the guests."""
        for guest in self.guests:
            if guest.is_on:
                guest.set_link(False)

    def plug_wire(self) -> None:
        """Plug the cable in again."""
        for guest in self.guests:
            if guest.is_on:
                guest.set_link(True)

    def check(self) -> None:
        """Fail if any guest's kernel reported trouble, or a guest died."""
        for guest in self.guests:
            guest.check()

    def check_at_rest(self) -> None:
        """The same, and what a kernel of the debug lane tells when it is asked. Takes seconds."""
        self.check()
        if self.lane in DEBUG_LANES:
            asked = [guest.ask_at_rest() for guest in self.guests]
            for guest, process in zip(self.guests, asked):
                guest.check_at_rest(process)

    def close(self) -> None:
        """Kill the guests, keep their consoles if wanted, remove everything else."""
        if self in _live:
            _live.remove(self)
        for guest in self.guests:
            guest.release()
        for wire in self._wires:
            wire.close()
        if self._keep:
            self._keep.mkdir(parents=True, exist_ok=True)
            for guest in self.guests:
                shutil.copy(guest.console, self._keep / f"{guest.name}.log")
                for capture in guest.directory.glob("*.pcap"):
                    shutil.copy(capture, self._keep / f"{guest.name}-{capture.name}")
        self._directory.remove()
        if self._place is not None:
            self._place.leave()
