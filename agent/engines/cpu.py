"""Whether this CPU can run the native libraries as they were built.

llama.cpp's portable x86-64 build uses AVX2, FMA, F16C and BMI2 without asking the CPU first: on an older one it dies
with SIGILL, and only opening the library could tell what it was built with. So an engine compares the flags before it
imports anything native. On aarch64 the compiler's defaults run everywhere that the wheel does.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from pathlib import Path

from agent.errors import UnfitBuild

PORTABLE_X86 = frozenset({"avx2", "fma", "f16c", "bmi2"})
_CPUINFO = Path("/proc/cpuinfo")


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


def check_flags(required: Collection[str], present: Collection[str]) -> None:
    """Raises UnfitBuild that names what is missing."""
    missing = sorted(set(required) - set(present))
    if not missing:
        return
    raise UnfitBuild(
        f"this CPU lacks {', '.join(missing)}, which llama.cpp was built with",
        remedy="Rebuild it for this machine: CMAKE_ARGS='-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF' "
        "pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python==0.3.36",
    )


def check_cpu() -> None:
    """Check this machine against the portable build; silent where the system does not tell its flags.

    Raises UnfitBuild.
    """
    try:
        present = cpu_flags(_CPUINFO.read_text())
    except OSError:
        return
    if present:
        check_flags(required_flags(platform.machine()), present)
