# SPDX-License-Identifier: GPL-2.0
"""`python3 scripts/coverage.py`: which lines of the engine the tests and the simulator reach.

Lines of the engine's own tests do not count. The table is printed; build/coverage/missed.txt has
every line that nothing reached. Needs the component llvm-tools of rustup, or LLVM_TOOLS=DIRECTORY.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
ENGINE = CHECKOUT / "drivers/block/drbd/engine"
OUTPUT = CHECKOUT / "build" / "coverage"


def output_of(*command: str | Path, **options) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options).stdout


def tool(name: str) -> Path:
    """A program of the compiler's LLVM."""
    places = [Path(os.environ["LLVM_TOOLS"])] if "LLVM_TOOLS" in os.environ else [
        Path(output_of("rustc", "--print", "target-libdir").strip()).parent / "bin"]
    for place in places:
        if (place / name).exists():
            return place / name
    sys.exit(f"coverage: there is no {name} in {places[0]}; run: rustup component add llvm-tools")


def programs_of(messages: str) -> list[str]:
    """Programs that `cargo --message-format=json` says it built."""
    return re.findall(r'"executable":"([^"]+)"', messages)


def measure(seeds: int) -> dict[Path, dict[int, int]]:
    """How often each line of each file of the engine ran."""
    profdata, cov = tool("llvm-profdata"), tool("llvm-cov")
    for old in OUTPUT.glob("*.profraw"):
        old.unlink()
    environment = {
        **os.environ, "RUSTFLAGS": "-Cinstrument-coverage",
        "CARGO_TARGET_DIR": str(OUTPUT / "target"),
        "LLVM_PROFILE_FILE": str(OUTPUT / "%p-%m.profraw"),
    }
    programs = []
    for workspace in ("tests", "tools"):
        common = {"cwd": CHECKOUT / workspace, "env": environment}
        programs += programs_of(output_of("cargo", "test", "--workspace", "--no-run", "--quiet",
                                          "--message-format=json", **common))
        subprocess.run(["cargo", "test", "--workspace", "--quiet"], check=True,
                       stdout=subprocess.DEVNULL, **common)
    common = {"cwd": CHECKOUT / "tests", "env": environment}
    simulator = ["--release", "--quiet", "-p", "drbd_sim"]
    programs += programs_of(output_of("cargo", "build", *simulator, "--message-format=json",
                                      **common))
    subprocess.run(["cargo", "run", *simulator, "--", "--seeds", str(seeds)], check=True, **common)
    profile = OUTPUT / "all.profdata"
    listed = OUTPUT / "profiles"
    listed.write_text("\n".join(map(str, OUTPUT.glob("*.profraw"))))
    subprocess.run([profdata, "merge", "-sparse", f"--input-files={listed}", "-o", profile],
                   check=True)
    lines: dict[Path, dict[int, int]] = {}
    objects = [word for program in programs for word in ("-object", program)]
    report = output_of(cov, "export", "-format=lcov", f"-instr-profile={profile}", *objects)
    path = Path("/")
    for line in report.splitlines():
        if line.startswith("SF:"):
            path = Path(line[3:]).resolve()
        elif line.startswith("DA:") and path.is_relative_to(ENGINE):
            number, count = map(int, line[3:].split(",")[:2])
            known = lines.setdefault(path, {})
            known[number] = max(known.get(number, 0), count)
    return lines


def without_tests(path: Path, counts: dict[int, int]) -> dict[int, int]:
    """The lines of a file that are no tests: what is tested stands before its tests."""
    if path.name == "tests.rs" or "tests" in path.relative_to(ENGINE).parts:
        return {}
    text = path.read_text().splitlines()
    end = next((number for number, line in enumerate(text, start=1) if line == "#[cfg(test)]"),
               len(text) + 1)
    return {number: count for number, count in counts.items() if number < end}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="seeds that the simulator runs")
    options = parser.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    reached = total = 0
    rows, missed = [], []
    for path, counts in sorted(measure(options.seeds).items()):
        own = without_tests(path, counts)
        if not own:
            continue
        name = path.relative_to(ENGINE)
        hit = sum(count > 0 for count in own.values())
        reached, total = reached + hit, total + len(own)
        rows.append((hit / len(own), f"{100 * hit / len(own):6.1f} %  {hit:5} of {len(own):5}  {name}"))
        text = path.read_text().splitlines()
        missed += [f"{name}:{number}: {text[number - 1].strip()}"
                   for number, count in sorted(own.items()) if not count]
    (OUTPUT / "missed.txt").write_text("".join(f"{line}\n" for line in missed))
    print("\n".join(row for _, row in sorted(rows)))
    print(f"the engine: {100 * reached / total:.2f} % of {total} lines reached; what was not: "
          "build/coverage/missed.txt")


if __name__ == "__main__":
    main()
