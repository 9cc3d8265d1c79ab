# SPDX-License-Identifier: GPL-2.0
"""QEMU's control socket (QMP): one command at a time, events skipped."""

import json
import socket


class Monitor:
    """A connection to QEMU's monitor, ready for commands."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        self._stream = connection.makefile("rw", encoding="utf-8")
        json.loads(self._stream.readline())
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments) -> dict | str:
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            line = self._stream.readline()
            if not line:
                raise ConnectionError("QEMU closed its monitor")
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
