# SPDX-License-Identifier: GPL-2.0
"""Lanes: the kernels that guests run and that our module is built for.

`stock` is Debian's kernel, the one where a result counts. `um` is User Mode Linux, fast. `debug`
watches itself: KASAN, lock proving, kmemleak, object debugging; `umdebug` does so at native speed.
All but the first are built here from the stock kernel's source.
"""

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from buildroot import build_root, clang_root, root_key, clang_root_key, run_in_root
from cache import GroundError, cache_dir, ensure, key_of
from kernel import (
    OBJTREE,
    SOURCE,
    Kernel,
    kernel_files,
    kernel_source,
    make_variables,
    object_tree,
)

LANES = ("stock", "um", "umbench", "debug", "umdebug")
# Lanes on User Mode Linux, and lanes whose kernel watches itself.
UML_LANES = ("um", "umbench", "umdebug")
DEBUG_LANES = ("debug", "umdebug")

# On top of ARCH=um's defconfig: what the guests and the C driver need.
_UML_OPTIONS = """
MODULES=y MODULE_UNLOAD=y RUST=y{processors} PREEMPT_VOLUNTARY=y HIGH_RES_TIMERS=y
NO_HZ_IDLE=y MULTIUSER=y FUTEX=y EPOLL=y AIO=y IO_URING=y BINFMT_SCRIPT=y BLK_DEV_INITRD=y
RD_GZIP=y TMPFS=y DEVTMPFS=y PROC_FS=y SYSFS=y DEBUG_FS=y HOSTFS=y
BLOCK=y MSDOS_PARTITION=y BLK_DEV_UBD=y EXT4_FS=y EXT4_USE_FOR_EXT2=y BLK_DEV_DRBD=m
BLK_DEV_RAM=m BLK_DEV_LOOP=m BLK_DEV_NULL_BLK=m MD=y BLK_DEV_DM=m DM_FLAKEY=m DM_DELAY=m
DM_DUST=m DM_LOG_WRITES=m
NET=y INET=y IPV6=y UNIX=y PACKET=y UML_NET_VECTOR=y NET_SCHED=y NET_SCH_NETEM=m NET_SCH_TBF=m
CONNECTOR=y CRYPTO=y CRYPTO_HASH=y CRYPTO_HMAC=y CRYPTO_SHA256=y CRYPTO_SHA1=y CRYPTO_MD5=y
CRYPTO_CRC32C=y DETECT_HUNG_TASK=y DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=n DEBUG_INFO_NONE=y
GCC_PLUGINS=n IOSCHED_BFQ=n BLK_DEV_NBD=n TUN=n PPP=n SLIP=n DUMMY=n IPV6_SIT=n ISO9660_FS=n
AUTOFS_FS=n QUOTA=n WLAN=n BINFMT_MISC=n
"""
UML_CONFIG = _UML_OPTIONS.format(processors=" SMP=y NR_CPUS=4")
# With SMP each time that interrupts go off or on is a system call of the host: several for each
# lock that is watched.
UML_CONFIG_ALONE = _UML_OPTIONS.format(processors="")

# Everything that watches.
WATCHING = """
DEBUG_KERNEL=y DEBUG_INFO_NONE=y KASAN=y KASAN_GENERIC=y KASAN_VMALLOC=y PROVE_LOCKING=y
DEBUG_ATOMIC_SLEEP=y PROVE_RCU=y DEBUG_KMEMLEAK=y FAULT_INJECTION=y FAILSLAB=y
FAIL_PAGE_ALLOC=y FAIL_MAKE_REQUEST=y FAULT_INJECTION_DEBUG_FS=y DEBUG_LIST=y DEBUG_OBJECTS=y
DEBUG_OBJECTS_TIMERS=y DEBUG_OBJECTS_WORK=y RUST_DEBUG_ASSERTIONS=y RUST_OVERFLOW_CHECKS=y
DETECT_HUNG_TASK=y SLUB_DEBUG=y SLUB_DEBUG_ON=y STACKTRACE=y SCHED_STACK_END_CHECK=y DEBUG_VM=y
BUG_ON_DATA_CORRUPTION=y
"""

# On top of allnoconfig: a machine that QEMU emulates, what the guests and the C driver need.
DEBUG_CONFIG = """
64BIT=y SMP=y PCI=y PCI_MSI=y ACPI=y X86_X2APIC=y HYPERVISOR_GUEST=y PARAVIRT=y KVM_GUEST=y
PRINTK=y TTY=y SERIAL_8250=y SERIAL_8250_CONSOLE=y VIRTIO_MENU=y VIRTIO=y VIRTIO_PCI=y
VIRTIO_BLK=y VIRTIO_NET=y VIRTIO_CONSOLE=y HW_RANDOM=y HW_RANDOM_VIRTIO=y
BLK_DEV=y BLOCK=y BLK_DEV_INITRD=y RD_GZIP=y BINFMT_ELF=y BINFMT_SCRIPT=y DEVTMPFS=y TMPFS=y
PROC_FS=y SYSFS=y SYSCTL=y DEBUG_FS=y NET=y INET=y IPV6=y UNIX=y PACKET=y
NETDEVICES=y NET_CORE=y EXT4_FS=y EXT4_USE_FOR_EXT2=y MODULES=y MODULE_UNLOAD=y RUST=y
CONNECTOR=y BLK_DEV_DRBD=m BLK_DEV_NULL_BLK=m BLK_DEV_LOOP=y BLK_DEV_RAM=m MD=y BLK_DEV_DM=y
DM_FLAKEY=y DM_DELAY=y DM_LOG_WRITES=y DM_DUST=y
CRYPTO=y CRYPTO_HMAC=y CRYPTO_SHA256=y CRYPTO_SHA1=y CRYPTO_MD5=y CRYPTO_CRC32C=y
FUTEX=y EPOLL=y EVENTFD=y SIGNALFD=y TIMERFD=y AIO=y IO_URING=y SHMEM=y MULTIUSER=y
POSIX_TIMERS=y HIGH_RES_TIMERS=y NO_HZ_IDLE=y FILE_LOCKING=y ADVISE_SYSCALLS=y MEMBARRIER=y
KALLSYMS=y BUG=y MAGIC_SYSRQ=y NET_SCHED=y NET_SCH_NETEM=y NET_SCH_TBF=y UEVENT_HELPER=y
INOTIFY_USER=y FSNOTIFY=y UNWINDER_FRAME_POINTER=y FRAME_POINTER=y PREEMPT_LAZY=n PREEMPT=y\
""" + WATCHING

# What is measured is compiled as the stock kernel is.
UML_BENCH_CONFIG = UML_CONFIG_ALONE + "CC_OPTIMIZE_FOR_SIZE=n CC_OPTIMIZE_FOR_PERFORMANCE=y"

# What of the source is in the way of watching: files, and what is replaced in them by what.
UML_DEBUG_MENDED = {
    # clang puts what is zero at first into .lbss, of which this knows nothing: it comes behind the
    # end of the kernel, where lockdep takes no key of a lock for static and switches itself off,
    # and kmemleak does not look for pointers.
    "arch/um/kernel/dyn.lds.S": {
        "   *(.bss .bss.* .gnu.linkonce.b.*)": "   *(.bss .bss.* .gnu.linkonce.b.* .lbss .lbss.*)",
    },
    # The network card takes these locks in soft interrupts as well, as lockdep says.
    "arch/um/drivers/vector_kern.c": {
        f"{call}(&vp->{queue}_queue->head_lock);{next_line}":
            f"{call}_bh(&vp->{queue}_queue->head_lock);{next_line}"
        for call, queue, next_line in (
            ("spin_lock", "rx", "\n\tvp->estats.rx_queue_max"),
            ("spin_unlock", "rx", "\n\n\t/* TX stats"),
            ("spin_lock", "tx", "\n\tvp->estats.tx_timeout_count"),
            ("spin_unlock", "tx", "\n}\n\nstatic int get_mtu"),
        )
    },
}

# With KASAN a stack of x86-64 is twice as large, and interrupts have their own. Here they come on
# top of the task, and who overruns the stack of 16 KiB faults on the page behind it for ever.
UML_DEBUG_CONFIG = UML_CONFIG_ALONE + WATCHING + "KERNEL_STACK_ORDER=3 DEBUG_STACK_USAGE=y"


@dataclass(frozen=True)
class Built:
    """A kernel that is ready: what boots, its release, where its modules and object tree are."""

    image: Path
    release: str
    tree: Path


@contextmanager
def _mended_files(source: Path, name: str):
    """Files of the source that a lane has otherwise, as binds."""
    files = UML_DEBUG_MENDED if name == "umdebug" else {}
    with tempfile.TemporaryDirectory() as directory:
        binds = {}
        for file, replaced in files.items():
            text = (source / file).read_text()
            for usual, mended in replaced.items():
                if text.count(usual) != 1:
                    raise GroundError(f"{file} is not as expected; mend lane.py")
                text = text.replace(usual, mended)
            binds[f"{SOURCE}/{file}"] = Path(directory) / Path(file).name
            binds[f"{SOURCE}/{file}"].write_text(text)
        yield binds


def _make_in_tree(root: Path, source: Path, directory: Path, name: str,
                  arguments: list[str]) -> None:
    """Run make for the object tree `directory`; its output goes to `name`.log in the cache."""
    log = cache_dir() / f"{name}.log"
    with _mended_files(source, name) as mended:
        result = run_in_root(
            root,
            ["make", "-s", f"-j{os.cpu_count() or 2}", "-C", SOURCE, f"O={OBJTREE}", *arguments],
            binds={SOURCE: source, OBJTREE: directory, **mended}, capture=True,
        )
    log.write_text(result.stdout)
    if result.returncode:
        tail = (result.stdout.strip().splitlines() or ["no message"])[-1]
        raise GroundError(f"building the kernel {name} failed: {tail} (all of it: {log})")


def _configure(root: Path, source: Path, directory: Path, options: str) -> None:
    """Change `.config` in an object tree: pairs NAME=VALUE."""
    arguments = []
    for option in options.split():
        name, value = option.split("=")
        flag = {"y": "--enable", "m": "--module", "n": "--disable"}.get(value)
        arguments += [flag, name] if flag else ["--set-val", name, value]
    result = run_in_root(
        root, ["bash", f"{SOURCE}/scripts/config", "--file", f"{OBJTREE}/.config", *arguments],
        binds={SOURCE: source, OBJTREE: directory}, capture=True)
    if result.returncode:
        raise GroundError(f"scripts/config of the kernel fails: {result.stdout.strip()}")


def _require_options(directory: Path, options: str, name: str) -> None:
    """A misspelt or withdrawn option would leave a lane blind, and nobody would see it."""
    config = set((directory / ".config").read_text().splitlines())
    lost = [option for option in options.split()
            if not option.endswith("=n") and f"CONFIG_{option}" not in config]
    if lost:
        raise GroundError(f"the kernel {name} does not take {' '.join(lost)}; mend lane.py")


def _release(tree: Path) -> str:
    return (tree / "include/config/kernel.release").read_text().strip()


def _built_tree(root: Path, kernel: Kernel, name: str, key: str, what: str, base: str,
                options: str, targets: list[str], quick: bool, needed_mib: int) -> Path:
    def make(directory: Path) -> None:
        source = kernel_source(root, kernel)
        variables = variables_for(name, kernel)
        _make_in_tree(root, source, directory, name, [*variables, base])
        _configure(root, source, directory, options)
        _make_in_tree(root, source, directory, name, [*variables, "olddefconfig"])
        _require_options(directory, options, name)
        _make_in_tree(root, source, directory, name, [*variables, *targets])

    return ensure({"um": "uml"}.get(name, name), key, what, make, needed_mib=needed_mib,
                  quick=quick)


def _uml_program(tree: Path, quick: bool) -> Path:
    """`linux` with a loader of its own, ./ld.so: the host's C library may be too old for it.

    Starting it by the loader would not do: it needs the heap to begin where its image ends.
    """
    usual, own = b"/lib64/ld-linux-x86-64.so.2\0", b"./ld.so\0"

    def make(directory: Path) -> None:
        program = (tree / "linux").read_bytes()
        if program.count(usual) != 1:
            raise GroundError("User Mode Linux does not name its loader as usual; mend lane.py")
        target = directory / "linux"
        target.write_bytes(program.replace(usual, own.ljust(len(usual), b"\0")))
        target.chmod(0o755)

    return ensure("umlinux", key_of(tree.name, "1"), "User Mode Linux with its own loader", make,
                  needed_mib=64, quick=quick) / "linux"


def loader(root: Path) -> tuple[Path, Path]:
    """The dynamic loader of a build root and the directory of its libraries."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    return libraries / "ld-linux-x86-64.so.2", libraries


def lane_root(lane: str, quick: bool = False) -> Path:
    """The build root with the compilers of a lane."""
    return clang_root(quick) if lane in DEBUG_LANES else build_root(quick)


def variables_for(lane: str, kernel: Kernel) -> list[str]:
    """What every `make` in a lane's object tree is told."""
    if lane in ("um", "umbench"):
        return ["ARCH=um", "CC=gcc-14", "HOSTCC=gcc-14"]
    if lane == "debug":
        return ["LLVM=-19"]
    if lane == "umdebug":
        # What runs in the guest's programs cannot call KASAN.
        return ["ARCH=um", "LLVM=-19", "KASAN_SANITIZE_stub.o=n", "KASAN_SANITIZE_stub_exe.o=n"]
    return make_variables(kernel)


def module_variables(lane: str) -> list[str]:
    """What the build of a module is told beyond that."""
    if lane in UML_LANES:
        # It must reach the kernel as position independent code would.
        return ["KRUSTFLAGS=-Zplt=yes -Zdirect-access-external-data=yes"]
    return []


def lane_kernel(lane: str, kernel: Kernel, quick: bool = False) -> Built:
    """The kernel of a lane, made if needed."""
    root = lane_root(lane, quick)
    if lane in ("um", "umbench"):
        config = UML_CONFIG if lane == "um" else UML_BENCH_CONFIG
        tree = _built_tree(
            root, kernel, lane, key_of(kernel.version, root_key(), config, "2"),
            "User Mode Linux, for the fast lane (about 10 minutes on two cores)",
            "defconfig", config, ["linux", "modules"], quick, 2048)
        return Built(_uml_program(tree, quick), _release(tree), tree)
    if lane == "debug":
        tree = _built_tree(
            root, kernel, lane, key_of(kernel.version, clang_root_key(), DEBUG_CONFIG, "1"),
            "a kernel that watches itself (about 17 minutes on two cores)",
            "allnoconfig", DEBUG_CONFIG, ["bzImage", "modules"], quick, 3072)
        return Built(tree / "arch/x86/boot/bzImage", _release(tree), tree)
    if lane == "umdebug":
        tree = _built_tree(
            root, kernel, lane, key_of(kernel.version, clang_root_key(), UML_DEBUG_CONFIG,
                                       repr(UML_DEBUG_MENDED), "2"),
            "User Mode Linux that watches itself (about 15 minutes on two cores)",
            "defconfig", UML_DEBUG_CONFIG, ["linux", "modules"], quick, 3072)
        return Built(_uml_program(tree, quick), _release(tree), tree)
    return Built(kernel_files(root, kernel, quick) / "vmlinuz", kernel.release,
                 object_tree(root, kernel, quick))
