# SPDX-License-Identifier: GPL-2.0
"""Configuration files for the pairs of guests that tests use."""

import os

from drbdvm.lab import SLOWNESS

# drbdadm gives most commands five seconds, on whatever machine.
PATIENCE = "cmd-timeout-short 60; " if os.environ.get("DRBD_LANE") in SLOWNESS else ""
GLOBAL = f"global {{ usage-count no; {PATIENCE}}}\n"


def resource(first: str = "t", second: str = "Shentar", *, name: str = "r0", minor: int = 0,
             disk: str = "/dev/vda", protocol: str = "C", net: str = "", disk_options: str = "",
             port: int = 7788) -> str:
    """drbd.conf (8.4 style) of one resource on two guests with the runner's addresses."""
    hosts = "".join(
        f"    on {host} {{\n"
        f"        device /dev/drbd{minor};\n"
        f"        disk {disk};\n"
        f"        address 192.0.2.{number}:{port};\n"
        "        meta-disk internal;\n"
        "    }\n"
        for number, host in enumerate((first, second), start=1)
    )
    return (
        f"{GLOBAL}"
        f"resource {name} {{\n"
        f"    net {{ protocol {protocol}; {net} }}\n"
        f"    disk {{ {disk_options} }}\n"
        f"{hosts}}}\n"
    )


def volumes(first: str = "t", second: str = "Shentar", *, name: str = "r0",
            disks: tuple[str, ...] = ("/dev/vda", "/dev/vdb"), net: str = "",
            disk_options: str = "", port: int = 7788, network: str = "ipv4") -> str:
    """drbd.conf of one resource with a volume and a minor (0, 1, …) for each disk.

    With `network="ipv6"` the nodes are fd00::1 and fd00::2; the test gives them these addresses.
    """
    parts = "".join(
        f"    volume {number} {{ device /dev/drbd{number}; disk {disk}; meta-disk internal; }}\n"
        for number, disk in enumerate(disks)
    )
    address = {"ipv4": "192.0.2.{}:{}", "ipv6": "ipv6 [fd00::{}]:{}"}[network]
    hosts = "".join(
        f"    on {host} {{ address {address.format(number, port)}; }}\n"
        for number, host in enumerate((first, second), start=1)
    )
    return (
        f"{GLOBAL}"
        f"resource {name} {{\n"
        f"    net {{ protocol C; {net} }}\n"
        f"    disk {{ {disk_options} }}\n"
        f"{parts}{hosts}}}\n"
    )
