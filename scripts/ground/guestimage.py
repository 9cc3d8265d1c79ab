# SPDX-License-Identifier: GPL-2.0
"""The base image of guests: the build root's programs with their libraries, and kernel modules.

It changes only with the build root and the kernel. What a test adds (our module, our tools,
configuration files) is a second, small archive appended at boot, see tests/vm/drbdvm/image.py.
"""

import lzma
import os
import re
import shutil
from pathlib import Path

from buildroot import apt, require_network, root_key, run_in_root, unpack
from cache import GroundError, ensure, key_of
from cpio import Archive
from kernel import Kernel, kernel_files
from lane import lane_kernel

BASE_PACKAGES = """
bash coreutils diffutils dmsetup drbd-utils e2fsprogs ethtool findutils grep hostname iproute2
iputils-ping kmod mount procps sed strace tcpdump util-linux
""".split()

# fio drags 40 MB of storage libraries along, so it is an archive of its own.
BENCH_PACKAGES = ["fio"]

# What calls the driver in a whole system: udev, and what resource agents of clusters are built on.
# They are not in the build root, so that all that hangs on it stays when this list changes.
SYSTEM_PACKAGES = ["udev", "libsystemd-shared", "resource-agents"]
_SYSTEM_FILES = ("usr/bin/udevadm", "usr/lib/systemd/systemd-udevd", "usr/lib/udev/rules.d/*",
                 "usr/lib/*/systemd/*.so", "usr/lib/ocf/lib/heartbeat/*")
_AGENTS = "usr/lib/ocf/resource.d/linbit"

# Where the kernel has one of these built in, nothing needs to be packed.
MODULES = """
virtio_blk virtio_net virtio_rng drbd lru_cache dm_mod dm_flakey dm_delay dm_log_writes dm_dust
null_blk loop brd zram scsi_debug sch_netem sch_tbf sch_fq tls af_packet
md5 sha1 sha1_generic sha256 sha256_generic sha512 sha512_generic hmac crc32c crc32c_generic
crc32c_cryptoapi
""".split()

_SKIPPED = ("/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/bash-completion",
            "/usr/share/lintian", "/usr/lib/systemd", "/usr/share/info", "/usr/lib/ocf")


def _package_files(root: Path, package: str) -> list[str]:
    info = root / "var/lib/dpkg/info"
    for name in (f"{package}.list", f"{package}:amd64.list"):
        if (info / name).exists():
            return (info / name).read_text().splitlines()
    raise GroundError(f"the build root lacks the package {package}; run scripts/ground prepare")


def _usr_merged(path: str) -> str:
    return re.sub(r"^/(bin|sbin|lib|lib64)(/|$)", r"/usr/\1\2", path)


def _libraries(root: Path, programs: list[str], directory: str = "", **binds) -> set[str]:
    """Paths of all shared libraries that `programs` load, as the build root's ldd names them.

    `directory` has more libraries than the build root.
    """
    listing = run_in_root(
        root, ["sh", "-c", f'export LD_LIBRARY_PATH="{directory}"; '
               'for f; do ldd "$f" 2>/dev/null; done; true', "sh", *programs],
        capture=True, **binds,
    ).stdout
    return set(re.findall(r"(?:=> |^\t)(/\S+) \(0x", listing, re.M))


def _pack_programs(archive: Archive, root: Path, packages: list[str]) -> None:
    programs = []
    for package in packages:
        for path in map(_usr_merged, _package_files(root, package)):
            source = root / path.lstrip("/")
            if path.startswith(_SKIPPED):
                continue
            if source.is_symlink():
                archive.symlink(path, os.readlink(source))
            elif source.is_file():
                archive.copy(source, path)
                if os.access(source, os.X_OK):
                    programs.append(path)
    for library in sorted(set(map(_usr_merged, _libraries(root, programs)))):
        archive.copy((root / library.lstrip("/")).resolve(), library)


def _module_closure(dependencies: dict[str, list[str]]) -> list[str]:
    by_name = {
        re.sub(r"\.ko(\.\w+)?$", "", os.path.basename(path)).replace("-", "_"): path
        for path in dependencies
    }
    wanted: set[str] = set()
    pending = [by_name[name] for name in MODULES if name in by_name]
    while pending:
        path = pending.pop()
        if path not in wanted:
            wanted.add(path)
            pending += dependencies[path]
    return sorted(wanted)


def _depmod(root: Path, release: str, tree: Path) -> None:
    result = run_in_root(root, ["depmod", "-b", "/ground/output", release], capture=True,
                         binds={"/ground/output": tree})
    if result.returncode:
        raise GroundError(f"depmod failed in the build root: {result.stdout.strip()}")


def _pack_modules(archive: Archive, root: Path, kernel: Kernel, work: Path) -> None:
    """Pack the wanted modules uncompressed: guests under emulation inflate slowly."""
    files = kernel_files(root, kernel)
    directory = work / "lib/modules" / kernel.release
    directory.mkdir(parents=True)
    shutil.copytree(files / "modules", directory / "kernel")
    for index in files.glob("modules.*"):
        shutil.copy(index, directory)
    _depmod(root, kernel.release, work)
    dependencies = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        path, needs = line.split(":", 1)
        dependencies[path] = needs.split()
    kept = _module_closure(dependencies)
    for path in kept:
        source = directory / path
        if source.suffix == ".xz":
            source.with_suffix("").write_bytes(lzma.decompress(source.read_bytes()))
    for source in directory.rglob("*.ko.xz"):
        source.unlink()
    _depmod(root, kernel.release, work)
    base = f"usr/lib/modules/{kernel.release}"
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            archive.copy(path, f"{base}/{path.relative_to(directory)}")
    shutil.rmtree(work)


def _pack_skeleton(archive: Archive, root: Path) -> None:
    for path in ("proc", "sys", "dev", "run", "tmp", "mnt", "root", "var/lib/drbd", "run/lock",
                 "run/drbd"):
        archive.directory(path)
    for name in ("bin", "sbin", "lib", "lib64"):
        archive.symlink(name, f"usr/{name}")
        archive.directory(f"usr/{name}")
    archive.symlink("var/run", "../run")
    archive.symlink("var/lock", "../run/lock")
    archive.character_device("dev/console", 5, 1)
    archive.character_device("dev/null", 1, 3)
    for name in ("passwd", "group", "nsswitch.conf", "protocols", "services"):
        if (root / "etc" / name).is_file():
            archive.copy(root / "etc" / name, f"etc/{name}")
    archive.file("etc/mtab", b"")
    archive.copy(root / "usr/bin/busybox", "usr/bin/busybox")
    for applet in ("awk", "vi", "less", "nc", "which", "xxd", "hexdump", "tar", "gzip"):
        archive.symlink(f"usr/bin/{applet}", "busybox")
    archive.symlink("usr/bin/sh", "bash")


def base_images(root: Path, kernel: Kernel, quick: bool = False) -> Path:
    """Directory with `base.cpio` and `bench.cpio` for `kernel`."""

    def make(directory: Path) -> None:
        with open(directory / "base.cpio", "wb") as out:
            archive = Archive(out)
            _pack_skeleton(archive, root)
            _pack_programs(archive, root, BASE_PACKAGES)
            _pack_modules(archive, root, kernel, directory / "work")
            archive.close()
        with open(directory / "bench.cpio", "wb") as out:
            archive = Archive(out)
            _pack_programs(archive, root, BENCH_PACKAGES)
            archive.close()

    recipe = Path(__file__).read_text() + (Path(__file__).parent / "cpio.py").read_text()
    return ensure("guest", key_of(kernel.key, root_key(), recipe), "the guests' base image", make,
                  needed_mib=768, quick=quick)


def system_image(root: Path, quick: bool = False) -> Path:
    """`system.cpio`: udev and resource agents, to be appended to the base image."""

    def make(directory: Path) -> None:
        require_network()
        apt(root, f"apt-get -q update >&2; apt-get -q download {' '.join(SYSTEM_PACKAGES)}",
            directory)
        tree = directory / "tree"
        unpack(directory, tree)
        with open(directory / "system.cpio", "wb") as out:
            archive = Archive(out)
            found = [path for pattern in _SYSTEM_FILES for path in sorted(tree.glob(pattern))]
            for path in found:
                name = str(path.relative_to(tree))
                if path.is_symlink():
                    archive.symlink(name, os.readlink(path))
                else:
                    archive.copy(path, name)
            for path in sorted((root / _AGENTS).iterdir()):
                archive.copy(path, f"{_AGENTS}/{path.name}")
            [shared] = {path.parent.relative_to(directory) for path in found
                        if path.suffix == ".so"}
            needed = _libraries(root, ["/ground/output/tree/usr/bin/udevadm"],
                                f"/ground/output/{shared}", binds={"/ground/output": directory})
            for library in sorted(map(_usr_merged, needed)):
                if not library.startswith("/ground/"):
                    archive.copy((root / library.lstrip("/")).resolve(), library)
            archive.close()
        shutil.rmtree(tree)

    recipe = Path(__file__).read_text() + (Path(__file__).parent / "cpio.py").read_text()
    return ensure("system", key_of(root_key(), recipe), "udev and resource agents for guests", make,
                  needed_mib=64, quick=quick) / "system.cpio"


def lane_modules(root: Path, kernel: Kernel, lane: str, quick: bool = False) -> Path:
    """`modules.cpio`: the modules of a lane's kernel, to be appended to the base image."""
    built = lane_kernel(lane, kernel, quick=quick)

    def make(directory: Path) -> None:
        work = directory / "work"
        modules = work / "lib/modules" / built.release
        for path in built.tree.rglob("*.ko"):
            target = modules / "kernel" / path.relative_to(built.tree)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        for index in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            shutil.copy(built.tree / index, modules)
        _depmod(root, built.release, work)
        with open(directory / "modules.cpio", "wb") as out:
            archive = Archive(out)
            for path in sorted(modules.rglob("*")):
                if path.is_file():
                    archive.copy(path,
                                 f"usr/lib/modules/{built.release}/{path.relative_to(modules)}")
            archive.close()
        shutil.rmtree(work)

    return ensure("lanemodules", key_of(built.tree.name, "1"), f"modules of the lane {lane}", make,
                  needed_mib=64, quick=quick) / "modules.cpio"


def guest_program(root: Path, name: str) -> Path:
    """A program of the test runner, tests/vm/guest/NAME.rs, built in the build root.

    `agent` runs commands in a guest; `relay` is the wire of User Mode Linux guests.
    """
    source = Path(__file__).resolve().parents[2] / f"tests/vm/guest/{name}.rs"

    def make(directory: Path) -> None:
        result = run_in_root(
            root, ["rustc", "--edition=2021", "-O", "-Cstrip=symbols", "-Dwarnings",
                   *(["-Ctarget-feature=+crt-static"] if name == "relay" else []),
                   "-o", f"/ground/output/{name}", f"/ground/checkout/{name}.rs"],
            binds={"/ground/checkout": source.parent, "/ground/output": directory}, capture=True,
        )
        if result.returncode:
            raise GroundError(f"tests/vm/guest/{name}.rs does not compile:\n{result.stdout}")

    return ensure(name, key_of(root_key(), source.read_text()), f"the guests' {name}", make,
                  needed_mib=16) / name
