# SPDX-License-Identifier: GPL-2.0
"""Builds `build/drbd.ko` in the build root against the stock kernel's object tree.

For the other lanes the same makes `build/drbd-LANE.ko`.
"""

import fcntl
import os
import shutil
import sys
from pathlib import Path

from buildroot import build_root, run_in_root
from kernel import OBJTREE, SOURCE, kernel_source, resolve
from lane import lane_kernel, lane_root, module_variables, variables_for

CHECKOUT = "/ground/checkout"


def checkout_dir() -> Path:
    return Path(__file__).resolve().parents[2]


def build(targets: list[str], variables: list[str], output: str | None = None,
          lane: str = "stock") -> int:
    """Run kbuild for the checkout; `output` is relative to it. Returns make's exit code."""
    kernel = resolve(build_root(quick=True))
    root = lane_root(lane, quick=True)
    tree = lane_kernel(lane, kernel, quick=True).tree
    source = kernel_source(root, kernel, quick=True)
    checkout = checkout_dir()
    suffix = "" if lane == "stock" else f"-{lane}"
    usual = f"build/module{suffix}"
    output = output or usual
    directory = checkout / output
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory.with_suffix(".lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        result = run_in_root(
            root,
            ["make", "--no-print-directory", f"-j{os.cpu_count() or 2}", "-C", SOURCE,
             f"O={OBJTREE}", *variables_for(lane, kernel), f"M={CHECKOUT}",
             f"MO={CHECKOUT}/{output}", *_joined(module_variables(lane) + variables), *targets],
            binds={SOURCE: source, OBJTREE: tree, CHECKOUT: checkout},
        )
        module = directory / "drbd.ko"
        if result.returncode == 0 and module.exists() and not targets:
            name = f"drbd{suffix if output == usual else '-' + directory.name}.ko"
            partial = checkout / "build" / f".{name}.new"
            shutil.copy2(module, partial)
            partial.replace(checkout / "build" / name)
    sys.stdout.flush()
    return result.returncode


def _joined(variables: list[str]) -> list[str]:
    """One setting of each variable; make heeds only the last of several."""
    values: dict[str, list[str]] = {}
    for variable in variables:
        name, value = variable.split("=", 1)
        values.setdefault(name, []).append(value)
    return [f"{name}={' '.join(settings)}" for name, settings in values.items()]
