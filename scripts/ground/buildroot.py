# SPDX-License-Identifier: GPL-2.0
"""The build root: a Debian trixie tree with the compilers the stock kernel was built with.

It also holds the stock programs that guests get. Commands run in it through a private mount
namespace, so that the host sees none of its mounts; without root rights a user namespace serves.
"""

import os
import re
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from cache import GroundError, cache_dir, ensure, key_of, lock

SUITE = "trixie"
BACKPORTS = "trixie-backports"

BUILD_PACKAGES = """
bc bindgen bison ca-certificates cargo cpio dwarves flex gcc-14 kmod libc6-dev libclang-19-dev
libelf-dev libssl-dev make perl python3 rust-clippy rust-src rustc rustfmt xz-utils zstd
""".split()

GUEST_PACKAGES = """
bash busybox-static coreutils diffutils drbd-utils e2fsprogs ethtool findutils fio grep hostname
iproute2 iputils-ping procps sed strace tcpdump util-linux
""".split()

# What the machine itself must have to build and to boot guests, and the Debian package it is in.
PROGRAMS = {
    "dpkg-deb": "dpkg", "mmdebstrap": "mmdebstrap", "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux", "unshare": "util-linux", "xz": "xz-utils",
}

# What the debug lane needs besides; a root of its own, since all that others make hangs on theirs.
CLANG_PACKAGES = ["clang-19", "lld-19", "llvm-19"]

# Paths that apt or a build may change; everything else must stay as it was made.
VOLATILE = ("var", "tmp", "run", "root", "dev", "proc", "ground", "etc")


def mirror() -> str:
    """The Debian mirror: DRBD_MIRROR, else the one in the host's apt sources, else the default."""
    chosen = os.environ.get("DRBD_MIRROR")
    if chosen:
        return chosen.rstrip("/")
    sources = [Path("/etc/apt/sources.list")]
    directory = Path("/etc/apt/sources.list.d")
    if directory.is_dir():
        sources += sorted(directory.iterdir())
    for source in sources:
        if not source.is_file():
            continue
        for address in re.findall(r"^[^#\n]*?(https?://\S+/debian)/?\s", source.read_text(), re.M):
            return address
    return "http://deb.debian.org/debian"


def require_network() -> None:
    """Fail with one line when the mirror does not answer."""
    address = f"{mirror()}/dists/{BACKPORTS}/InRelease"
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            answer.read(1)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise GroundError(
            f"no network: {address} cannot be read ({reason}); connect this machine, or set "
            "DRBD_MIRROR to a Debian mirror it can reach"
        ) from error


def require_programs() -> None:
    """Every program that any step needs must be there before the first step begins."""
    programs = dict(PROGRAMS)
    if os.geteuid() != 0:
        programs["newuidmap"] = "uidmap"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({package for name, package in programs.items()
                      if not shutil.which(name, path=path)})
    if missing:
        raise GroundError(
            f"missing programs; run: {'' if os.geteuid() == 0 else 'sudo '}apt-get install -y "
            f"--no-install-recommends {' '.join(missing)}"
        )


def root_key() -> str:
    return key_of(SUITE, " ".join(BUILD_PACKAGES), " ".join(GUEST_PACKAGES), "2")


def clang_root_key() -> str:
    return key_of(SUITE, " ".join(BUILD_PACKAGES), " ".join(CLANG_PACKAGES), "1")


def _make(directory: Path, packages: list[str]) -> None:
    require_programs()
    require_network()
    lines = [
        f"deb {mirror()} {SUITE} main",
        f"deb {mirror()} {SUITE}-updates main",
        f"deb {mirror()} {BACKPORTS} main",
    ]
    command = [
        "mmdebstrap", "--quiet", "--variant=minbase",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        "--aptopt=Acquire::Retries 3",
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--customize-hook=mkdir -p \"$1/ground/source\" \"$1/ground/objtree\" "
        "\"$1/ground/checkout\" \"$1/ground/output\"",
        f"--include={','.join(packages)}",
        SUITE, str(directory), *lines,
    ]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if result.returncode:
        tail = (result.stderr.strip().splitlines() or ["no message"])[-1]
        if os.geteuid() != 0 and ("newuidmap" in result.stderr or "subuid" in result.stderr):
            tail += "; run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " \
                f"{os.environ.get('USER', '$USER')}"
        raise GroundError(f"the build root cannot be made: {tail}")


def build_root(quick: bool = False) -> Path:
    """The build root, made if needed (about 90 s and 1.7 GB)."""
    return ensure(
        "root", root_key(), f"Debian {SUITE} with rustc, bindgen, gcc and the guests' programs "
        f"from {mirror()}", lambda directory: _make(directory, BUILD_PACKAGES + GUEST_PACKAGES),
        needed_mib=4096, volatile=VOLATILE, quick=quick,
    )


def clang_root(quick: bool = False) -> Path:
    """The root of the debug lane; KASAN with Rust needs clang, which nothing else does."""
    return ensure(
        "clangroot", clang_root_key(), f"Debian {SUITE} with rustc, bindgen and clang "
        f"from {mirror()}", lambda directory: _make(directory, BUILD_PACKAGES + CLANG_PACKAGES),
        needed_mib=4096, volatile=VOLATILE, quick=quick,
    )


def run_in_root(root: Path, command: list[str], *, binds: dict[str, Path] | None = None,
                workdir: str = "/", environment: dict[str, str] | None = None,
                capture: bool = False) -> subprocess.CompletedProcess:
    """Run `command` in the build root with `binds` (mount point to directory) mounted."""
    script = ["set -e"]
    for point, source in {"/proc": "/proc", "/dev": "/dev", "/sys": "/sys"}.items():
        script.append(f"mount --rbind {source} {shlex.quote(str(root))}{point}")
    for point, source in (binds or {}).items():
        if Path(source).is_dir():
            script.append(f"mkdir -p {shlex.quote(str(root))}{point}")
        else:
            script.append(f"test -e {shlex.quote(str(root))}{point} || "
                          f": > {shlex.quote(str(root))}{point}")
        script.append(f"mount --bind {shlex.quote(str(source))} {shlex.quote(str(root))}{point}")
    variables = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root",
        "PYTHONDONTWRITEBYTECODE": "1", **(environment or {}),
    }
    script.append(
        f"exec chroot {shlex.quote(str(root))} /usr/bin/env -i --chdir={shlex.quote(workdir)} "
        + " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        + " " + shlex.join(command)
    )
    unshare = ["unshare", "--mount"]
    if os.geteuid() != 0:
        unshare += ["--map-root-user", "--map-auto"]
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return subprocess.run(
        [*unshare, "sh", "-c", "\n".join(script)], env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE if capture else None, stderr=subprocess.STDOUT if capture else None,
        text=True,
    )


def apt(root: Path, script: str, downloads: Path) -> str:
    """Run a shell script with apt in the build root; `downloads` is its working directory."""
    with lock("apt"):
        result = run_in_root(
            root, ["sh", "-ec", script], capture=True, binds={
                "/ground/output": downloads, "/etc/resolv.conf": Path("/etc/resolv.conf"),
            }, workdir="/ground/output",
        )
    if result.returncode:
        tail = (result.stdout.strip().splitlines() or ["no message"])[-1]
        raise GroundError(f"apt in the build root failed: {tail}; check the network and "
                          f"the mirror {mirror()}")
    return result.stdout


def unpack(directory: Path, into: Path) -> None:
    """Unpack the packages in `directory`, which are gone then."""
    for package in sorted(directory.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(into)], check=True)
        package.unlink()


def network_and_cargo() -> tuple[dict[str, Path], dict[str, str]]:
    """Binds and variables with which cargo in the build root uses the user's registry cache.

    Not the whole of CARGO_HOME: cargo would prefer the programs in its bin/ to its own.
    """
    home = Path(os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo"))
    registry = home / "registry" if home.is_dir() else cache_dir() / "cargo-registry"
    registry.mkdir(parents=True, exist_ok=True)
    binds = {"/ground/cargo/registry": registry, "/etc/resolv.conf": Path("/etc/resolv.conf")}
    for name in ("config.toml", "config"):
        if (home / name).is_file():
            binds[f"/ground/cargo/{name}"] = home / name
    passed = {name: value for name, value in os.environ.items()
              if name.startswith("CARGO_") or name.lower().endswith("_proxy")}
    passed["CARGO_HOME"] = "/ground/cargo"
    authorities = os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt"
    if Path(authorities).is_file():
        # A machine behind a proxy of its own trusts more than Debian does.
        binds["/ground/authorities.crt"] = Path(authorities)
        passed["CARGO_HTTP_CAINFO"] = "/ground/authorities.crt"
    return binds, passed


def downloads_dir() -> Path:
    directory = cache_dir() / "downloads"
    directory.mkdir(parents=True, exist_ok=True)
    return directory
