"""The C++ core's own programs under AddressSanitizer and UndefinedBehaviorSanitizer.

They are kept in `build/sanitized`, so only what has changed is compiled again. `make test-core` runs the same programs
as the core is shipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "sanitized"
PROGRAMS = sorted(path.stem for kind in ("test", "fuzz") for path in (ROOT / "csrc" / "tests").glob(f"{kind}_*.cpp"))
SEED, SHORT = "1", "16"
"""What a `fuzz_` program starts from and of how many cases, where its own number would take half a minute."""

# What each must report. They also prove that the others would fail.
BROKEN = {
    "broken_read": "AddressSanitizer: heap-buffer-overflow",
    "broken_sum": "runtime error: signed integer overflow",
}
INSTRUCTION_SETS = ("avx2", "avx512")

OPTIONS = (
    "-DOFFRAMP_TESTS=ON",
    "-DOFFRAMP_PYTHON=OFF",
    "-DOFFRAMP_SANITIZE=address,undefined",
    "-DCMAKE_BUILD_TYPE=Debug",
    "-DCMAKE_CXX_FLAGS_DEBUG=-O1",
)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False
    )


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder with the programs, built from the sources as they are now."""
    # The test environment's CMake before another.
    cmake = shutil.which("cmake", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    assert cmake, "CMake is missing; `make install` installs it"
    cache = BUILD / "CMakeCache.txt"
    if cache.is_file() and f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n" not in cache.read_text(encoding="utf-8"):
        shutil.rmtree(BUILD)  # copied from another place
    for step in (
        ("-S", str(ROOT), "-B", str(BUILD), *OPTIONS),
        ("--build", str(BUILD), "--parallel", str(os.cpu_count())),
    ):
        done = run(cmake, *step)
        if done.returncode:
            pytest.fail(f"CMake failed\n{done.stdout[-10_000:]}", pytrace=False)
    return BUILD


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_runs_clean(programs: Path, name: str) -> None:
    done = run(programs / name, *((SEED, SHORT) if name.startswith("fuzz_") else ()))
    assert done.returncode == 0, done.stdout[-10_000:]


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.startswith("fuzz_")])
def test_all_cases_of_a_fuzz_program_run_clean(programs: Path, name: str) -> None:
    done = run(programs / name)
    assert done.returncode == 0, done.stdout[-10_000:]


@pytest.mark.parametrize("name", BROKEN)
def test_a_sanitizer_stops_what_is_broken(programs: Path, name: str) -> None:
    done = run(programs / name)
    assert done.returncode != 0
    assert BROKEN[name] in done.stdout


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_code_for_one_instruction_set_is_private_to_its_file(programs: Path, name: str) -> None:
    """The linker keeps one of several functions of the same name: were it this file's, it would trap elsewhere."""
    done = run("nm", "-C", "--defined-only", "--extern-only", next(programs.rglob(f"{name}.cpp.o")))
    assert done.returncode == 0, done.stdout
    assert re.findall(r"^[0-9a-f]+ [TWui] (.*)$", done.stdout, re.MULTILINE) == []
