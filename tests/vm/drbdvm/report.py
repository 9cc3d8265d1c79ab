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

# A warning, to its end.
_WARNING = re.compile(r"(?ms)^\[ *\d+\.\d+\] WARNING: .*?---\[ end trace \w+ \]---")
# Warnings that are the C driver's alone. `wait_for_work` of its worker takes a mutex between
# `prepare_to_wait` and `schedule`, which DEBUG_ATOMIC_SLEEP tells once in each boot.
_OF_C = (re.compile(
    r"(?s)\A[^\n]* at __might_sleep\+[^\n]*: drbd_w_\w+/\d+\n.* __mutex_lock\+"
    r".* conn_prepare_command\+\S+ \[drbd\].* wait_for_work\+\S+ \[drbd\]"
    r".* drbd_worker\+\S+ \[drbd\]"),)


# A finding of lockdep, to the end of its stack.
_LOCKING = re.compile(
    r"(?ms)^\[ *\d+\.\d+\] WARNING: possible recursive locking detected$.*?(</TASK>|\Z)")
# Its receiver takes this one lock of two volumes. Lockdep tells it once, and watches no more.
_LOCKING_OF_C = re.compile(r"drbd_r_\w+/\d+ is trying to acquire lock:\n.*own_state_mutex")


class KernelReport(AssertionError):
    """A guest's kernel reported a bug, a warning, an oops, a lock problem or a hung task."""


def _unless_of_c(warning: re.Match[str]) -> str:
    return "" if any(known.search(warning[0]) for known in _OF_C) else warning[0]


def _unless_locking_of_c(report: re.Match[str]) -> str:
    return "" if _LOCKING_OF_C.search(report[0]) else report[0]


def find_trouble(text: str, allowed: list[re.Pattern[str]]) -> str | None:
    """The first report in `text` with the lines around it, unless its line is `allowed`, or all
    of it is known of the C driver.
    """
    text = _LOCKING.sub(_unless_locking_of_c, _WARNING.sub(_unless_of_c, text))
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if _EARLY.match(line):
            continue
        if _TROUBLE.search(line) and not any(pattern.search(line) for pattern in allowed):
            return "\n".join(lines[max(0, number - 5):number + 45])
    return None
