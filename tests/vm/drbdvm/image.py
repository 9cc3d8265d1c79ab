# SPDX-License-Identifier: GPL-2.0
"""What a guest boots: the cached base image plus a small archive of what a test adds to it."""

import shutil
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "scripts" / "ground"))

from buildroot import build_root  # noqa: E402
from cache import GroundError  # noqa: E402
from cpio import Archive  # noqa: E402
from guestimage import agent, base_images  # noqa: E402
from kernel import Kernel, kernel_files, resolve  # noqa: E402

PROGRAMS = ("drbdadm", "drbdsetup", "drbdmeta")


class Ground:
    """The prepared environment, looked up once a run."""

    _known: "Ground | None" = None

    def __init__(self) -> None:
        self.root = build_root(quick=True)
        self.kernel: Kernel = resolve(self.root)
        self.vmlinuz = kernel_files(self.root, self.kernel, quick=True) / "vmlinuz"
        self.images = base_images(self.root, self.kernel, quick=True)
        self.agent = agent(self.root)

    @classmethod
    def get(cls) -> "Ground":
        if cls._known is None:
            cls._known = cls()
        return cls._known


def _our_module() -> Path:
    path = CHECKOUT / "build" / "drbd.ko"
    if not path.exists():
        raise GroundError("build/drbd.ko is missing; run: make ko")
    return path


def write_image(target: Path, ground: Ground, *, module: str, tools: str, bench: bool,
                files: dict[str, str | bytes | Path]) -> None:
    """Write a guest's initramfs.

    `module`: "ours" puts our drbd.ko where modprobe prefers it, "c" leaves the kernel's own.
    `tools`: "ours" replaces the stock programs, "stock" keeps them. `files` maps paths in the
    guest to text, bytes or host files; a text that starts with "#!" becomes executable.
    """
    with open(target, "wb") as out:
        for name in ["base.cpio"] + (["bench.cpio"] if bench else []):
            with open(ground.images / name, "rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
        archive = Archive(out)
        archive.copy(CHECKOUT / "tests/vm/guest/init", "init")
        archive.copy(CHECKOUT / "tests/vm/guest/fstab", "etc/fstab")
        archive.copy(ground.agent, "usr/sbin/drbd-test-agent")
        if module == "ours":
            archive.copy(_our_module(),
                         f"usr/lib/modules/{ground.kernel.release}/updates/drbd.ko")
        elif module != "c":
            raise ValueError(f"module is {module!r}, must be 'ours' or 'c'")
        if tools == "ours":
            for program in PROGRAMS:
                source = CHECKOUT / "build/bin" / program
                if not source.exists():
                    raise GroundError(f"build/bin/{program} is missing; run: make tools")
                archive.file(f"usr/sbin/{program}", source.read_bytes(), 0o755)
            archive.file("etc/init.d/drbd", (CHECKOUT / "tools/init/drbd").read_bytes(), 0o755)
        elif tools != "stock":
            raise ValueError(f"tools is {tools!r}, must be 'ours' or 'stock'")
        for path, content in files.items():
            if isinstance(content, Path):
                archive.copy(content, path)
                continue
            data = content.encode() if isinstance(content, str) else content
            archive.file(path, data, 0o755 if data.startswith(b"#!") else 0o644)
        archive.close()
