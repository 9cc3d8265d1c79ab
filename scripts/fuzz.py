# SPDX-License-Identifier: GPL-2.0
"""`python3 scripts/fuzz.py`: builds the fuzzers (tests/fuzz) and runs each for some seconds.

libFuzzer around functions without `unsafe` needs no sanitizer, only coverage, which a stable
compiler can be told to produce. The inputs it collects stay in build/fuzz/TARGET for the next run;
one that fails is named and kept there. Add it to tests/fuzz/corpus/TARGET with the fix.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
CORPUS = CHECKOUT / "tests" / "fuzz" / "corpus"
FOUND = CHECKOUT / "build" / "fuzz"
COVERAGE = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg", "fuzzing",
]
# Inputs are no longer than this: a 4 KiB block or two, a few packets, a configuration.
LENGTH_MAX = 16384


def build() -> Path:
    """Build all targets; the program."""
    host = next(line.split()[1] for line in
                subprocess.run(["rustc", "-vV"], capture_output=True, text=True,
                               check=True).stdout.splitlines() if line.startswith("host:"))
    target = CHECKOUT / "build" / "target-fuzz"
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--target", host, "--target-dir", str(target)],
        cwd=CHECKOUT / "tests" / "fuzz" / "driver", check=True,
        env={**os.environ, "RUSTFLAGS": " ".join(COVERAGE)})
    return target / host / "release" / "fuzz"


def run(program: Path, name: str, seconds: int) -> bool:
    """Run a target; whether all went well."""
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(
        [str(program), f"-max_total_time={seconds}", f"-max_len={LENGTH_MAX}", "-timeout=10",
         "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1",
         f"-artifact_prefix={found}/failed-", str(found), str(CORPUS / name)],
        env={**os.environ, "DRBD_FUZZ_TARGET": name}, capture_output=True, text=True,
        errors="replace")
    executed = [line.split()[-1] for line in result.stderr.splitlines()
                if "number_of_executed_units" in line]
    print(f"fuzz {name}: {executed[0] if executed else 'no'} inputs in {seconds} s", flush=True)
    if result.returncode != 0:
        print("\n".join(result.stderr.splitlines()[-40:]))
    return result.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz.py", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long each target runs")
    parser.add_argument("targets", nargs="*", help="only these")
    options = parser.parse_args()
    for tool in ("cargo", "c++"):
        if not shutil.which(tool):
            print(f"fuzz: {tool} is missing")
            return 1
    program = build()
    names = options.targets or sorted(path.name for path in CORPUS.iterdir())
    passed = [run(program, name, options.seconds) for name in names]
    print(f"{passed.count(True)} passed, {passed.count(False)} failed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
