"""tools/check_cuda.py: it must find what it is there to find."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from verglas import _native

from conftest import ROOT

RESOURCES = """
arch = sm_80
Resource usage:
 Common:
  GLOBAL:272 CONSTANT[4]:16
 Function _Zscore:
  REG:128 STACK:0 SHARED:56 LOCAL:0 CONSTANT[2]:256 TEXTURE:0
 Function _Zctf:
  REG:46 STACK:40 SHARED:56 LOCAL:0
arch = sm_90
Resource usage:
 Function _Zscore:
  REG:96 STACK:16 SHARED:56 LOCAL:0
"""
SASS = """
\tcode for sm_80
\t\tFunction : _Zscore
        /*0000*/                   HMMA.1688.F32.TF32 R4, R8, R10, R4 ;   /* 0x00000a00ff017624 */
                                                                          /* 0x000fe400078e00ff */
        /*0010*/                   STL.64 [R1+0x8], R2 ;                  /* 0x00 */
        /*0020*/              @P0 LDL R2, [R1+0x8] ;                      /* 0x00 */
\t\tFunction : _Zctf
        /*0000*/                   LDG.E R4, [R2] ;                       /* 0x00 */
\tcode for sm_90
\t\tFunction : _Zscore
        /*0000*/                   FFMA R4, R8, R10, R4 ;                 /* 0x00 */
"""


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_cuda", ROOT / "tools" / "check_cuda.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_cuda"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def found(check):
    resources, instructions = check.parse_resources(RESOURCES), check.parse_instructions(SASS)
    return {
        (name.removeprefix("_Z") + "_kernel", arch): check.Usage(*taken, *instructions.get((name, arch), (0, 0)))
        for (name, arch), taken in resources.items()
    }


def test_listings(check, found):
    assert found == {
        ("score_kernel", "sm_80"): check.Usage(128, 0, 2, 1),
        ("ctf_kernel", "sm_80"): check.Usage(46, 40, 0, 0),
        ("score_kernel", "sm_90"): check.Usage(96, 16, 0, 0),
    }


@pytest.mark.parametrize(
    ("demangled", "name"),
    [
        ("verglas::cuda::(anonymous namespace)::ctf_kernel(double const*, int)", "ctf_kernel"),
        ("verglas::cuda::_GLOBAL__N__a777c46a_6_ctf_cu_8e8723d5::ctf_kernel(int)", "ctf_kernel"),
        ("void verglas::cuda::(anonymous namespace)::score<(int)16, true>(float const*)", "score<(int)16, true>"),
        ("void verglas::cuda::add<verglas::math::Lanes<float> >(float (*)(int))", "add<Lanes<float> >"),
    ],
)
def test_names(check, demangled, name):
    assert check.kernel_name(demangled) == name


def test_source_files(check):
    mangled = "_ZN7verglas4cuda38_GLOBAL__N__a777c46a_6_ctf_cu_8e8723d510ctf_kernelEPKdidPf"
    assert check.source_name(mangled) == "ctf"
    mangled = "_ZN7verglas4cuda46_GLOBAL__N__a777c46a_15_score_select_cu_8e8723d54pickEi"
    assert check.source_name(mangled) == "score_select"


def test_a_budget_is_written_read_and_met(check, found, tmp_path):
    check.write_budget(found, tmp_path / "budget.csv")
    budget = check.read_budget(tmp_path / "budget.csv")
    assert [u.registers for u in budget.values()] == [48, 128, 96]  # by name: units of eight
    assert {key: vars(u) | {"registers": found[key].registers} for key, u in budget.items()} == {
        key: vars(u) for key, u in found.items()
    }
    assert check.over_budget(found, budget) == []


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("registers", 127, "takes 128 registers, the budget grants 127"),
        ("local", 1, "takes 2 local"),
        ("tensor", 400, None),
    ],
)
def test_more_than_granted(check, found, field, value, words):
    key = ("score_kernel", "sm_80")
    limit = check.Usage(**(vars(found[key]) | {field: value}))
    said = check.over_budget(found, found | {key: limit})
    assert [words in s for s in said] == ([True] if words else [])


def test_lost_tensor_cores_missing_rows_and_kernels_that_are_gone(check, found):
    key = ("score_kernel", "sm_90")
    budget = found | {key: check.Usage(96, 16, 0, 8), ("old", "sm_80"): check.Usage(1, 1, 1, 1)}
    del budget["ctf_kernel", "sm_80"]
    said = check.over_budget(found, budget)
    assert len(said) == 3
    assert any("ctf_kernel on sm_80 has no row" in s for s in said)
    assert any("score_kernel on sm_90 has lost its tensor-core instructions" in s for s in said)
    assert any("old on sm_80 is in" in s for s in said)


def test_an_op_without_tensor_cores(check, found):
    assert check.without_tensor_cores(found) == ["no kernel of score (1 of them) uses tensor cores on sm_90"]
    assert len(check.without_tensor_cores({})) == 2


@pytest.mark.slow
def test_the_module_meets_its_budget(check):
    spec = importlib.util.find_spec("verglas._cuda")
    if spec is None or not _native.cuda_built():
        pytest.skip("built without nvcc")
    if check.find_cuobjdump() is None or check.find_tool("nvdisasm") is None:
        pytest.skip("no cuobjdump or no nvdisasm (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm)")
    assert check.main([str(Path(spec.origin))]) == 0
