# SPDX-License-Identifier: GPL-2.0
"""`make install` puts the module where depmod prefers it to the kernel's own."""

import shutil
import subprocess
from pathlib import Path

from drbdvm.image import CHECKOUT, Ground

from buildroot import run_in_root
from kernel import kernel_files

OWN = "kernel/drivers/block/drbd/drbd.ko"


def preferred(tree: Path, ground: Ground) -> str:
    """The file that the name drbd stands for, by the index that modprobe reads."""
    result = run_in_root(ground.root, ["depmod", "-b", "/ground/output", ground.kernel.release],
                         capture=True, binds={"/ground/output": tree})
    assert result.returncode == 0, result.stdout
    index = tree / "lib/modules" / ground.kernel.release / "modules.dep"
    files = [line.split(":")[0] for line in index.read_text().splitlines()]
    found = [file for file in files if Path(file).name.startswith("drbd.ko")]
    assert len(found) == 1, found
    return found[0]


def make(target: str, tree: Path, ground: Ground) -> None:
    subprocess.run(["make", "--no-print-directory", target, f"DESTDIR={tree}",
                    f"KVER_INSTALL={ground.kernel.release}"], cwd=CHECKOUT, check=True)


def test_the_installed_module_is_preferred_until_it_is_uninstalled(tmp_path):
    ground = Ground.get()
    modules = tmp_path / "lib/modules" / ground.kernel.release
    files = kernel_files(ground.root, ground.kernel, quick=True)
    modules.mkdir(parents=True)
    shutil.copytree(files / "modules", modules / "kernel")
    for index in files.glob("modules.*"):
        shutil.copy(index, modules)
    assert preferred(tmp_path, ground).startswith(OWN)
    make("install", tmp_path, ground)
    assert preferred(tmp_path, ground) == "updates/drbd.ko"
    for program in ("drbdadm", "drbdsetup", "drbdmeta"):
        assert (tmp_path / "usr/sbin" / program).stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "etc/init.d/drbd").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "usr/lib/systemd/system/drbd.service").is_file()
    make("uninstall", tmp_path, ground)
    assert preferred(tmp_path, ground).startswith(OWN)
    left = [path for top in ("usr", "etc") for path in (tmp_path / top).rglob("*")
            if not path.is_dir()]
    assert left == [], left
