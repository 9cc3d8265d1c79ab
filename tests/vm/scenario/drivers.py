# SPDX-License-Identifier: GPL-2.0
"""Both drivers on one guest: our module lies where modprobe prefers it, the C driver beside it."""

from drbdvm import Guest

C_DRIVER = "/lib/modules/$(uname -r)/kernel/drivers/block/drbd/drbd.ko"


def load_driver(guest: Guest, module: str) -> None:
    """Replace the driver of a guest that has no resource up. The guest was made with "ours"."""
    load = "modprobe drbd" if module == "ours" else \
        f"modprobe lru_cache; insmod {C_DRIVER}"
    guest.run(f"if [ -e /sys/module/drbd ]; then rmmod drbd; fi; {load}")
    is_foreign = "O" in guest.read("/sys/module/drbd/taint")
    assert is_foreign == (module == "ours"), f"{guest.name} has not loaded the driver {module}"
