# SPDX-License-Identifier: GPL-2.0
"""`python3 scripts/suite.py --lane umdebug --labs 3`: files of tests/vm side by side, on one lane.

Each file is one run of pytest, its output comes in one piece. What became of the tests is kept as
JUnit XML, beside their output, in build/vm-results/LANE/, and told as a table of files and lanes
in build/suite.md: the last run of each file.
"""

import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TESTS = CHECKOUT / "tests" / "vm"
RESULTS = CHECKOUT / "build" / "vm-results"
TABLE = CHECKOUT / "build" / "suite.md"
PYTEST = [sys.executable, "-m", "pytest", "--rootdir", "tests/vm", "-c", "tests/vm/pytest.ini"]
# What takes minutes must not begin last.
LONGEST = ("pairs", "differential", "verify", "walkthrough", "power_cuts", "lifecycle", "resync",
           "rolling_swap", "faults", "system")
LANES = ("stock", "um", "umdebug", "debug")
# How a test fails that a guest's kernel complained in.
REPORT = "KernelReport"


@dataclass
class Count:
    """How many checks passed and failed, were left out, and in how many a kernel complained."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reports: int = 0

    def add(self, other: "Count") -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.reports += other.reports

    def __str__(self) -> str:
        told = [f"{number} {what}" for number, what in (
            (self.passed, "passed"), (self.failed, "failed"), (self.skipped, "skipped")) if number]
        return ", ".join(told) or "nothing"


def longest_first(file: Path) -> tuple[int, str]:
    """For sorting."""
    name = file.stem.removeprefix("test_")
    return (LONGEST.index(name) if name in LONGEST else len(LONGEST), name)


def play(lane: str, labs: int, files: list[Path] | None = None) -> Count:
    """Run files of tests, by default all, so many at a time."""
    files = files or sorted(TESTS.glob("test_*.py"), key=longest_first)
    total = Count()
    with ThreadPoolExecutor(labs) as workers:
        runs = [workers.submit(_play_file, lane, file) for file in files]
        for run in as_completed(runs):
            output, count = run.result()
            print(output, end="", flush=True)
            total.add(count)
            TABLE.write_text(table())
    return total


def _play_file(lane: str, file: Path) -> tuple[str, Count]:
    """One file of tests; an error in a fixture is a failure."""
    results = RESULTS / lane / f"{file.stem}.xml"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.unlink(missing_ok=True)
    log = results.with_suffix(".log")
    with open(log, "w") as output:
        done = subprocess.run([*PYTEST, f"--junit-xml={results}", str(file)], cwd=CHECKOUT,
                              env={**os.environ, "DRBD_LANE": lane}, stdin=subprocess.DEVNULL,
                              stdout=output, stderr=subprocess.STDOUT)
    count, _ = read(results)
    if done.returncode != 0 and count.failed == 0:
        count.failed = 1
    return log.read_text(errors="replace"), count


def read(results: Path) -> tuple[Count, str]:
    """What became of a file's tests, and the day."""
    count, day = Count(), ""
    try:
        suites = list(ElementTree.parse(results).iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return count, day
    for suite in suites:
        day = suite.get("timestamp", "")[:10]
        for case in suite.iter("testcase"):
            trouble = [*case.iter("failure"), *case.iter("error")]
            if trouble:
                count.failed += 1
                count.reports += any(REPORT in (each.get("message") or "") for each in trouble)
            elif case.find("skipped") is not None:
                count.skipped += 1
            else:
                count.passed += 1
    return count, day


def table() -> str:
    """The last run of each file on each lane, as Markdown."""
    lanes = [lane for lane in LANES if (RESULTS / lane).is_dir()]
    head = [f"{lane} | reports | date" for lane in lanes]
    lines = [f"| tests | {' | '.join(head)} |", f"| --- |{' --- | --- | --- |' * len(lanes)}"]
    totals = {lane: Count() for lane in lanes}
    for file in sorted(TESTS.glob("test_*.py")):
        cells = []
        for lane in lanes:
            results = RESULTS / lane / f"{file.stem}.xml"
            count, day = read(results)
            totals[lane].add(count)
            cells.append(f"{count} | {count.reports} | {day}" if day else "not run | | ")
        lines.append(f"| `{file.name}` | {' | '.join(cells)} |")
    cells = [f"{totals[lane]} | {totals[lane].reports} | " for lane in lanes]
    lines.append(f"| all | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/suite.py", description=__doc__)
    parser.add_argument("--lane", choices=LANES, default="stock", help="what guests run")
    parser.add_argument("--labs", type=int, default=os.cpu_count() or 1,
                        help="how many files run at a time")
    parser.add_argument("files", nargs="*", metavar="FILE", help="only these, as test_resync.py")
    options = parser.parse_args()
    count = play(options.lane, options.labs, [TESTS / file for file in options.files])
    print(f"{count}; {count.reports} with a report of the kernel; the table: build/suite.md")
    return 1 if count.failed else 0


if __name__ == "__main__":
    sys.exit(main())
