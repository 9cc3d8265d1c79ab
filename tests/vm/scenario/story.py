# SPDX-License-Identifier: GPL-2.0
"""Tells what happens on the nodes as the one who types would see it."""

import time
from typing import TextIO

from drbdvm import CommandFailed

from .node import Node

COMMAND_TIMEOUT_S = 120


class Story:
    """Steps with a number, a title and a time; commands with their prompt and output.

    Without a stream it runs the commands and says nothing.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._colour = bool(stream and stream.isatty())
        self._begun = time.monotonic()
        self._step_begun: float | None = None
        self.steps = 0

    def _say(self, text: str, style: str = "") -> None:
        if not self._stream:
            return
        if style and self._colour:
            text = f"\033[{style}m{text}\033[0m"
        print(text, file=self._stream, flush=True)

    def _end_step(self) -> None:
        if self._step_begun is not None:
            self._say(f"    ({time.monotonic() - self._step_begun:.1f} s)", "2")

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._end_step()
        self._step_begun = time.monotonic()
        self.steps += 1
        self._say(f"\n== {self.steps}. {title}", "1")

    def note(self, text: str) -> None:
        self._say(f"   {text}", "2")

    def show(self, text: str) -> None:
        """Text that a guest printed."""
        if text.strip():
            self._say(text.rstrip("\n"))

    def prompt(self, node: Node, command: str) -> None:
        self._say(f"[root@{node.name} ~]# {command}", "32")

    def type(self, node: Node, command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a command that must succeed; returns what it printed."""
        self.prompt(node, command)
        result = node.run(command, check=False, timeout_s=timeout_s)
        self.show(result.out + result.err)
        if result.code != 0:
            raise CommandFailed(f"{node.name}: `{command}` ended with {result.code}\n"
                                f"{result.out}{result.err}")
        return result.out

    def end(self, title: str) -> None:
        self._end_step()
        self._say(f"\n{title} ({time.monotonic() - self._begun:.0f} s)", "1")


