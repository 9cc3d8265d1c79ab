# SPDX-License-Identifier: GPL-2.0
"""Writes `rust-project.json` for rust-analyzer: the kernel's crates and the module's four.

The kernel's generator knows neither our crates nor where the build root's directories really are,
so its file is read and completed.
"""

import json
from pathlib import Path

import module
from buildroot import build_root
from cache import GroundError
from kernel import OBJTREE, SOURCE, kernel_source, object_tree, resolve

DRIVER = "drivers/block/drbd"

# Our crates, in the order of their dependencies: name, root file, what each needs of the others.
CRATES = (
    ("drbd_bindings", "build/module/" + DRIVER + "/bindings/drbd_bindings.rs", ()),
    ("drbd_engine", DRIVER + "/engine/drbd_engine.rs", ()),
    ("drbd_sys", DRIVER + "/sys/drbd_sys.rs", ("drbd_bindings",)),
    ("drbd", DRIVER + "/drbd.rs", ("drbd_engine", "drbd_sys")),
)
KERNEL_CRATES = ("core", "kernel", "pin_init", "zerocopy", "zerocopy_derive")


def write_project() -> Path:
    """Write the project file into the checkout and return its path."""
    root = build_root(quick=True)
    kernel = resolve(root)
    checkout = module.checkout_dir()
    if module.build(["rust-analyzer"], ["-s"]) != 0:
        raise GroundError("the kernel's rust-analyzer target failed; its message stands above")
    generated = checkout / "build/module/rust-project.json"
    text = generated.read_text()
    for inside, outside in (
        (module.CHECKOUT, checkout), (SOURCE, kernel_source(root, kernel, quick=True)),
        (OBJTREE, object_tree(root, kernel, quick=True)),
        ("/usr/lib/rustlib", f"{root}/usr/lib/rustlib"),
    ):
        text = text.replace(f'"{inside}', f'"{outside}')
    project = json.loads(text)
    crates = [crate for crate in project["crates"]
              if crate["display_name"] not in {name for name, _, _ in CRATES}]
    if len(crates) != len(project["crates"]):
        raise GroundError("the kernel's generator already lists our crates; adapt editor.py")
    index = {crate["display_name"]: number for number, crate in enumerate(crates)}
    model = crates[index["kernel"]]
    for name, path, needs in CRATES:
        index[name] = len(crates)
        crates.append({
            "display_name": name, "root_module": str(checkout / path),
            "is_workspace_member": True, "is_proc_macro": False, "edition": "2021",
            "deps": [{"crate": index[need], "name": need} for need in (*KERNEL_CRATES, *needs)
                     if need in index],
            "cfg": model["cfg"] + ["MODULE"], "env": {"RUST_MODFILE": "drbd"},
        })
    project["crates"] = crates
    project["sysroot"] = f"{root}/usr"
    target = checkout / "rust-project.json"
    target.write_text(json.dumps(project, indent=2) + "\n")
    generated.unlink()
    return target
