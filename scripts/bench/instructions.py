# SPDX-License-Identifier: GPL-2.0
"""What an emulated guest executed, by function: exact, and the same whatever else the host does."""

import array
import bisect
import re
import subprocess
from collections import Counter
from pathlib import Path

_KERNEL = 1 << 63
_SYMBOL = re.compile(r"^([0-9a-f]{16}) [tTwW] (\S+)(?:\t\[(\w+)\])?$", re.M)


def build_plugin(directory: Path) -> Path:
    """The plugin for QEMU, compiled with the host's compiler."""
    source = Path(__file__).with_suffix(".c")
    plugin = directory / "instructions.so"
    subprocess.run(["cc", "-O2", "-Wall", "-shared", "-fPIC", "-fvisibility=hidden",
                    str(source), "-o", str(plugin)], check=True)
    return plugin


class Symbols:
    """The functions of a running kernel and its modules."""

    def __init__(self, guest) -> None:
        text = guest.run("echo 0 > /proc/sys/kernel/kptr_restrict; cat /proc/kallsyms").out
        found = sorted((int(address, 16), name, module)
                       for address, name, module in _SYMBOL.findall(text))
        self._addresses = [address for address, _, _ in found]
        self._names = [(name, module or "kernel") for _, name, module in found]

    def find(self, address: int) -> tuple[str, str]:
        """Function and module."""
        if address < _KERNEL:
            return "user", "user"
        place = bisect.bisect_right(self._addresses, address) - 1
        return self._names[place] if place >= 0 else ("?", "kernel")


class Executed:
    """The plugin's table of one guest."""

    def __init__(self, guest) -> None:
        self._file = guest.directory / "instructions"
        self._symbols = Symbols(guest)

    def snapshot(self) -> Counter:
        """Instructions of each block so far, by its place in the table."""
        table = array.array("Q")
        table.frombytes(self._file.read_bytes())
        return Counter({place: number for place, number in enumerate(table[2::3]) if number})

    def by_function(self, blocks: Counter) -> Counter:
        """The same by function and module."""
        table = array.array("Q")
        table.frombytes(self._file.read_bytes())
        found = Counter()
        for place, number in blocks.items():
            found[self._symbols.find(table[3 * place])] += number
        return found
