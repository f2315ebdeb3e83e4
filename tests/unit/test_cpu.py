"""The check of the CPU's flags against the build."""

from __future__ import annotations

import platform

import pytest

from agent.engines.cpu import PORTABLE_X86, ask_build, built_flags, check_cpu, check_flags, cpu_flags, required_flags
from agent.errors import UnfitBuild

ATOM = """processor\t: 0
vendor_id\t: GenuineIntel
flags\t\t: fpu sse sse2 ssse3 sse4_1 sse4_2
bogomips\t: 2000.00

processor\t: 1
flags\t\t: fpu sse sse2 ssse3 sse4_1 sse4_2 avx2
"""


def test_flags_are_those_that_every_core_has():
    assert cpu_flags(ATOM) == {"fpu", "sse", "sse2", "ssse3", "sse4_1", "sse4_2"}
    assert cpu_flags("processor\t: 0\nFeatures\t: fp asimd\n") == {"fp", "asimd"}
    assert cpu_flags("") == frozenset()


def test_an_old_cpu_is_told_what_it_lacks_and_how_to_mend_it():
    with pytest.raises(UnfitBuild, match="lacks avx2, bmi2, f16c, fma") as unfit:
        check_flags(required_flags("x86_64"), cpu_flags(ATOM))
    assert "CMAKE_ARGS" in str(unfit.value)


def test_other_architectures_need_nothing():
    check_flags(required_flags("aarch64"), set())
    check_flags(required_flags("arm64"), set())
    check_flags(required_flags("AMD64"), {"avx2", "bmi2", "f16c", "fma", "sse"})


def test_a_build_for_an_older_cpu_is_known_by_what_it_says_of_itself():
    assert built_flags("CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | F16C = 1 | FMA = 0 | LLAMAFILE = 1 | ") == {"f16c"}
    assert built_flags("CPU : NEON = 1 | ARM_FMA = 1 | ") == frozenset()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of the x86-64 build")
def test_the_installed_build_tells_its_flags():
    pytest.importorskip("llama_cpp")
    built = ask_build()
    assert built is not None
    assert built <= PORTABLE_X86


def test_this_machine_runs_what_the_tests_run():
    check_cpu()
