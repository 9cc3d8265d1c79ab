# SPDX-License-Identifier: GPL-2.0
"""The cache: directories keyed by what went into them, made whole or not at all.

An entry `NAME-KEY/` is built in a temporary directory under a lock, renamed into place and sealed
with `NAME-KEY.manifest`, so an interrupted build leaves nothing that could be mistaken for an
entry. Opening an entry compares its files' sizes with the manifest; a damaged one is thrown away
and built again. When an entry was made, those of its name that nobody has used for a week go.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


KEY_LENGTH = 12
# How long an entry is kept that another of the same name has come after.
KEEP_UNUSED_S = 7 * 24 * 3600


class GroundError(Exception):
    """What went wrong and what to do about it, in one line."""


def cache_dir() -> Path:
    """Where everything downloaded or built for the environment lives; safe to delete."""
    base = os.environ.get("DRBD_CACHE")
    if base:
        return Path(base)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "drbd-rs"


def say(text: str) -> None:
    print(f"[ground] {text}", file=sys.stderr, flush=True)


def key_of(*parts: str) -> str:
    """A short digest of everything that decides an entry's content."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_LENGTH]


@contextlib.contextmanager
def lock(name: str):
    """Hold the cache's lock `name`; another run's step is waited for, and that is said."""
    directory = cache_dir()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = open(directory / f"{name}.lock", "w")
    except OSError as error:
        raise GroundError(
            f"cannot write the cache {directory}: {error.strerror}; set DRBD_CACHE to a directory "
            "that you may write"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: waiting for another run that is making it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def require_space(needed_mib: int) -> None:
    """Fail early and clearly when the cache's disk cannot take `needed_mib` more."""
    free_mib = shutil.disk_usage(cache_dir()).free >> 20
    if free_mib < needed_mib:
        raise GroundError(
            f"disk full: {cache_dir()} has {free_mib} MiB free and this step needs {needed_mib} "
            "MiB; free some or set DRBD_CACHE to another disk"
        )


def survey(directory: Path, volatile: tuple[str, ...]) -> tuple[str, int]:
    """Digest of all file names and sizes below `directory`, and their sum in bytes."""
    digest = hashlib.sha256()
    total = 0
    pending = [""]
    while pending:
        relative = pending.pop()
        with os.scandir(directory / relative) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{relative}{entry.name}"
                if path in volatile:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                    continue
                size = entry.stat(follow_symlinks=False).st_size
                total += size
                digest.update(f"{path}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest(), total


def manifest_of(directory: Path) -> Path:
    """Beside the entry, not in it: a build root made in a user namespace has another owner."""
    return directory.with_name(f"{directory.name}.manifest")


def remove(directory: Path) -> None:
    """Delete an entry, also one that belongs to a user namespace's other users."""
    manifest_of(directory).unlink(missing_ok=True)
    if not directory.exists():
        return
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists() and os.geteuid() != 0:
        subprocess.run(
            ["unshare", "--map-root-user", "--map-auto", "rm", "-rf", str(directory)], check=False
        )
    if directory.exists():
        raise GroundError(f"cannot delete {directory}; delete it and run again")


def find(name: str, key: str, volatile: tuple[str, ...] = (), quick: bool = False) -> Path | None:
    """The entry if it is there and whole. `quick` trusts the manifest's presence."""
    directory = cache_dir() / f"{name}-{key}"
    try:
        manifest = json.loads(manifest_of(directory).read_text())
    except (OSError, ValueError):
        return None
    if quick and directory.is_dir():
        return _used(directory)
    try:
        digest, _ = survey(directory, volatile)
    except OSError:
        return None
    return _used(directory) if digest == manifest["digest"] else None


def _used(directory: Path) -> Path:
    """Notes that the entry is in use; a cache that others own keeps no note."""
    with contextlib.suppress(OSError):
        os.utime(manifest_of(directory))
    return directory


def _drop_unused(name: str) -> None:
    """Removes what nobody has used for long. The caller holds the lock of `name`."""
    for manifest in cache_dir().glob(f"{name}-{'[0-9a-f]' * KEY_LENGTH}.manifest"):
        if time.time() - manifest.stat().st_mtime > KEEP_UNUSED_S:
            say(f"{name}: removing {manifest.stem}, not used for a week")
            with contextlib.suppress(GroundError):
                remove(manifest.with_suffix(""))


def ensure(name: str, key: str, what: str, build, *, needed_mib: int,
           volatile: tuple[str, ...] = (), quick: bool = False) -> Path:
    """The entry `name-key`, built by `build(directory)` if it is missing or damaged.

    `volatile` names paths that use of the entry changes; they are not part of its manifest.
    """
    found = find(name, key, volatile, quick)
    if found:
        return found
    with lock(name):
        found = find(name, key, volatile)
        if found:
            return found
        final = cache_dir() / f"{name}-{key}"
        if final.exists():
            say(f"{name}: {final.name} is damaged or incomplete, making it again")
            remove(final)
        for leftover in cache_dir().glob(f"tmp-{name}-*"):
            say(f"{name}: removing {leftover.name} of an interrupted run")
            remove(leftover) if leftover.is_dir() else leftover.unlink()
        require_space(needed_mib)
        say(f"{name}: {what}")
        started = time.monotonic()
        temporary = cache_dir() / f"tmp-{name}-{key}"
        temporary.mkdir()
        try:
            build(temporary)
            digest, total = survey(temporary, volatile)
        except BaseException:
            with contextlib.suppress(GroundError):
                remove(temporary)
            raise
        temporary.rename(final)
        partial = cache_dir() / f"tmp-{name}-manifest"
        partial.write_text(json.dumps({"digest": digest, "bytes": total}))
        partial.replace(manifest_of(final))
        _drop_unused(name)
        say(f"{name}: done in {time.monotonic() - started:.0f} s, weighs {total >> 20} MiB")
        return final
