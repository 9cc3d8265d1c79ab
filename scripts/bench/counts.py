# SPDX-License-Identifier: GPL-2.0
"""Where the time goes: switches, wake-ups, calls and packets for each write, on both nodes.

Counts say more than clocks on a machine that others use: they do not depend on its load.
"""

import re
from collections.abc import Callable

from machines import DEVICE, SEED, Pair

WRITES = 1500
_TRACING = "/sys/kernel/tracing"
# Functions of the kernel whose calls are counted: label, and the names it had over time.
_PROBES = {
    "sendmsg": ("tcp_sendmsg",),
    "recvmsg": ("tcp_recvmsg",),
    "wake-ups": ("try_to_wake_up",),
    "lists of pages": ("__alloc_frozen_pages_noprof", "__alloc_pages_noprof"),
    "slab objects": ("kmem_cache_alloc_noprof",),
    "bios": ("submit_bio_noacct",),
    "mutex waits": ("__mutex_lock_slowpath", "__mutex_lock"),
}
_SET_UP = "mount -t tracefs none {0} 2>/dev/null; cd {0} && " + " && ".join(
    "{{ " + " || ".join(f"echo p:bench/{label.replace(' ', '_').replace('-', '_')} {name} "
                        ">> kprobe_events" for name in names) + " || true; }}"
    for label, names in _PROBES.items()) + "; echo 16 > buffer_size_kb"


def _probe_hits(text: str) -> dict[str, int]:
    return {name: int(hits) for name, hits in re.findall(r"^\s*(\w+)\s+(\d+)\s+\d+$", text, re.M)}


def _snapshot(guest) -> dict[str, int]:
    text = guest.run("cat /proc/stat; grep ^Tcp: /proc/net/snmp; cat /proc/net/dev; "
                     f"cat {_TRACING}/kprobe_profile 2>/dev/null; "
                     "for p in /proc/[0-9]*; do n=$(cat $p/comm 2>/dev/null); case $n in "
                     "drbd*) echo \"thread $n $(awk '/^voluntary/ {print $2}' $p/status)\";; "
                     "esac; done").out
    counts = {"switches": int(re.search(r"^ctxt (\d+)", text, re.M).group(1)),
              "interrupts": int(re.search(r"^intr (\d+)", text, re.M).group(1))}
    names, values = (line.split()[1:] for line in re.findall(r"^Tcp: .*$", text, re.M))
    tcp = dict(zip(names, map(int, values)))
    counts["segments out"] = tcp["OutSegs"]
    for name, sleeps in re.findall(r"^thread drbd\w*?_([a-z]+)\S* (\d+)$", text, re.M):
        # Both drivers call their threads worker or w, receiver or r, asender or a.
        label = {"w": "worker", "r": "receiver", "a": "asender", "as": "asender"}.get(name, name)
        counts[f"sleeps of {label}"] = counts.get(f"sleeps of {label}", 0) + int(sleeps)
    for name, hits in _probe_hits(text).items():
        counts[name.replace("_", " ")] = hits
    return counts


def _count(pair: Pair, depth: int) -> dict[str, dict[str, float]]:
    job = (f"--rw=randwrite --bs=4k --iodepth={depth} --size=64M --io_size={WRITES * 4}k "
           f"--randseed={SEED}")
    before = [_snapshot(guest) for guest in pair.guests]
    pair.fio(DEVICE, job)
    after = [_snapshot(guest) for guest in pair.guests]
    return {role: {label: (last[label] - first.get(label, 0)) / WRITES for label in last}
            for role, first, last in zip(("primary", "secondary"), before, after)}


def _prepare(pair: Pair) -> None:
    for guest in pair.guests:
        guest.run(_SET_UP.format(_TRACING), check=False)
        guest.run(f"echo 1 > {_TRACING}/events/bench/enable", check=False)


def report(pairs: dict[str, Pair], say: Callable[[str], None]) -> None:
    """Print the counts as a table in Markdown."""
    for depth in (1, 32):
        found = {}
        for driver, pair in pairs.items():
            with pair.running():
                _prepare(pair)
                found[driver] = _count(pair, depth)
        say(f"\n4 KiB random writes, depth {depth}: for each write\n")
        say("| | primary: ours | primary: C | secondary: ours | secondary: C |")
        say("| --- | --- | --- | --- | --- |")
        labels = sorted({label for roles in found.values() for counts in roles.values()
                         for label in counts})
        for label in labels:
            cells = [f"{found[driver][role].get(label, 0):.2f}"
                     for role in ("primary", "secondary") for driver in ("ours", "c")]
            say(f"| {label} | " + " | ".join(cells) + " |")
