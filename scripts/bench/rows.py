# SPDX-License-Identifier: GPL-2.0
"""The rows of the table: what is measured, what counts as better, and the target."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from machines import BARE, COLD, DEVICE, HUGE, Pair

WRITE_S = 3
SPAN = "--size=64M"
# Blocks that are written while the peer is away, each in another 64 KiB.
SCATTERED = 1024
FAST_RESYNC = "--c-plan-ahead=20 --c-fill-target=10M --c-max-rate=1G --c-min-rate=0"


@dataclass(frozen=True)
class Row:
    """One row. `bare` measures the same without any driver in between."""

    name: str
    title: str
    unit: str
    target: float
    measure: Callable[[Pair], float]
    bare: Callable[[Pair], float] | None = None
    bare_title: str = "bare disk"

    @property
    def less_is_better(self) -> bool:
        return self.target <= 1.0 and self.unit not in ("IOPS", "MB/s", "blocks/s", "ops/s")


def timed(rw: str, size: str, depth: int, more: str = "") -> str:
    return (f"--rw={rw} --bs={size} --iodepth={depth} --time_based --runtime={WRITE_S} "
            f"{more or SPAN}")


def latency_us(job: dict) -> float:
    return job["write"]["lat_ns"]["mean"] / 1000


def iops(job: dict) -> float:
    return job["write"]["iops"] + job["read"]["iops"]


def mb_per_s(job: dict) -> float:
    return (job["write"]["bw_bytes"] + job["read"]["bw_bytes"]) / 1e6


def fio(value: Callable[[dict], float], options: str, protocol: str = "C"):
    def measure(pair: Pair) -> float:
        pair.use_protocol(protocol)
        try:
            return value(pair.fio(DEVICE, options))
        finally:
            pair.use_protocol("C")
    return measure


def bare(value: Callable[[dict], float], options: str):
    return lambda pair: value(pair.fio(BARE, options))


def peer_away(options: str):
    def measure(pair: Pair) -> float:
        pair.disconnect()
        try:
            return iops(pair.fio(DEVICE, options))
        finally:
            pair.connect()
    return measure


def device_mb(pair: Pair) -> float:
    return int(pair.primary.run(f"blockdev --getsize64 {DEVICE}").out) / 1e6


def full_resync(options: str):
    def measure(pair: Pair) -> float:
        pair.disk_options(options)
        try:
            megabytes = device_mb(pair)
            seconds = pair.resync_seconds(
                lambda: pair.primary.run("drbdadm invalidate-remote r0"))
            return megabytes / seconds
        finally:
            pair.disk_options("")
    return measure


def scattered_resync(pair: Pair) -> float:
    """One block in each 64 KiB: no two of them are neighbours."""
    pair.disk_options(FAST_RESYNC)
    try:
        pair.disconnect()
        pair.fio(DEVICE, "--rw=write:60k --bs=4k --iodepth=16 "
                         f"--size=128M --io_size={SCATTERED * 4}k")
        return SCATTERED / pair.resync_seconds(pair.connect)
    finally:
        pair.disk_options("")


def out_of_sync_kib(pair: Pair) -> int:
    return int(re.search(r"oos:(\d+)", pair.primary.read("/proc/drbd")).group(1))


def beside(value: str):
    """A full resync beside writes, ten a second: their latency, or the resync's rate."""
    def measure(pair: Pair) -> float:
        pair.primary.run("drbdadm invalidate-remote r0")
        before = out_of_sync_kib(pair)
        try:
            job = pair.fio(DEVICE, timed("randwrite", "4k", 1, SPAN + " --rate_iops=50"))
            after = out_of_sync_kib(pair)
        finally:
            # What is left is nobody's concern: the slow one may take minutes.
            pair.disk_options(FAST_RESYNC)
            pair.wait_idle()
            pair.disk_options("")
        if not after:
            raise ValueError("the resync was through before the writes were")
        if value == "latency":
            return latency_us(job)
        return (before - after) * 1.024 / 1000 / WRITE_S
    return measure


def busy_seconds(pair: Pair) -> float:
    """Time the processors of both nodes did anything at all."""
    return sum(guest.busy_seconds() for guest in pair.guests)


def processor_time(pair: Pair) -> float:
    """For 1 GiB, from half of it: the start of fio must not be a large part."""
    before = busy_seconds(pair)
    pair.fio(DEVICE, "--rw=write --bs=64k --iodepth=8 --size=128M --io_size=512M")
    return (busy_seconds(pair) - before) * 2


def files(directory: str):
    def measure(pair: Pair, device: str) -> float:
        guest = pair.primary
        guest.run(f"mkfs.ext4 -qF {device} && mkdir -p {directory} && mount {device} {directory}")
        try:
            return iops(pair.fio(directory, "--rw=write --bs=4k --iodepth=1 --fsync=1 --nrfiles=64 "
                                            f"--size=16M --time_based --runtime={WRITE_S}"))
        finally:
            guest.run(f"umount {directory}")
    return measure


def attach_huge(pair: Pair) -> tuple[float, float]:
    """Milliseconds and KiB that attaching a disk of 1 TiB takes."""
    guest = pair.primary
    adm = "drbdadm -c /etc/drbd-huge.conf"
    guest.run(f"drbdsetup status huge >/dev/null 2>&1 || {{ {adm} dump huge >/dev/null; }}")
    if "v08" not in guest.run(f"{adm} dump-md huge 2>/dev/null | head -5", check=False,
                              timeout_s=120).out:
        guest.run(f"{adm} create-md --force huge", timeout_s=300)
    guest.run(f"{adm} new-resource huge && {adm} new-minor huge")
    # MemFree leaves out the free pages that the processors keep at hand.
    free = ("sync; echo 3 > /proc/sys/vm/drop_caches; sleep 0.2; awk '"
            "$1 == \"nr_free_pages\" || $1 == \"count:\" {pages += $2} "
            "END {print pages * 4}' /proc/zoneinfo")
    before = int(guest.run(free).out)
    took = guest.run(f"a=$(date +%s%N); {adm} attach huge >/dev/null; b=$(date +%s%N); "
                     "echo $(((b - a) / 1000))").out
    after = int(guest.run(free).out)
    guest.run(f"{adm} down huge")
    return int(took.split()[-1]) / 1000, float(before - after)


def tcp_mb_per_s(pair: Pair) -> float:
    listens = pair.secondary.spawn("nc -l -p 5001 > /dev/null")
    pair.primary.run("sleep 0.3")
    took = pair.primary.run("a=$(date +%s%N); head -c 64M /dev/zero | nc 192.0.2.2 5001; "
                            "b=$(date +%s%N); echo $(((b - a) / 1000))", timeout_s=120)
    listens.kill()
    return 64 * 1048576 / int(took.out.split()[-1])


RANDOM_1 = timed("randwrite", "4k", 1)
RANDOM_32 = timed("randwrite", "4k", 32)
# 750 extents of 4 MiB, where the log holds 67.
COLD_32 = timed("randwrite", "4k", 32, "--size=3000M")
SEQUENTIAL = timed("write", "1M", 8)
READ_32 = timed("randread", "4k", 32)


def cold(pair: Pair) -> float:
    with pair.cold():
        return iops(pair.fio(COLD, COLD_32))


ROWS = [
    Row("latency", "4 KiB random write, depth 1: mean latency", "us", 0.70,
        fio(latency_us, RANDOM_1), bare(latency_us, RANDOM_1)),
    Row("iops", "4 KiB random write, depth 32", "IOPS", 1.5,
        fio(iops, RANDOM_32), bare(iops, RANDOM_32)),
    Row("cold", "4 KiB random write over 11 × the activity log, depth 32", "IOPS", 2.0,
        cold, lambda pair: iops(pair.fio(HUGE, COLD_32))),
    Row("latency-a", "the same as the first, protocol A: mean latency", "us", 0.75,
        fio(latency_us, RANDOM_1, "A"), bare(latency_us, RANDOM_1)),
    Row("latency-b", "the same as the first, protocol B: mean latency", "us", 0.75,
        fio(latency_us, RANDOM_1, "B"), bare(latency_us, RANDOM_1)),
    Row("away", "4 KiB random write, the peer is away, depth 32", "IOPS", 1.5,
        peer_away(RANDOM_32), bare(iops, RANDOM_32)),
    Row("sequential", "1 MiB sequential write, depth 8", "MB/s", 1.5,
        fio(mb_per_s, SEQUENTIAL), tcp_mb_per_s, "bare TCP"),
    Row("read", "4 KiB random read, depth 32", "IOPS", 1.0,
        fio(iops, READ_32), bare(iops, READ_32)),
    Row("fsync", "small files on ext4, fsync after each write", "ops/s", 1.4,
        lambda pair: files("/mnt/mirror")(pair, DEVICE),
        lambda pair: files("/mnt/bare")(pair, BARE)),
    Row("resync", "full resync, equal settings", "MB/s", 1.5,
        full_resync(FAST_RESYNC), tcp_mb_per_s, "bare TCP"),
    Row("resync-default", "full resync, default settings", "MB/s", 3.0,
        full_resync(""), tcp_mb_per_s, "bare TCP"),
    Row("scattered", "bitmap resync of scattered 4 KiB blocks", "blocks/s", 2.0,
        scattered_resync),
    Row("beside-latency", "write latency beside a full resync", "us", 1.0, beside("latency")),
    Row("beside-rate", "rate of that resync", "MB/s", 1.0, beside("rate")),
    Row("processor", "processor time of both nodes for 1 GiB written", "s", 0.75,
        processor_time),
    Row("attach-time", "attach of a 1 TiB device: time", "ms", 1.0,
        lambda pair: attach_huge(pair)[0]),
    Row("attach-memory", "attach of a 1 TiB device: memory", "KiB", 1.0,
        lambda pair: attach_huge(pair)[1]),
]
