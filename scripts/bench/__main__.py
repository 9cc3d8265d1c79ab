# SPDX-License-Identifier: GPL-2.0
"""`make bench`: our module and the C driver, side by side.

Boots a pair of guests with each; runs of the two alternate, with the same disks, wire, tools, jobs,
seeds and options, and a bare disk or bare TCP beside them. Leaves a table, JSON and a plot in
build/bench/. A row whose ratios reach to both sides of 1.0 is undecided. On lane um the guests are
User Mode Linux at the host's speed; QEMU with the stock kernel is the record.
"""

import argparse
import contextlib
import datetime
import json
import os
import sys

import machines
from drbdvm.image import Ground
from machines import CHECKOUT, LANES, Pair
from results import DRIVERS, Measured, plot, table
from rows import ROWS

OUT = CHECKOUT / "build" / "bench"
_INSIDE = "DRBD_BENCH_NAMESPACE"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--lane", default="qemu", choices=LANES, help="what the guests run on")
    parser.add_argument("--wire", default="frames", choices=("frames", "cards"),
                        help="frames: the wire takes frames of 1500 bytes; cards: as a real card it "
                        "segments and sums, so that the processor does not (QEMU only)")
    parser.add_argument("--rows", default="", help="names of rows, separated by commas or blanks: "
                        + ", ".join(row.name for row in ROWS))
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs of each row")
    parser.add_argument("--counts", action="store_true",
                        help="count instructions, switches and calls for each operation instead")
    parser.add_argument("--profile", action="store_true",
                        help="with the counts, the functions that most instructions are of")
    parser.add_argument("--moments", action="store_true",
                        help="look what the processors do in the rows instead")
    parser.add_argument("--drivers", default=" ".join(DRIVERS), help="count on these only")
    parser.add_argument("--depths", default="1 32", help="count at these only")
    parser.add_argument("--works", default="write", help="count these: write, a, b, away, cold, "
                        "sequential, read, fsync, resync, scattered")
    options = parser.parse_args()
    if (options.counts or options.profile or options.moments) and options.lane != "qemu":
        sys.exit("make bench: --counts, --profile and --moments ask QEMU; lane um has none")
    if options.wire == "cards" and options.lane != "qemu":
        sys.exit("make bench: only QEMU has such cards")
    return options


def enter_namespace(lane: machines.Lane) -> None:
    """Begin again in a network namespace of its own, where the wires can be made."""
    if os.environ.get(_INSIDE) != str(os.getpid()):
        # What is missing is downloaded here, where there is a network.
        Ground.get(lane.guests)
        rights = [] if os.geteuid() == 0 else ["--map-root-user"]
        # A program that is executed keeps its number.
        os.environ[_INSIDE] = str(os.getpid())
        os.execvp("unshare", ["unshare", "--net", *rights, sys.executable, *sys.argv])


def chosen(names: str) -> list:
    wanted = names.replace(",", " ").split()
    unknown = set(wanted) - {row.name for row in ROWS}
    if unknown:
        sys.exit(f"make bench: no such row: {', '.join(sorted(unknown))}")
    return [row for row in ROWS if not wanted or row.name in wanted]


def run_once(pair: Pair, result: Measured, with_bare: bool) -> None:
    try:
        with pair.running():
            result.values[pair.driver].append(result.row.measure(pair))
            if with_bare and result.row.bare:
                result.bare.append(result.row.bare(pair))
    except (AssertionError, TimeoutError, ValueError, AttributeError) as error:
        print(f"FAILED {pair.driver} {result.row.name}: {error}")
        result.failures.append(f"{pair.driver}: {type(error).__name__}: {str(error)[:80]}")


def name_of_files(lane: str, wire: str) -> str:
    return f"bench{LANES[lane].suffix}" + ("-cards" if wire == "cards" else "")


def keep(results: list[Measured], facts: dict) -> None:
    name = name_of_files(facts["lane"], facts["wire"])
    (OUT / f"{name}.md").write_text(table(results, facts))
    rows = [result.as_json() for result in results]
    (OUT / f"{name}.json").write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    (OUT / f"{name}.svg").write_text(plot(results, facts))


def measure(pairs: dict[str, Pair], results: list[Measured], runs: int, facts: dict, say) -> None:
    for turn in range(runs):
        # Who goes first changes, so that neither driver always follows the other.
        order = DRIVERS if turn % 2 == 0 else DRIVERS[::-1]
        for result in results:
            for driver in order:
                run_once(pairs[driver], result, with_bare=driver == order[0])
            say(f"{turn + 1}/{runs} {result.row.name}: {result.as_json()['ratios'][-1:]}")
            keep(results, facts)


def main() -> int:
    options = arguments()
    results = [Measured(row) for row in chosen(options.rows)]
    lane = LANES[options.lane]
    cards = options.wire == "cards"
    if cards:
        enter_namespace(lane)
    OUT.mkdir(parents=True, exist_ok=True)
    screen = sys.stdout
    with open(OUT / f"log{lane.suffix}.txt", "w", buffering=1) as log, \
            contextlib.redirect_stdout(log), contextlib.ExitStack() as stack:
        if options.counts or options.profile:
            import counts
            depths = [int(depth) for depth in options.depths.split()]
            counts.report(options.drivers.split(), options.works.split(), depths, options.profile,
                          cards, lambda text: print(text, file=screen, flush=True))
            return 0
        pairs = {driver: stack.enter_context(Pair(driver, lane, cards=cards))
                 for driver in DRIVERS}
        if options.moments:
            import moments
            moments.report(pairs, chosen(options.rows), options.runs,
                           lambda text: print(text, file=screen, flush=True))
            return 0
        with pairs["c"].running():
            kernel = pairs["c"].primary.run("uname -rv").out.strip()
        facts = {"date": datetime.date.today().isoformat(), "kernel": kernel,
                 "lane": options.lane, "wire": options.wire, **machines.ground()}
        measure(pairs, results, options.runs, facts,
                lambda text: print(text, file=screen, flush=True))
    print(table(results, facts), end="")
    print(f"table, JSON and plot are in {OUT}/{name_of_files(options.lane, options.wire)}.*")
    return 1 if any(result.failures for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
