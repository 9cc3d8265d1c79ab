# SPDX-License-Identifier: GPL-2.0
"""Configuration files for the pairs of guests that tests use."""


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
        "global { usage-count no; }\n"
        f"resource {name} {{\n"
        f"    net {{ protocol {protocol}; {net} }}\n"
        f"    disk {{ {disk_options} }}\n"
        f"{hosts}}}\n"
    )
