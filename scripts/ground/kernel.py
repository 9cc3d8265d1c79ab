# SPDX-License-Identifier: GPL-2.0
"""The stock kernel: which one, its files, its source, and a tree that Rust modules build against.

Debian's headers package lacks the Rust artifacts. They are made again from linux-source-7.3 with
Debian's `.config` and `Module.symvers` and the compilers Debian used; a module built against the
resulting object tree loads into the stock kernel.
"""

import dataclasses
import json
import os
import re
import subprocess
from pathlib import Path

from buildroot import apt, downloads_dir, require_network, root_key, run_in_root, unpack
from cache import GroundError, cache_dir, ensure, key_of, say

SERIES = "7.3"
SOURCE = "/ground/source"
OBJTREE = "/ground/objtree"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A stock kernel: its release (`uname -r`) and the version of its packages."""

    release: str
    version: str

    @property
    def key(self) -> str:
        return key_of(self.release, self.version, "2")


def _chosen_file() -> Path:
    return cache_dir() / "kernel.json"


def _order(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def resolve(root: Path, fresh: bool = False) -> Kernel:
    """The kernel in use: KVER= if set, else the remembered one, else the archive's newest."""
    wanted = os.environ.get("KVER", "")
    try:
        known = [Kernel(**entry) for entry in json.loads(_chosen_file().read_text())]
    except (OSError, ValueError, TypeError):
        known = []
    if not fresh:
        for kernel in known:
            if wanted in ("", kernel.release):
                return kernel
    require_network()
    listing = apt(
        root,
        "apt-get -q update >&2; apt-cache pkgnames linux-binary-; echo; "
        f"apt-cache policy $(apt-cache pkgnames linux-binary-{SERIES}.) linux-source-{SERIES}",
        downloads_dir(),
    )
    pattern = re.compile(r"^linux-binary-(\S+cloud-amd64):\n.*\n\s+Candidate: (\S+)$", re.M)
    kernels = [Kernel(*match) for match in pattern.findall(listing)]
    if wanted:
        kernels = [kernel for kernel in kernels if kernel.release == wanted]
    if not kernels:
        offered = sorted(set(re.findall(rf"^linux-binary-({re.escape(SERIES)}\.\S+cloud-amd64)",
                                        listing, re.M)))
        raise GroundError(
            f"no such kernel: the archive has no {wanted or SERIES + '.* cloud-amd64 kernel'}; "
            + (f"it offers {', '.join(offered)}, choose with KVER=" if offered
               else "try later or another DRBD_MIRROR")
        )
    newest = max(kernels, key=lambda kernel: _order(kernel.release))
    remembered = [newest] + [kernel for kernel in known if kernel != newest]
    partial = _chosen_file().with_suffix(".new")
    partial.write_text(json.dumps([dataclasses.asdict(kernel) for kernel in remembered]))
    partial.replace(_chosen_file())
    say(f"kernel: using {newest.release} ({newest.version}); KVER= chooses another")
    return newest


def _fetch(root: Path, directory: Path, packages: list[str], version: str) -> None:
    require_network()
    names = " ".join(f"'{package}={version}'" for package in packages)
    try:
        apt(root, f"apt-get -q update >&2; apt-get -q download {names}", directory)
    except GroundError as error:
        if "was not found" in str(error) or "Unable to locate" in str(error):
            raise GroundError(
                f"the archive no longer has {packages[0]} {version}; run: python3 scripts/ground "
                "prepare --update"
            ) from error
        raise


def kernel_files(root: Path, kernel: Kernel, quick: bool = False) -> Path:
    """The stock kernel's `vmlinuz`, `modules/`, `.config` and `Module.symvers`."""

    def make(directory: Path) -> None:
        release = kernel.release
        _fetch(root, directory, [f"linux-{part}-{release}" for part in
                                 ("binary", "base", "modules", "headers")], kernel.version)
        packages = directory / "packages"
        packages.mkdir()
        unpack(directory, packages)
        modules = packages / "usr/lib/modules" / release
        headers = packages / "usr/src" / f"linux-headers-{release}"
        (modules / "vmlinuz").rename(directory / "vmlinuz")
        (modules / "kernel").rename(directory / "modules")
        (headers / ".config").rename(directory / "config")
        (headers / "Module.symvers").rename(directory / "Module.symvers")
        for index in modules.glob("modules.*"):
            index.rename(directory / index.name)
        subprocess.run(["rm", "-rf", str(packages)], check=True)

    return ensure("kernel", kernel.key, f"the stock kernel {kernel.release} from the archive", make,
                  needed_mib=256, quick=quick)


def kernel_source(root: Path, kernel: Kernel, quick: bool = False) -> Path:
    """The kernel's source, unpacked."""

    def make(directory: Path) -> None:
        _fetch(root, directory, [f"linux-source-{SERIES}"], kernel.version)
        package = next(directory.glob("*.deb"))
        command = (
            f"dpkg-deb --fsys-tarfile {package} | tar -xO ./usr/src/linux-source-{SERIES}.tar.xz"
            f" | xz -dcT2 | tar -x --no-same-owner --strip-components=1 -C {directory}"
        )
        subprocess.run(["bash", "-o", "pipefail", "-ec", command], check=True)
        package.unlink()

    return ensure("source", key_of(kernel.version, "1"), f"kernel source {kernel.version}", make,
                  needed_mib=3072, quick=quick)


def object_tree(root: Path, kernel: Kernel, quick: bool = False) -> Path:
    """The object tree prepared for external modules, Rust artifacts included."""

    def make(directory: Path) -> None:
        files = kernel_files(root, kernel)
        source = kernel_source(root, kernel)
        for name, target in (("config", ".config"), ("Module.symvers", "Module.symvers")):
            (directory / target).write_bytes((files / name).read_bytes())
        log = downloads_dir().parent / "objtree.log"
        result = run_in_root(
            root,
            ["make", "-s", f"-j{os.cpu_count() or 2}", "-C", SOURCE, f"O={OBJTREE}",
             *make_variables(kernel), "olddefconfig", "modules_prepare"],
            binds={SOURCE: source, OBJTREE: directory}, capture=True,
        )
        log.write_text(result.stdout)
        if result.returncode:
            tail = (result.stdout.strip().splitlines() or ["no message"])[-1]
            raise GroundError(f"preparing the kernel tree failed: {tail} (all of it: {log})")

    return ensure("objtree", key_of(kernel.release, kernel.version, root_key(), "1"),
                  f"Rust artifacts for {kernel.release} (about 3 minutes on two cores)", make,
                  needed_mib=1024, quick=quick)


def make_variables(kernel: Kernel) -> list[str]:
    """What every `make` in the object tree is told; the release decides the vermagic."""
    return [f"KERNELRELEASE={kernel.release}", "CC=gcc-14", "HOSTCC=gcc-14"]
