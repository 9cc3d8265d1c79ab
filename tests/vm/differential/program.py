# SPDX-License-Identifier: GPL-2.0
"""The program in guests that sends netlink messages, built in the build root."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "scripts/ground"))

from buildroot import build_root, root_key, run_in_root  # noqa: E402
from cache import GroundError, ensure, key_of  # noqa: E402

SOURCE = CHECKOUT / "tests/vm/guest/netlink.rs"


def netlink_program() -> Path:
    root = build_root(quick=True)

    def make(directory: Path) -> None:
        result = run_in_root(
            root, ["rustc", "--edition=2021", "-O", "-Cstrip=symbols", "-Dwarnings",
                   "-o", "/ground/output/netlink", "/ground/checkout/netlink.rs"],
            binds={"/ground/checkout": SOURCE.parent, "/ground/output": directory}, capture=True,
        )
        if result.returncode:
            raise GroundError(f"the netlink program does not compile:\n{result.stdout}")

    directory = ensure("netlink", key_of(root_key(), SOURCE.read_text()),
                       "the program that sends netlink messages", make, needed_mib=16, quick=True)
    return directory / "netlink"
