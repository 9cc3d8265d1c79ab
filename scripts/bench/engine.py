# SPDX-License-Identifier: GPL-2.0
"""Instructions that the engine takes for each write: exact, whatever else the machine does."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
OUT = CHECKOUT / "build" / "bench"
ROUNDS = 1000
_LINE = re.compile(r"^\s*([\d,]+) \(.*?\)\s+\S*hot::(hot_\w+)")


def counts() -> dict[str, float]:
    """Instructions a call of each function, with all it calls."""
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "drbd_engine", "--example",
                    "hot"], cwd=CHECKOUT / "tests", check=True)
    program = CHECKOUT / "build" / "target" / "release" / "examples" / "hot"
    profile = OUT / "callgrind.out"
    subprocess.run(["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={profile}",
                    str(program)], check=True)
    text = subprocess.run(["callgrind_annotate", "--inclusive=yes", "--threshold=100",
                           str(profile)], check=True, capture_output=True, text=True).stdout
    found = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            calls = int(match.group(1).replace(",", "")) / ROUNDS
            name = match.group(2).removeprefix("hot_").replace("_", " ")
            found[name] = max(calls, found.get(name, 0))
    return found


def main() -> int:
    if not shutil.which("valgrind"):
        print("make bench LANE=engine: valgrind is missing; install the package of that name",
              file=sys.stderr)
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    found = counts()
    print("| the engine's part of | instructions |\n| --- | --- |")
    for name, instructions in sorted(found.items()):
        print(f"| {name} | {instructions:.0f} |")
    (OUT / "engine.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
