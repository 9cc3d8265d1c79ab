# SPDX-License-Identifier: GPL-2.0
"""A guest under User Mode Linux: boots in a second and runs at the host's speed."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from .agent import AgentLine
from .guest import DIES_WITH_RUNNER, Guest, GuestDied

# Where the kernel keeps its memory's file.
MEMORY_DIRECTORY = "/dev/shm"
# Of requests to its management console, in version 2.
MCONSOLE_MAGIC = 0xCAFEBABE


class Wire:
    """A wire between two guests: a program passes frames on while both cables are plugged in."""

    def __init__(self, relay: Path) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
        self.ends = [pair[0] for pair in pairs]
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._plugged = 0b11
        self._process = subprocess.Popen([str(relay)], stdin=pairs[0][1], stdout=pairs[1][1],
                                         stderr=control)
        for ours in (pairs[0][1], pairs[1][1], control):
            ours.close()

    def plug(self, end: int, up: bool) -> None:
        self._plugged = self._plugged | 1 << end if up else self._plugged & ~(1 << end)
        self._control.send(str(self._plugged).encode())

    def drain(self, end: int) -> None:
        """Forget what was sent to a guest that was off."""
        self.ends[end].setblocking(False)
        try:
            while self.ends[end].recv(1 << 17):
                pass
        except OSError:
            pass
        finally:
            self.ends[end].setblocking(True)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for end in (*self.ends, self._control):
            end.close()


@dataclass
class Machine:
    """What a User Mode Linux guest is made of."""

    kernel: Path
    loader: Path
    libraries: Path
    initrd: Path
    memory_mib: int = 512
    processors: int = 1
    disks: list[Path] = field(default_factory=list)
    wire: Wire | None = None
    end: int = 0
    options: list[str] = field(default_factory=list)
    # Guests' programs are caught by seccomp, else by ptrace: slower, and on one processor only.
    has_seccomp: bool = True
    # The largest packet of its network card, in bytes.
    mtu: int = 1500


class UmlGuest(Guest):
    """A guest in the processes of a User Mode Linux kernel."""

    def __init__(self, name: str, address: str, directory: Path, machine: Machine) -> None:
        super().__init__(name, address, directory)
        self.machine = machine
        # Hundreds of them are the kernel's own; `check_at_rest` looks for those that are not.
        self.allow_report(r"kmemleak: \d+ new suspected memory leaks")
        # The kernel is a program that looks for it in its working directory.
        (directory / "ld.so").symlink_to(machine.loader)
        self._process: subprocess.Popen | None = None
        self._console: threading.Thread | None = None

    def _command_line(self, agent: int) -> list[str]:
        machine = self.machine
        command = [
            str(machine.kernel), f"mem={machine.memory_mib}M",
            f"seccomp={'on' if machine.has_seccomp else 'off'}",
            f"ncpus={machine.processors}", f"initrd={machine.initrd}", "rdinit=/init",
            "con=null", "con0=fd:0,fd:1", "ssl=null", f"ssl0=fd:{agent}",
            "quiet", "panic=-1", "printk.time=1",
            f"uml_dir={self.directory}", "umid=uml",
            f"guest.name={self.name}", f"guest.address={self.address}/24",
            "guest.agent=/dev/ttyS0", *machine.options,
        ]
        command += [f"ubd{number}={disk}" for number, disk in enumerate(machine.disks)]
        if machine.wire:
            fd = machine.wire.ends[machine.end].fileno()
            command.append(f"vec0:transport=fd,fd={fd},depth=128,mtu={machine.mtu}")
        return command

    def power_on(self) -> None:
        console, console_end = socket.socketpair()
        line, agent_end = socket.socketpair()
        inherited = [agent_end.fileno()]
        if self.machine.wire:
            self.machine.wire.drain(self.machine.end)
            inherited.append(self.machine.wire.ends[self.machine.end].fileno())
        # The libraries are the kernel's, not those of the programs before it.
        libraries = ["env", f"LD_LIBRARY_PATH={self.machine.libraries}"]
        self._process = subprocess.Popen(
            [*DIES_WITH_RUNNER, *libraries, *self._command_line(agent_end.fileno())],
            stdin=console_end, stdout=console_end,
            stderr=console_end, pass_fds=inherited, start_new_session=True, cwd=self.directory,
            env={"TMPDIR": MEMORY_DIRECTORY, "PATH": os.environ["PATH"]})
        for end in (console_end, agent_end):
            end.close()
        self._console = threading.Thread(target=self._record, args=(console,), daemon=True)
        self._console.start()
        self.is_on = True
        self.watches_locks = True
        self.line = AgentLine(line, paced=True)

    def _record(self, console: socket.socket) -> None:
        with console, open(self.console, "ab", buffering=0) as log:
            while text := console.recv(1 << 16):
                log.write(text.replace(b"\r\n", b"\n"))

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        self.is_on = False
        if self._process:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            self.line.close()
            if self._console:
                self._console.join(5)

    def stop(self) -> None:
        self._stall(signal.SIGSTOP)

    def cont(self) -> None:
        self._stall(signal.SIGCONT)

    def _stall(self, number: int) -> None:
        """A kernel that traces its programs takes such a signal to one of them for its end."""
        if self.machine.has_seccomp:
            self._signal(number)
        elif self._process:
            self._process.send_signal(number)

    def set_link(self, up: bool) -> None:
        if not self.machine.wire:
            raise GuestDied(f"{self.name} has no cable")
        self.machine.wire.plug(self.machine.end, up)

    def busy_seconds(self) -> float:
        """What the host counts: the kernel does not notice when it is put off."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # Of process group and processor times: its own, and those of ended children.
                _, _, group, *fields = path.read_text().rpartition(")")[2].split()
                if int(group) == self._process.pid:
                    ticks += sum(int(field) for field in fields[8:12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def tell_tasks(self) -> None:
        """Asks the management console, which needs neither the agent nor any program. What it
        answers goes to the console as well, and is no report.
        """
        self.check()
        self._ask_for_tasks()
        # To show the stacks of all tasks switches lockdep off.
        self.watches_locks = False
        time.sleep(0.5 * self.slowness)
        self._checked = self.console.stat().st_size

    def _ask_for_tasks(self) -> None:
        for request in (b"sysrq w", b"sysrq t"):
            message = struct.pack("=III512s", MCONSOLE_MAGIC, 2, len(request), request)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asked:
                asked.settimeout(2)
                asked.bind("")
                try:
                    asked.sendto(message, str(self.directory / "uml" / "mconsole"))
                    more = True
                    while more:
                        reply = asked.recv(1024)
                        _, more, length = struct.unpack_from("=III", reply)
                        with open(self.console, "ab") as log:
                            log.write(reply[12:12 + length])
                except OSError:
                    return

    def _signal(self, number: int) -> None:
        """To the kernel and the processes in which it runs the guest's programs."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass
