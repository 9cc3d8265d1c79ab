# SPDX-License-Identifier: GPL-2.0
"""A guest as tests see it, whatever runs it: commands, files, power, kernel log."""

import abc
import contextlib
import queue
import re
import time
from dataclasses import dataclass
from pathlib import Path

from . import agent
from .report import KernelReport, find_trouble

COMMAND_TIMEOUT_S = 120
BOOT_TIMEOUT_S = 240
# A killed test run must not leave machines behind.
DIES_WITH_RUNNER = ("setpriv", "--pdeathsig", "KILL", "--")

# An object counts as leaked when it has been unreachable for 5 s, and found so by two scans.
_AT_REST = """
leaks=/sys/kernel/debug/kmemleak
[ -e $leaks ] || exit 0
if [ -n "$watches_locks" ]; then
    grep -q 'debug_locks: *1$' /proc/lockdep_stats || grep -H debug_locks /proc/lockdep_stats
fi
echo scan > $leaks
sleep 6
echo scan > $leaks
cat $leaks
echo clear > $leaks
"""


def _ours(answer: str) -> str:
    """Without leaks that do not concern a driver: whoever runs in the guest is none."""
    parts = re.split(r"(?m)^(?=unreferenced object)", answer)
    return "".join(part for part in parts if not part.startswith("unreferenced")
                   or "drbd" in part.replace("drbd-test-agent", ""))


@dataclass(frozen=True)
class Result:
    """How a command ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


class CommandFailed(AssertionError):
    """A command ended with an exit code that the test did not expect."""


class TimedOut(AssertionError):
    """A command, a condition or a boot took longer than its time limit."""


class GuestDied(AssertionError):
    """The guest's machine ended although nobody switched it off."""


class Process:
    """A command that runs in a guest."""

    def __init__(self, guest: "Guest", script: str, timeout_s: float) -> None:
        self._guest = guest
        self._script = script
        self._deadline = time.monotonic() + timeout_s * guest.slowness
        self._out = bytearray()
        self._err = bytearray()
        self._code: int | None = None
        try:
            self._id, self._arrivals = guest.line.begin(agent.RUN, script.encode())
        except OSError as error:
            # A kernel that died says why.
            guest.check()
            raise GuestDied(f"{guest.name}: nobody takes commands: {error}") from error

    @property
    def out(self) -> str:
        """Standard output so far."""
        self._collect(0)
        return self._out.decode(errors="replace")

    def feed(self, text: str) -> None:
        """Write to the command's standard input."""
        self._guest.line.feed(self._id, text.encode())

    def close_input(self) -> None:
        self._guest.line.feed(self._id, b"")

    def kill(self) -> None:
        """Kill the command and what it started."""
        self._guest.line.kill(self._id)

    def _collect(self, wait_s: float) -> None:
        while self._code is None:
            try:
                kind, payload = self._arrivals.get(timeout=wait_s) if wait_s \
                    else self._arrivals.get_nowait()
            except queue.Empty:
                return
            if kind == agent.OUTPUT:
                self._out += payload
            elif kind == agent.ERROR:
                self._err += payload
            elif kind == agent.EXIT:
                self._code = int(payload)
                self._guest.line.forget(self._id)

    def running(self) -> bool:
        self._collect(0)
        return self._code is None

    def wait(self) -> Result:
        """Wait for the end, but not beyond the time limit, the guest's life or its kernel's."""
        nudge_at = time.monotonic() + agent.NUDGE_AFTER_S
        while self._code is None:
            self._collect(0.2)
            if self._code is not None:
                break
            self._guest.check()
            if time.monotonic() > nudge_at:
                self._guest.line.nudge()
                nudge_at = time.monotonic() + agent.NUDGE_AFTER_S
            if time.monotonic() > self._deadline:
                self._guest.tell_tasks()
                self.kill()
                raise TimedOut(
                    f"{self._guest.name}: `{self._script}` did not end in time; so far:\n"
                    f"{self._out.decode(errors='replace')}{self._err.decode(errors='replace')}"
                )
        return Result(self._code, self._out.decode(errors="replace"),
                      self._err.decode(errors="replace"))


class Guest(abc.ABC):
    """One machine. What differs between kinds of machine is abstract; see qemu.py."""

    line: agent.AgentLine
    # How many times longer than on the stock kernel everything may take.
    slowness = 1
    # Whether its lockdep has to watch on.
    watches_locks = True
    # Whether its driver may have made lockdep stop by what is known of it.
    may_lose_lockdep = False

    def __init__(self, name: str, address: str, directory: Path) -> None:
        self.name = name
        self.address = address
        self.directory = directory
        self.console = directory / "console.log"
        self.console.touch()
        self._checked = 0
        self._allowed: list[re.Pattern[str]] = []
        self.is_on = False

    # What a kind of machine provides.

    @abc.abstractmethod
    def power_on(self) -> None:
        """Start the machine; does not wait for its agent."""

    @abc.abstractmethod
    def kill(self) -> None:
        """Cut the power: nothing is flushed, disks keep what was completed."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Stall the machine: its connections stay, it just does nothing."""

    @abc.abstractmethod
    def cont(self) -> None:
        """Let a stalled machine go on."""

    @abc.abstractmethod
    def alive(self) -> bool:
        """Whether the machine's process runs."""

    @abc.abstractmethod
    def set_link(self, up: bool) -> None:
        """Plug or pull the machine's network cable."""

    def tell_tasks(self) -> None:
        """Note in the console's log what the kernel's tasks do, if there is a way to ask."""

    # What all have in common.

    def wait_ready(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Wait until the guest takes commands."""
        deadline = time.monotonic() + timeout_s * self.slowness
        while not self.line.ready.wait(0.1):
            self.check()
            if time.monotonic() > deadline:
                raise TimedOut(f"{self.name} did not boot in {timeout_s:.0f} s; console:\n"
                               f"{self.log()[-3000:]}")

    def boot(self) -> None:
        self.power_on()
        self.wait_ready()

    def power_cycle(self) -> None:
        """Cut the power and boot again with the same disks."""
        self.kill()
        self.boot()

    def spawn(self, script: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Process:
        """Start a bash script; its standard input stays open for `feed`."""
        print(f"[{self.name}] $ {script}", flush=True)
        return Process(self, script, timeout_s)

    def run(self, script: str, *, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S,
            stdin: str = "") -> Result:
        """Run a bash script to its end; with `check` a non-zero exit code fails the test."""
        process = self.spawn(script, timeout_s)
        if stdin:
            process.feed(stdin)
        process.close_input()
        result = process.wait()
        text = result.out + result.err
        if text:
            print(text if text.endswith("\n") else text + "\n", end="", flush=True)
        if check and result.code != 0:
            raise CommandFailed(
                f"{self.name}: `{script}` ended with {result.code}\n{result.out}{result.err}"
            )
        return result

    def wait_until(self, script: str, pattern: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Repeat a script until its output matches `pattern`; returns that output."""
        deadline = time.monotonic() + timeout_s * self.slowness
        wanted = re.compile(pattern)
        print(f"[{self.name}] $ {script}   # until it says {pattern}", flush=True)
        while True:
            begun = time.monotonic()
            result = Process(self, script + " </dev/null", COMMAND_TIMEOUT_S).wait()
            if wanted.search(result.out):
                print(result.out, end="", flush=True)
                return result.out
            if time.monotonic() > deadline:
                raise TimedOut(f"{self.name}: `{script}` never said {pattern!r}; at last:\n"
                               f"{result.out}{result.err}")
            # A slow guest has more to do than to answer.
            time.sleep(max(0.1, time.monotonic() - begun))

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file in the guest."""
        data = content.encode() if isinstance(content, str) else content
        _, arrivals = self.line.begin(agent.WRITE, f"{mode:o} {path}\n".encode() + data)
        message = ""
        while True:
            try:
                kind, payload = arrivals.get(timeout=COMMAND_TIMEOUT_S)
            except queue.Empty:
                raise TimedOut(f"{self.name}: writing {path} did not end in time") from None
            if kind == agent.EXIT:
                break
            message += payload.decode(errors="replace")
        if payload != b"0":
            raise CommandFailed(f"{self.name}: cannot write {path}: {message}")

    def read(self, path: str) -> str:
        """A file of the guest."""
        return Process(self, f"cat {path}", COMMAND_TIMEOUT_S).wait().out

    def busy_seconds(self) -> float:
        """Time its processors did anything at all, as its kernel counts it."""
        fields = [int(field) for field in self.read("/proc/stat").splitlines()[0].split()[1:]]
        return (sum(fields) - fields[3] - fields[4]) / 100

    def shutdown(self) -> None:
        """Flush and switch off in order."""
        self.run("sync")
        self.kill()

    def log(self) -> str:
        """Everything the kernel said on its console, over all boots."""
        return self.console.read_text(errors="replace")

    def dmesg(self) -> str:
        """The kernel's log of this boot."""
        return Process(self, "dmesg", COMMAND_TIMEOUT_S).wait().out

    def allow_report(self, pattern: str) -> None:
        """Kernel reports whose line matches do not fail the test: it provokes them."""
        self._allowed.append(re.compile(pattern))

    def check(self) -> None:
        """Fail if the kernel reported trouble since the last check, or the machine died."""
        with open(self.console, "rb") as console:
            console.seek(self._checked)
            text = console.read().decode(errors="replace")
        trouble = find_trouble(text, self._allowed)
        if trouble:
            # The rest of the report is still on its way.
            time.sleep(0.5 * self.slowness)
            text = self.console.read_bytes()[self._checked:].decode(errors="replace")
            trouble = find_trouble(text, self._allowed)
        if trouble:
            self._checked = self.console.stat().st_size
            raise KernelReport(f"{self.name}: the kernel reports trouble:\n{trouble}")
        # A line that is not complete yet is looked at again.
        self._checked += len(text[:text.rfind("\n") + 1].encode())
        if self.is_on and not self.alive():
            self.is_on = False
            raise GuestDied(f"{self.name}: the machine is gone; console:\n{self.log()[-3000:]}")

    def ask_at_rest(self) -> Process | None:
        """Ask a kernel that watches itself what it does not tell by itself: leaks."""
        watches = self.watches_locks and not self.may_lose_lockdep
        script = f"watches_locks={'y' * watches}\n{_AT_REST}"
        return Process(self, script, COMMAND_TIMEOUT_S) if self.is_on else None

    def check_at_rest(self, asked: Process | None) -> None:
        """Fail if the answer is anything but silence."""
        found = _ours(asked.wait().out) if asked else ""
        if found.strip():
            with contextlib.suppress(KernelReport):
                self.check()
            raise KernelReport(f"{self.name}: the kernel has found leaks, or has stopped watching "
                               f"locks:\n{found[:8000]}")

    def release(self) -> None:
        """Kill the machine whatever state it is in."""
        with contextlib.suppress(OSError):
            self.kill()
