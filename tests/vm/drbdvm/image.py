# SPDX-License-Identifier: GPL-2.0
"""What a guest boots: the cached base image plus a small archive of what a test adds to it."""

import os
import shutil
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "scripts" / "ground"))

from buildroot import build_root  # noqa: E402
from cache import GroundError  # noqa: E402
from cpio import Archive  # noqa: E402
from guestimage import base_images, guest_program, lane_modules, system_image  # noqa: E402
from kernel import Kernel, resolve  # noqa: E402
from lane import DEBUG_LANES, LANES, UML_LANES, lane_kernel, loader  # noqa: E402

PROGRAMS = ("drbdadm", "drbdsetup", "drbdmeta")


class Ground:
    """The prepared environment, looked up once a run and lane.

    Lanes: "stock" is Debian's kernel under QEMU, "um" is User Mode Linux, "umbench" the
    same for one processor; "debug" and "umdebug" are the first two with a kernel that watches
    itself.
    """

    _known: dict[str, "Ground"] = {}

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.root = build_root(quick=True)
        self.kernel: Kernel = resolve(self.root)
        self.images = base_images(self.root, self.kernel, quick=True)
        self.archives = [self.images / "base.cpio"]
        self.agent = guest_program(self.root, "agent")
        built = lane_kernel(lane, self.kernel, quick=True)
        self.vmlinuz, self.release = built.image, built.release
        if lane != "stock":
            self.archives.append(lane_modules(self.root, self.kernel, lane, quick=True))
        if lane in UML_LANES:
            self.relay = guest_program(self.root, "relay")
            self.loader, self.libraries = loader(self.root)

    @classmethod
    def get(cls, lane: str = "stock") -> "Ground":
        if lane not in cls._known:
            cls._known[lane] = cls(lane)
        return cls._known[lane]

    @classmethod
    def of_lane(cls) -> "Ground":
        """What guests run unless a test says otherwise; DRBD_LANE= chooses it."""
        return cls.get(os.environ.get("DRBD_LANE") or "stock")

    def keys(self) -> tuple[str, ...]:
        """What the answers of a guest depend on besides its programs."""
        return self.lane, self.kernel.key

    def our_module(self) -> Path:
        suffix = "" if self.lane == "stock" else f"-{self.lane}"
        path = CHECKOUT / "build" / f"drbd{suffix}.ko"
        if not path.exists():
            raise GroundError(f"build/{path.name} is missing; run: make ko{suffix}")
        return path


def write_image(target: Path, ground: Ground, *, module: str, tools: str, bench: bool,
                files: dict[str, str | bytes | Path], system: bool = False) -> None:
    """Write a guest's initramfs.

    `module`: "ours" puts our drbd.ko where modprobe prefers it, "c" leaves the kernel's own.
    `tools`: "ours" replaces the stock programs, "stock" keeps them. `bench` adds fio, `system`
    udev and resource agents. `files` maps paths in the
    guest to text, bytes or host files; a text that starts with "#!" becomes executable.
    """
    extra = [ground.images / "bench.cpio"] if bench else []
    if system:
        extra.append(system_image(ground.root, quick=True))
    with open(target, "wb") as out:
        for path in ground.archives + extra:
            with open(path, "rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
        archive = Archive(out)
        archive.copy(CHECKOUT / "tests/vm/guest/init", "init")
        archive.copy(CHECKOUT / "tests/vm/guest/fstab", "etc/fstab")
        archive.copy(ground.agent, "usr/sbin/drbd-test-agent")
        if module == "ours":
            archive.copy(ground.our_module(),
                         f"usr/lib/modules/{ground.release}/updates/drbd.ko")
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
