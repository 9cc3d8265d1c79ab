# SPDX-License-Identifier: GPL-2.0
"""Decides between KVM and emulation by a short real boot; the answer is kept until a reboot."""

import json
import os
import sys
import tempfile
from pathlib import Path

from .guest import GuestDied, TimedOut
from .image import Ground, write_image
from .qemu import Machine, QemuGuest, kvm_device_usable
from .report import KernelReport

PROBE_TIMEOUT_S = 20


def _answer_file(ground: Ground) -> Path:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ground.images.parent / f"accelerator-{ground.kernel.key}-{boot}.json"


def _boots_on_kvm(ground: Ground) -> bool:
    with tempfile.TemporaryDirectory(prefix="drbdvm-") as name:
        directory = Path(name)
        write_image(directory / "initrd", ground, module="c", tools="stock", bench=False, files={})
        machine = Machine(ground.vmlinuz, directory / "initrd", "kvm", processors=1)
        guest = QemuGuest("probe", "192.0.2.1", directory, machine)
        try:
            guest.power_on()
            guest.wait_ready(PROBE_TIMEOUT_S)
            return guest.run("uname -r", timeout_s=PROBE_TIMEOUT_S).out.strip() != ""
        except (GuestDied, TimedOut, KernelReport):
            return False
        finally:
            guest.release()


def choose(ground: Ground) -> str:
    """"kvm" or "tcg"; DRBD_ACCEL= overrules the probe."""
    chosen = os.environ.get("DRBD_ACCEL")
    if chosen:
        return chosen
    if not kvm_device_usable():
        return "tcg"
    answer = _answer_file(ground)
    try:
        return json.loads(answer.read_text())["accelerator"]
    except (OSError, ValueError, KeyError):
        pass
    accelerator = "kvm" if _boots_on_kvm(ground) else "tcg"
    if accelerator == "tcg":
        print("[guests] /dev/kvm is there but cannot boot the kernel; emulating", file=sys.stderr)
    for old in answer.parent.glob("accelerator-*.json"):
        old.unlink(missing_ok=True)
    answer.write_text(json.dumps({"accelerator": accelerator}))
    return accelerator
