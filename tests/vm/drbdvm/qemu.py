# SPDX-License-Identifier: GPL-2.0
"""A guest under QEMU: emulated (TCG) or, where it really works, on KVM."""

import itertools
import os
import re
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from . import tsc
from .agent import AgentLine
from .guest import DIES_WITH_RUNNER, Guest, GuestDied
from .qmp import Monitor


@dataclass(frozen=True)
class Wire:
    """One end of a wire: datagrams on two UNIX sockets, no host network involved."""

    local: Path
    remote: Path
    mac: str

    def netdev(self) -> str:
        return (f"dgram,local.type=unix,local.path={self.local},"
                f"remote.type=unix,remote.path={self.remote}")

    def before_power_on(self) -> None:
        self.local.unlink(missing_ok=True)


@dataclass(frozen=True)
class Card:
    """One end of a wire between cards that segment, gather and sum, as real ones do.

    Frames as long as 64 KiB go through taps and a bridge of the host. They are made in the network
    namespace that the process is in, which must be one of its own (`unshare --net`).
    """

    tap: str
    mac: str

    def netdev(self) -> str:
        return f"tap,ifname={self.tap},script=no,downscript=no,vnet_hdr=on"

    def before_power_on(self) -> None:
        pass


_bridges = itertools.count()


def cards(macs: tuple[str, str]) -> tuple[Card, Card]:
    """The two ends of a wire, which ends with the namespace."""
    name = f"wire{next(_bridges)}"
    ends = tuple(Card(f"{name}.{end}", mac) for end, mac in enumerate(macs))
    commands = [f"link add {name} type bridge", f"link set {name} up"]
    for end in ends:
        commands += [f"tuntap add dev {end.tap} mode tap vnet_hdr",
                     f"link set {end.tap} master {name}", f"link set {end.tap} up"]
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)
    return ends


EMULATING = ("-accel", "tcg,thread=multi,tb-size=192")
# A plugin slows its guest down. The clock then goes by instructions, four nanoseconds each, so that
# the guest does not find more ticks of it for the same work.
COUNTING = ("-accel", "tcg,thread=single,tb-size=192", "-icount", "shift=2,sleep=on")
# That clock is the processor's, too.
COUNTED_KHZ = 1_000_000


@dataclass
class Machine:
    """What a QEMU guest is made of."""

    kernel: Path
    initrd: Path
    accelerator: str
    memory_mib: int = 512
    processors: int = 2
    disks: list[Path] = field(default_factory=list)
    wire: Wire | Card | None = None
    capture: bool = False
    options: list[str] = field(default_factory=list)
    plugin: Path | None = None


class QemuGuest(Guest):
    """A guest in a QEMU process."""

    def __init__(self, name: str, address: str, directory: Path, machine: Machine) -> None:
        super().__init__(name, address, directory)
        self.machine = machine
        self._process: subprocess.Popen | None = None
        self._monitor: Monitor | None = None
        self._boots = 0

    def _command_line(self, agent_socket: Path, monitor_socket: Path) -> list[str]:
        machine = self.machine
        # The check of the timer gives up after ten ticks, which a busy host may withhold.
        kernel_options = [
            "console=ttyS0", "quiet", "printk.time=1", "rdinit=/init", "panic=-1",
            "mitigations=off", "tsc=reliable", "no_timer_check", "net.ifnames=0",
            "random.trust_cpu=on", "lsm=capability", "audit=0",
            f"guest.name={self.name}", f"guest.address={self.address}/24",
            "guest.agent=drbd.agent",
        ]
        tsc_khz = COUNTED_KHZ if machine.plugin else tsc.frequency_khz()
        if machine.plugin:
            # The same program is at the same place each time, and its blocks are the same.
            kernel_options.append("norandmaps")
        if machine.accelerator == "tcg" and tsc_khz:
            kernel_options.append(f"tsc_early_khz={tsc_khz}")
        # With five levels of page tables an interrupt while the kernel looks at its processor
        # draws a report of KASAN (it counts four of them then), and each walk is one longer.
        accelerator = ["-accel", "kvm", "-cpu", "host"] if machine.accelerator == "kvm" \
            else [*(COUNTING if machine.plugin else EMULATING), "-cpu", "max,la57=off"]
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-machine", "pc", *accelerator,
            "-m", str(machine.memory_mib), "-smp", str(machine.processors),
            "-kernel", str(machine.kernel), "-initrd", str(machine.initrd),
            "-append", " ".join(kernel_options + machine.options),
            "-chardev", f"file,id=console,path={self.console},append=on",
            "-serial", "chardev:console",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={agent_socket}",
            "-device", "virtserialport,chardev=agent,name=drbd.agent",
            "-chardev", f"socket,id=monitor,path={monitor_socket}",
            "-mon", "chardev=monitor,mode=control",
        ]
        if machine.plugin:
            command += ["-plugin", f"file={machine.plugin},out={self.directory}/instructions"]
        for number, disk in enumerate(machine.disks):
            command += [
                "-drive", f"if=none,id=disk{number},file={disk},format=raw,cache=unsafe,"
                "discard=unmap",
                "-device", f"virtio-blk-pci,drive=disk{number},serial=disk{number}",
            ]
        if machine.wire:
            command += [
                "-netdev", f"{machine.wire.netdev()},id=wire",
                "-device", f"virtio-net-pci,id=port,netdev=wire,mac={machine.wire.mac},romfile=",
            ]
            if machine.capture:
                command += ["-object", "filter-dump,id=capture,netdev=wire,"
                            f"file={self.directory}/wire-{self._boots}.pcap"]
        return command

    def power_on(self) -> None:
        self._boots += 1
        agent_socket = self.directory / "agent"
        monitor_socket = self.directory / "monitor"
        listeners = []
        for path in (agent_socket, monitor_socket):
            path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(20)
            listeners.append(listener)
        if self.machine.wire:
            self.machine.wire.before_power_on()
        with open(self.directory / "qemu.log", "ab") as log:
            self._process = subprocess.Popen(
                [*DIES_WITH_RUNNER, *self._command_line(agent_socket, monitor_socket)],
                stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )
        self.is_on = True
        try:
            self.line = AgentLine(listeners[0].accept()[0])
            self._monitor = Monitor(listeners[1].accept()[0])
        except OSError as error:
            self.kill()
            message = (self.directory / "qemu.log").read_text(errors="replace").strip()
            raise GuestDied(f"{self.name}: QEMU did not start: {message or error}") from error
        finally:
            for listener in listeners:
                listener.close()

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        self.is_on = False
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._monitor = None

    def stop(self) -> None:
        self._execute("stop")

    def cont(self) -> None:
        self._execute("cont")

    def set_link(self, up: bool) -> None:
        self._execute("set_link", name="port", up=up)

    def place(self) -> int | None:
        """The instruction that its only processor is at; none while that is idle."""
        registers = self._execute("human-monitor-command", **{"command-line": "info registers"})
        match = re.search(r"\bRIP=([0-9a-f]+).*\bHLT=([01])", registers, re.S)
        return None if match.group(2) == "1" else int(match.group(1), 16)

    def _execute(self, command: str, **arguments) -> dict | str:
        if not self._monitor:
            raise GuestDied(f"{self.name} is switched off, it cannot {command}")
        return self._monitor.execute(command, **arguments)


def kvm_device_usable() -> bool:
    """Whether KVM can be asked at all; whether it boots a kernel only a boot can tell."""
    return os.access("/dev/kvm", os.R_OK | os.W_OK)
