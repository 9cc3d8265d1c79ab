# SPDX-License-Identifier: GPL-2.0
"""Boots guests, joins them with wires, runs commands in them and watches their kernels.

    from drbdvm import Lab

    with Lab() as lab:
        t, shentar = lab.pair("t", "Shentar", module="c", tools="stock", disks=["64M"])
        print(t.run("uname -r").out)
"""

from .guest import CommandFailed, Guest, GuestDied, Result, TimedOut
from .lab import Lab, live_labs
from .report import KernelReport

__all__ = [
    "CommandFailed", "Guest", "GuestDied", "KernelReport", "Lab", "Result", "TimedOut",
    "live_labs",
]
