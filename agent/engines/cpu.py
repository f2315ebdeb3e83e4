"""Whether this CPU can run llama.cpp as it was built.

The portable x86-64 build uses AVX2, FMA, F16C and BMI2 without asking the CPU first: on an older one it dies with
SIGILL, perhaps already while the library is opened. So the flags are compared before anything native is imported. Where
the CPU lacks one of them, the build may still be one made for it: a process of its own, which may die, is asked.
On aarch64 the compiler's defaults run everywhere that the wheel does.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from agent.errors import UnfitBuild

PORTABLE_X86 = frozenset({"avx2", "fma", "f16c", "bmi2"})
_CPUINFO = Path("/proc/cpuinfo")
_PROBE = "from llama_cpp import llama_cpp as lib; print(lib.llama_print_system_info().decode())"
_PROBE_S = 30.0


def required_flags(machine: str) -> frozenset[str]:
    """What the portable build needs on ``machine`` (as ``platform.machine()`` names it)."""
    return PORTABLE_X86 if machine.lower() in {"x86_64", "amd64"} else frozenset()


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The flags that every core in the text of /proc/cpuinfo has."""
    cores = [
        set(value.split())
        for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())
        if key.strip() in {"flags", "Features"}
    ]
    return frozenset(set.intersection(*cores)) if cores else frozenset()


def built_flags(system_info: str) -> frozenset[str]:
    """Which of the portable build's flags a build uses, from what llama.cpp says of itself (``AVX2 = 1 | ...``)."""
    return frozenset(name.lower() for name in re.findall(r"(\w+) = 1", system_info)) & PORTABLE_X86


def check_flags(required: Collection[str], present: Collection[str]) -> None:
    """Raises UnfitBuild that names what is missing."""
    if missing := sorted(set(required) - set(present)):
        raise UnfitBuild(
            f"this CPU lacks {', '.join(missing)}, which llama.cpp was built with",
            remedy="Rebuild it on this machine: CMAKE_ARGS='-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF' "
            "pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python==0.3.36",
        )


def check_cpu() -> None:
    """Check this machine against the installed build; silent where the system does not tell its flags.

    Call it before llama.cpp is imported. Raises UnfitBuild.
    """
    try:
        present = cpu_flags(_CPUINFO.read_text())
    except OSError:
        return
    required = required_flags(platform.machine())
    if not present or required <= present:
        return
    built = ask_build()
    check_flags(required if built is None else built, present)


def ask_build() -> frozenset[str] | None:
    """The flags that the installed llama.cpp was built with; None where it cannot even say that."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return built_flags(probe.stdout)
