# SPDX-License-Identifier: GPL-2.0
"""`python3 scripts/test.py`: everything that must hold before a change lands.

Every step runs even if an earlier one failed, says how long it took, and is counted; the last line
is `N passed, N failed`. Steps: build, lint, host tests, fuzzers, tests on booted kernels.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import suite
from suite import Count

CHECKOUT = Path(__file__).resolve().parents[1]
# What all steps together need, with an environment that is there.
LITTLE_MIB = 3072
CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed", re.M)


def run(command: list[str]) -> tuple[int, str]:
    """Run a command in the checkout, passing its output on while collecting it."""
    process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace")
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    return process.wait(), "".join(lines)


def as_one(command: list[str]) -> Count:
    """A command that counts as one check."""
    code, _ = run(command)
    return Count(1, 0) if code == 0 else Count(0, 1)


def cargo(command: list[str]) -> Count:
    """Host tests: every test counts; a failure without a test (does not compile) counts once."""
    code, output = run(command)
    count = Count()
    for passed, failed in CARGO_RESULT.findall(output):
        count.add(Count(int(passed), int(failed)))
    if code != 0 and count.failed == 0:
        count.failed = 1
    return count


def pytest(_: list[str]) -> Count:
    """Tests on booted kernels, a few files at a time."""
    return suite.play("stock", os.cpu_count() or 1)


STEPS = {
    "environment": (as_one, ["make", "--no-print-directory", "prepare"]),
    "module": (as_one, ["make", "--no-print-directory", "ko"]),
    "tools": (as_one, ["make", "--no-print-directory", "tools", "peer"]),
    "lint": (as_one, ["make", "--no-print-directory", "-k", "lint"]),
    "host": (cargo, ["make", "--no-print-directory", "-k", "host-test"]),
    "fuzz": (as_one, ["make", "--no-print-directory", "fuzz", "TIME=5"]),
    "vm": (pytest, []),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test.py", description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP",
                        help="only these steps: " + ", ".join(STEPS))
    options = parser.parse_args()
    (CHECKOUT / "build").mkdir(exist_ok=True)
    total = Count()
    for name in options.steps or STEPS:
        free_mib = shutil.disk_usage(CHECKOUT).free >> 20
        print(f"== {name}{f': only {free_mib} MiB of disk are free' * (free_mib < LITTLE_MIB)}",
              flush=True)
        started = time.monotonic()
        step, command = STEPS[name]
        count = step(command)
        total.add(count)
        print(f"== {name}: {count.passed} passed, {count.failed} failed, "
              f"{time.monotonic() - started:.0f} s", flush=True)
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
