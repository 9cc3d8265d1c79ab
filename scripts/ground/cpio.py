# SPDX-License-Identifier: GPL-2.0
"""Writes initramfs archives (cpio "newc"); needs no rights, also for device nodes."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

# The kernel unpacks concatenated archives when each starts at a multiple of four bytes.
_ALIGNMENT = 512


class Archive:
    """An archive being written; parent directories are added as they are needed."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._inode = 0
        self._written: set[str] = set()

    def _member(self, path: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0),
                links: int = 1) -> None:
        name = path.encode() + b"\0"
        self._inode += 1
        fields = [self._inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name), 0]
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        self._out.write(header + name)
        self._out.write(b"\0" * (-(len(header) + len(name)) % 4))
        self._out.write(data)
        self._out.write(b"\0" * (-len(data) % 4))

    def _parents(self, path: str) -> None:
        parent = os.path.dirname(path)
        if parent:
            self.directory(parent)

    def directory(self, path: str, mode: int = 0o755) -> None:
        path = path.strip("/")
        if path in self._written:
            return
        self._parents(path)
        self._written.add(path)
        self._member(path, stat.S_IFDIR | mode, links=2)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        path = path.strip("/")
        self._parents(path)
        self._member(path, stat.S_IFREG | mode, data)

    def copy(self, source: Path, path: str) -> None:
        """Add a host file with its permission bits."""
        self.file(path, source.read_bytes(), stat.S_IMODE(source.stat().st_mode) & 0o755 | 0o444)

    def symlink(self, path: str, target: str) -> None:
        path = path.strip("/")
        self._parents(path)
        self._member(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int) -> None:
        path = path.strip("/")
        self._parents(path)
        self._member(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def close(self) -> None:
        self._member("TRAILER!!!", 0)
        self._out.write(b"\0" * (-self._out.tell() % _ALIGNMENT))
