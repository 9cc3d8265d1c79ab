# SPDX-License-Identifier: GPL-2.0
"""Where the time goes: instructions, switches, wake-ups, calls and packets for each write, read,
block that is resynced and so on, on both nodes.

Counts say more than clocks on a machine that others use: they do not depend on its load.
"""

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import rows
from instructions import Executed, build_plugin
from machines import CHECKOUT, COLD, DEVICE, SEED, Pair


@contextlib.contextmanager
def _as_it_is(_pair: Pair):
    yield


@contextlib.contextmanager
def _away(pair: Pair):
    pair.disconnect()
    try:
        yield
    finally:
        pair.connect()
        pair.wait_idle()


def _protocol(protocol: str):
    @contextlib.contextmanager
    def scene(pair: Pair):
        pair.use_protocol(protocol)
        try:
            yield
        finally:
            pair.use_protocol("C")
    return scene


@dataclass(frozen=True)
class Work:
    """What is counted: so many operations of fio, in a scene; or a row of the benchmark."""

    title: str
    fio: str = ""
    block_kib: int = 4
    operations: int = 1500
    device: str = DEVICE
    size: str = "64M"
    scene: Callable = _as_it_is
    row: Callable[[Pair], float] | None = None

    def run(self, pair: Pair, depth: int, operations: int) -> None:
        """One operation is no more than what its start takes; a row has no such part."""
        if self.row is None:
            pair.fio(self.device, f"{self.fio} --bs={self.block_kib}k --iodepth={depth} "
                                  f"--size={self.size} --io_size={operations * self.block_kib}k "
                                  f"--randseed={SEED}")
        elif operations > 1:
            self.row(pair)


WORKS = {
    "write": Work("4 KiB random writes", "--rw=randwrite"),
    "a": Work("4 KiB random writes, protocol A", "--rw=randwrite", scene=_protocol("A")),
    "b": Work("4 KiB random writes, protocol B", "--rw=randwrite", scene=_protocol("B")),
    "away": Work("4 KiB random writes, the peer is away", "--rw=randwrite", scene=_away),
    "cold": Work("4 KiB random writes over 11 × the activity log", "--rw=randwrite", device=COLD,
                 size="3000M", scene=Pair.cold),
    "sequential": Work("1 MiB sequential writes", "--rw=write", block_kib=1024, operations=60),
    "read": Work("4 KiB random reads", "--rw=randread"),
    "fsync": Work("4 KiB random writes, each with an fsync", "--rw=randwrite --fsync=1"),
    "resync": Work("1 MiB of a full resync", operations=256,
                   row=rows.full_resync(rows.FAST_RESYNC)),
    "scattered": Work("scattered 4 KiB blocks, written while the peer is away and resynced",
                      operations=rows.SCATTERED, row=rows.scattered_resync),
}
ROLES = ("primary", "secondary")
_PROFILE_LINES = 40
_TRACING = "/sys/kernel/tracing"
# Functions of the kernel whose calls are counted: label, and the names it had over time.
_PROBES = {
    "sendmsg": ("tcp_sendmsg",),
    "recvmsg": ("tcp_recvmsg",),
    "wake-ups": ("try_to_wake_up",),
    "allocations of pages": ("__alloc_frozen_pages_noprof", "__alloc_pages_noprof"),
    "allocations of objects": ("kmem_cache_alloc_noprof",),
    "bios": ("submit_bio_noacct",),
    "mutex waits": ("__mutex_lock_slowpath", "__mutex_lock"),
    "calls of the device": ("vp_notify",),
}
_SET_UP = "mount -t tracefs none {0} 2>/dev/null; cd {0} && " + " && ".join(
    "{{ " + " || ".join(f"echo p:bench/{label.replace(' ', '_').replace('-', '_')} {name} "
                        ">> kprobe_events" for name in names) + " || true; }}"
    for label, names in _PROBES.items()) + "; echo 16 > buffer_size_kb"
_LABELS = {label.replace(" ", "_").replace("-", "_"): label for label in _PROBES}


def _probe_hits(text: str) -> dict[str, int]:
    return {name: int(hits) for name, hits in re.findall(r"^\s*(\w+)\s+(\d+)\s+\d+$", text, re.M)}


def _kernel_counts(guest) -> dict[str, int]:
    text = guest.run("cat /proc/stat; grep ^Tcp: /proc/net/snmp; "
                     "awk '/^Name/ {name = $2} /^voluntary/ && name ~ /^drbd/ "
                     "{print \"thread\", name, $2}' /proc/[0-9]*/status 2>/dev/null || true").out
    counts = {"switches": int(re.search(r"^ctxt (\d+)", text, re.M).group(1)),
              "interrupts": int(re.search(r"^intr (\d+)", text, re.M).group(1)),
              "soft interrupts": int(re.search(r"^softirq (\d+)", text, re.M).group(1))}
    names, values = (line.split()[1:] for line in re.findall(r"^Tcp: .*$", text, re.M))
    tcp = dict(zip(names, map(int, values)))
    counts["segments out"] = tcp["OutSegs"]
    counts["segments sent again"] = tcp["RetransSegs"]
    for name, sleeps in re.findall(r"^thread drbd\w*?_([a-z]+)\S* (\d+)$", text, re.M):
        # Both drivers call their threads worker or w, receiver or r, asender or a.
        label = {"w": "worker", "r": "receiver", "a": "asender", "as": "asender"}.get(name, name)
        counts[f"sleeps of {label}"] = counts.get(f"sleeps of {label}", 0) + int(sleeps)
    return counts


def _calls(guest) -> dict[str, int]:
    text = guest.run(f"cat {_TRACING}/kprobe_profile 2>/dev/null").out
    return {_LABELS[name]: hits for name, hits in _probe_hits(text).items() if name in _LABELS}


def _differences(pair: Pair, work: Work, depth: int, take) -> list[Counter]:
    """How much `take` of each guest tells of the operations, without what fio does for one."""
    states = [[take(guest) for guest in pair.guests]]
    for operations in (1, work.operations + 1):
        work.run(pair, depth, operations)
        states.append([take(guest) for guest in pair.guests])
    found = []
    for before, single, after in zip(*states):
        counts = Counter(after)
        counts.subtract(single)
        counts.subtract(single)
        counts.update(before)
        found.append(counts)
    return found


@contextlib.contextmanager
def _probes(pair: Pair):
    for guest in pair.guests:
        guest.run(_SET_UP.format(_TRACING), check=False)
        guest.run(f"echo 1 > {_TRACING}/events/bench/enable", check=False)
    try:
        yield
    finally:
        for guest in pair.guests:
            guest.run(f"echo 0 > {_TRACING}/events/bench/enable; echo > {_TRACING}/kprobe_events",
                      check=False)


def _by_module(functions: Counter) -> Counter:
    counts = Counter()
    for (_, module), number in functions.items():
        counts["instructions"] += number
        if module in ("drbd", "user"):
            label = "drbd" if module == "drbd" else "programs"
            counts[f"instructions of {label}"] += number
    return counts


def _count(pair: Pair, executed: dict, work: Work,
           depth: int) -> tuple[list[Counter], list[Counter]]:
    """Of each node: all counts; instructions of each function."""
    counts = _differences(pair, work, depth, _kernel_counts)
    blocks = _differences(pair, work, depth, lambda guest: executed[guest].snapshot())
    functions = [executed[guest].by_function(of_guest)
                 for guest, of_guest in zip(pair.guests, blocks)]
    with _probes(pair):
        calls = _differences(pair, work, depth, _calls)
    for role in range(2):
        counts[role].update(calls[role])
        counts[role].update(_by_module(functions[role]))
    return counts, functions


def _table(found: dict[str, list[Counter]], operations: int) -> str:
    columns = [(role, driver) for role in range(2) for driver in found]
    lines = ["| | " + " | ".join(f"{ROLES[role]}: {'C' if driver == 'c' else driver}"
                                 for role, driver in columns) + " |",
             "| --- |" + " --- |" * len(columns)]
    labels = sorted({label for roles in found.values() for counts in roles for label in counts})
    for label in labels:
        cells = [f"{found[driver][role][label] / operations:.{0 if 'instr' in label else 2}f}"
                 for role, driver in columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _floor(found: dict[str, list[Counter]]) -> str:
    """What both nodes execute with ours of what they do with the C driver, programs left out: as
    it is, and if the module needed none."""
    def kernels(driver: str, *less: str) -> int:
        return sum(counts["instructions"] - sum(counts[f"instructions of {part}"] for part in less)
                   for counts in found[driver])
    if not {"ours", "c"} <= found.keys():
        return ""
    c = kernels("c", "programs") or 1
    return (f"Instructions of both nodes, ours / C: {kernels('ours', 'programs') / c:.2f}; "
            f"without a single one of our module {kernels('ours', 'programs', 'drbd') / c:.2f}\n")


def _profile(functions: Counter, operations: int) -> str:
    """The functions that most instructions are of, in the whole guest and in the driver."""
    def lines(chosen):
        return "".join(f"{number / operations:9.1f} {module:>12} {name}\n"
                       for (name, module), number in chosen[:_PROFILE_LINES])
    order = functions.most_common()
    return lines(order) + "\n" + lines([entry for entry in order if entry[0][1] == "drbd"])


def report(drivers: list[str], works: list[str], depths: list[int], profile: bool,
           cards: bool, say: Callable[[str], None]) -> None:
    """Print the counts as tables in Markdown; with `profile`, the functions behind them, too."""
    plugin = build_plugin(CHECKOUT / "build" / "bench")
    with contextlib.ExitStack() as stack:
        pairs, executed = {}, {}
        for driver in drivers:
            pairs[driver] = stack.enter_context(Pair(driver, plugin=plugin, cards=cards))
            with pairs[driver].running():
                executed.update((guest, Executed(guest)) for guest in pairs[driver].guests)
        for name, depth in itertools.product(works, depths):
            work, found = WORKS[name], {}
            for driver, pair in pairs.items():
                with pair.running(), work.scene(pair):
                    found[driver], functions = _count(pair, executed, work, depth)
                if profile:
                    for role, of_role in zip(ROLES, functions):
                        say(f"\n{driver}, {role}, {name}, depth {depth}: instructions for each\n")
                        say(_profile(of_role, work.operations))
            say(f"\n{work.title}, depth {depth}: for each\n\n"
                f"{_table(found, work.operations)}\n\n{_floor(found)}")
