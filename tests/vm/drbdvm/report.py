# SPDX-License-Identifier: GPL-2.0
"""Finds reports of trouble in a kernel log."""

import re

# What a kernel prints when it found itself in trouble. A test that provokes one says so.
# Programs write to the console too, but without the kernel's time in front.
_TROUBLE = re.compile(
    r"^\[ *\d+\.\d+\].*?(BUG:|BUG at|WARNING:|Oops[: ]|general protection fault"
    r"|Kernel panic|panicked at"
    r"|INFO: task .* blocked for more than|possible (recursive|circular|irq lock) "
    r"|inconsistent lock state|suspicious RCU usage|rcu: INFO: .*stall|soft lockup"
    r"|hard LOCKUP|KASAN:|UBSAN:|kmemleak: .* new suspected|refcount_t:|list_(add|del) corruption"
    r"|unable to handle|ODEBUG:|sleeping function called|scheduling while atomic|Call Trace:"
    r"|still has locks held|INFO: trying to register non-static key|INFO: lockdep is turned off"
    r"|page allocation failure|Unknown rela relocation)"
)


# Before its clock runs a kernel tells of its own start; no module is there yet.
_EARLY = re.compile(r"\[ *0\.000000\]")


class KernelReport(AssertionError):
    """A guest's kernel reported a bug, a warning, an oops, a lock problem or a hung task."""


def find_trouble(text: str, allowed: list[re.Pattern[str]]) -> str | None:
    """The first report in `text` with the lines around it, unless its line is `allowed`."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if _EARLY.match(line):
            continue
        if _TROUBLE.search(line) and not any(pattern.search(line) for pattern in allowed):
            return "\n".join(lines[max(0, number - 5):number + 45])
    return None
