# SPDX-License-Identifier: GPL-2.0
"""The runner's end of the line to a guest's agent; frames as in tests/vm/guest/agent.rs."""

import queue
import socket
import struct
import threading

RUN, INPUT, KILL, WRITE = b"r", b"i", b"k", b"w"
HELLO, OUTPUT, ERROR, EXIT, TAKEN = b"h", b"o", b"e", b"x", b"t"

# What may be on its way to the agent on a serial line, and in how large parts it is sent.
_WINDOW_BYTES = 2048
_PART_BYTES = 512
# Who waits longer than that for an answer sends something more.
NUDGE_AFTER_S = 2

_HEADER = struct.Struct("<IIc")


class AgentLine:
    """Frames to and from the agent; a thread sorts what arrives by command.

    `paced` is for a serial line: the guest's kernel must never have to stop it, since User Mode
    Linux does not start it again. The agent says what it has taken. Of what arrives there the
    kernel at times hears only when more does (seen on busy hosts with two processors: the agent
    waited for a command that was in the line); so a runner that waits for long sends more.
    """

    def __init__(self, connection: socket.socket, paced: bool = False) -> None:
        self._connection = connection
        self._paced = paced
        self._pending_bytes = 0
        self._room = threading.Condition()
        self._next_id = 1
        self._lock = threading.Lock()
        self._commands: dict[int, queue.SimpleQueue] = {}
        self.ready = threading.Event()
        self.closed = threading.Event()
        threading.Thread(target=self._receive, daemon=True).start()

    def _exactly(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            part = self._connection.recv(length - len(parts))
            if not part:
                raise ConnectionError("the guest closed its line")
            parts += part
        return bytes(parts)

    def _receive(self) -> None:
        try:
            while True:
                identity, length, kind = _HEADER.unpack(self._exactly(_HEADER.size))
                payload = self._exactly(length)
                if kind == HELLO:
                    self.ready.set()
                elif kind == TAKEN:
                    with self._room:
                        self._pending_bytes -= int(payload)
                        self._room.notify()
                elif identity in self._commands:
                    self._commands[identity].put((kind, payload))
        except OSError:
            self.closed.set()
            with self._room:
                self._room.notify()

    def _send(self, identity: int, kind: bytes, payload: bytes) -> None:
        frame = _HEADER.pack(identity, len(payload), kind) + payload
        with self._lock:
            if not self._paced:
                self._connection.sendall(frame)
                return
            for start in range(0, len(frame), _PART_BYTES):
                self._send_paced(frame[start:start + _PART_BYTES])

    def _send_paced(self, part: bytes) -> None:
        with self._room:
            while self._pending_bytes + len(part) > _WINDOW_BYTES:
                if self.closed.is_set():
                    raise ConnectionError("the guest closed its line")
                if not self._room.wait(NUDGE_AFTER_S):
                    break
            self._pending_bytes += len(part)
        self._connection.sendall(part)

    def nudge(self) -> None:
        """Send a frame that means nothing, so that the kernel looks at its line."""
        if self._paced and self._lock.acquire(blocking=False):
            try:
                self._send_paced(_HEADER.pack(0, 0, KILL))
            finally:
                self._lock.release()

    def begin(self, kind: bytes, payload: bytes) -> tuple[int, queue.SimpleQueue]:
        """Start a command; what it sends back arrives in the queue as (kind, payload)."""
        with self._lock:
            identity = self._next_id
            self._next_id += 1
            arrivals = self._commands[identity] = queue.SimpleQueue()
        self._send(identity, kind, payload)
        return identity, arrivals

    def feed(self, identity: int, data: bytes) -> None:
        """Write to the command's standard input; no data closes it."""
        self._send(identity, INPUT, data)

    def kill(self, identity: int) -> None:
        self._send(identity, KILL, b"")

    def forget(self, identity: int) -> None:
        self._commands.pop(identity, None)

    def close(self) -> None:
        self._connection.close()
