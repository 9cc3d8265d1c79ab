# SPDX-License-Identifier: GPL-2.0
"""A node in user space (tests/peer), in the guest of the driver that it talks to."""

import queue
import time

from drbdvm import Guest
from drbdvm.image import CHECKOUT

ADDRESS = "192.0.2.9"
PROGRAM = CHECKOUT / "build" / "bin" / "drbd-peer"
FILES = {"usr/bin/drbd-peer": PROGRAM}
TIMEOUT_S = 180


class PeerFailed(AssertionError):
    """A command that the peer could not carry out."""


class Peer:
    """A running `drbd-peer node`; its disk outlives it."""

    def __init__(self, guest: Guest, options: str) -> None:
        self._guest = guest
        self._process = guest.spawn(f"exec drbd-peer node {options} 2>&1", timeout_s=3600)
        self._seen = 0
        self._answer()

    def _answer(self) -> str:
        """The next line that answers; notes in between are passed on."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            running = self._process.running()
            lines = self._process.out.split("\n")
            while self._seen < len(lines) - 1:
                line = lines[self._seen]
                self._seen += 1
                print(f"[peer] {line}", flush=True)
                if line.startswith("failed"):
                    raise PeerFailed(line)
                if line.startswith("ok"):
                    return line[3:]
            assert running, "the peer has ended"
            assert time.monotonic() < deadline, "the peer does not answer"
            self._guest.check()
            time.sleep(0.05)

    def do(self, command: str) -> str:
        """Run a command; an error fails the test."""
        print(f"[peer] > {command}", flush=True)
        self._process.feed(command + "\n")
        return self._answer()

    def crash(self) -> None:
        """Kill it without a word."""
        self._process.kill()
        while self._process.running():
            time.sleep(0.05)
