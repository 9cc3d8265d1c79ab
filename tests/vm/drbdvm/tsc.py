# SPDX-License-Identifier: GPL-2.0
"""How fast the host's time stamp counter runs, so that an emulated guest need not find out.

A guest measures it within milliseconds of its boot. On a busy host it is put off in the midst of
that, and its clock then runs several times too fast: timeouts expire that have not passed.
"""

import ctypes
import functools
import mmap
import platform
import time

MEASURED_S = 0.1
# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")


@functools.cache
def frequency_khz() -> int | None:
    """The frequency, or nothing where it cannot be measured."""
    if platform.machine() != "x86_64":
        return None
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    code.write(_RDTSC)
    start = ctypes.addressof(ctypes.c_char.from_buffer(code))
    counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(start)
    return sorted(_measure(counter) for _ in range(3))[1]


def _measure(counter) -> int:
    before, ticks = time.monotonic_ns(), counter()
    time.sleep(MEASURED_S)
    after, ticks = time.monotonic_ns(), counter() - ticks
    return ticks * 1_000_000 // (after - before)
