# SPDX-License-Identifier: GPL-2.0
"""Builds `build/drbd.ko` in the build root against the stock kernel's object tree."""

import fcntl
import os
import shutil
import sys
from pathlib import Path

from buildroot import build_root, run_in_root
from kernel import OBJTREE, SOURCE, kernel_source, make_variables, object_tree, resolve

CHECKOUT = "/ground/checkout"


def checkout_dir() -> Path:
    return Path(__file__).resolve().parents[2]


def build(targets: list[str], variables: list[str], output: str = "build/module") -> int:
    """Run kbuild for the checkout; `output` is relative to it. Returns make's exit code."""
    root = build_root(quick=True)
    kernel = resolve(root)
    tree = object_tree(root, kernel, quick=True)
    source = kernel_source(root, kernel, quick=True)
    checkout = checkout_dir()
    directory = checkout / output
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory.with_suffix(".lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        result = run_in_root(
            root,
            ["make", "--no-print-directory", f"-j{os.cpu_count() or 2}", "-C", SOURCE,
             f"O={OBJTREE}", *make_variables(kernel), f"M={CHECKOUT}",
             f"MO={CHECKOUT}/{output}", *variables, *targets],
            binds={SOURCE: source, OBJTREE: tree, CHECKOUT: checkout},
        )
        module = directory / "drbd.ko"
        if result.returncode == 0 and module.exists() and not targets:
            partial = checkout / "build" / ".drbd.ko.new"
            shutil.copy2(module, partial)
            partial.replace(checkout / "build" / f"drbd{'' if output == 'build/module' else '-' + directory.name}.ko")
    sys.stdout.flush()
    return result.returncode
