"""Where a step's time goes, read from traces that are written here by hand, in the format of torch's profiler."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mpo.track.intervals import length, union, within, without
from mpo.track.profile import TRACE_FILE, read_profile
from mpo.track.trace_parts import (
    ATTENTION_BACKWARD,
    ATTENTION_FORWARD,
    COMMUNICATION,
    ELEMENTWISE,
    HEAD_BACKWARD,
    HEAD_FORWARD,
    LAYOUT,
    LOSS,
    OPTIMIZER,
    PRODUCTS,
    WAITING,
    named,
    part,
)


def host(name: str, begin: float, end: float, category: str = "cpu_op", thread: int = 1, **arguments: int) -> Any:
    """An event of a thread of the host, in microseconds."""
    return {"ph": "X", "cat": category, "name": name, "pid": 7, "tid": thread, "ts": begin, "dur": end - begin,
            "args": arguments}  # fmt: skip


def span(name: str, begin: float, end: float) -> Any:
    return host(f"mpo: {name}", begin, end, "user_annotation")


def launch(begin: float, correlation: int, thread: int = 1) -> Any:
    return host("cudaLaunchKernel", begin, begin + 0.5, "cuda_runtime", thread, correlation=correlation)


def kernel(name: str, begin: float, end: float, correlation: int, category: str = "kernel") -> Any:
    return {"ph": "X", "cat": category, "name": name, "pid": 0, "tid": 7, "ts": begin, "dur": end - begin,
            "args": {"correlation": correlation, "stream": 7}}  # fmt: skip


def written(folder: Path, *events: Any) -> Path:
    path = folder / TRACE_FILE
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": [*events, {"ph": "M", "name": "process_name", "pid": 7}]}, file)
    return path


def test_on_a_cpu_an_operators_own_time_counts(tmp_path: Path) -> None:
    trace = written(
        tmp_path,
        span("step 3", 0, 100),
        span("layout", 0, 10),
        span("forward", 10, 40),
        host("aten::linear", 10, 20), host("aten::mm", 11, 19),
        host("aten::mul", 20, 24),
        host("_Attention", 24, 30), host("aten::bmm", 25, 29),
        host("_TargetLogps", 30, 40), host("aten::mm", 30, 39),
        span("loss", 40, 45), host("aten::mm", 40, 43),
        span("backward", 45, 70),
        host("autograd::engine::evaluate_function: _TargetLogpsBackward", 45, 55),
        host("_TargetLogpsBackward", 45, 55), host("aten::mm", 46, 54),
        host("_AttentionBackward", 55, 60),
        # A layer that is computed again in the backward pass: its attention is a forward one.
        host("autograd::engine::evaluate_function: MmBackward0", 60, 70),
        host("_Attention", 60, 62), host("aten::mm", 62, 70),
        span("update", 70, 90), host("Optimizer.step#AdamW.step", 70, 80, "user_annotation"),
        host("c10d::allreduce_", 80, 82),
        host("gloo:all_reduce", 80, 85, "user_annotation", thread=2),
        host("aten::mul_", 85, 90),
        host("aten::mul", 100, 200),  # between two steps
        span("step 4", 200, 300), host("aten::sum", 200, 300),
    )  # fmt: skip
    found = read_profile(trace, [{"step": 2, "memory_bytes": 9e9}, {"step": 3, "memory_bytes": 3.0}])
    assert (found.steps, found.device, found.seconds, found.memory_bytes) == ([3, 4], "cpu", 1e-4, 3.0)
    microseconds = {name: round(200 * share, 6) for name, share in found.shares.items()}
    assert microseconds == {
        LOSS: 103, PRODUCTS: 18, OPTIMIZER: 15, HEAD_FORWARD: 10, HEAD_BACKWARD: 10, LAYOUT: 10, ATTENTION_FORWARD: 8,
        ATTENTION_BACKWARD: 5, COMMUNICATION: 5, ELEMENTWISE: 4, WAITING["cpu"]: 12,
    }  # fmt: skip
    assert sum(found.shares.values()) == pytest.approx(1)


def test_on_a_card_that_of_its_kernels_and_what_they_hide_costs_nothing(tmp_path: Path) -> None:
    trace = written(
        tmp_path,
        span("step 5", 0, 100),
        span("layout", 0, 8),
        span("forward", 8, 30),
        host("aten::mm", 8, 10), launch(9, 1),
        host("_TargetLogps", 10, 12), host("aten::mm", 10, 12), launch(11, 2),
        host("CompiledFunction", 12, 14), launch(13, 3),
        # The thread of the backward pass has none of the loop's ranges.
        host("autograd::engine::evaluate_function: MmBackward0", 30, 40, thread=2),
        host("aten::mul", 31, 33, thread=2), launch(32, 4, thread=2),
        host("aten::mm", 33, 39, thread=2), launch(34, 5, thread=2),
        kernel("Memcpy HtoD (Pinned -> Device)", 8, 10, 9, "gpu_memcpy"),
        kernel("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_NNT", 10, 30, 1),
        kernel("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_NNT", 30, 40, 2),
        kernel("triton_tem_fused_flex_attention_0", 40, 45, 3),
        kernel("void at::native::elementwise_kernel<128, 4>()", 45, 50, 4),
        kernel("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", 48, 60, 5),  # on another stream, at the same time
        kernel("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", 55, 75, 6),
        kernel("multi_tensor_apply_kernel<at::native::FusedAdamMathFunctor<float>>", 80, 90, 7),
        kernel("multi_tensor_apply_kernel<at::native::FusedAdamMathFunctor<float>>", 99, 120, 8),  # beyond the step
    )  # fmt: skip
    rows = [{"step": 5, "memory_bytes": 2.0**30, "memory_reserved_bytes": 2.0**31}]
    found = read_profile(trace, rows)
    microseconds = {name: round(100 * share, 6) for name, share in found.shares.items()}
    assert microseconds == {
        PRODUCTS: 30, COMMUNICATION: 15, OPTIMIZER: 11, HEAD_FORWARD: 10, LAYOUT: 10, ATTENTION_FORWARD: 5,
        ELEMENTWISE: 5, WAITING["cuda"]: 14,
    }  # fmt: skip
    assert found.hidden_communication == pytest.approx(0.05)
    assert found.facts["memory"] == "1.0 GiB, 2.0 GiB reserved"
    assert found.facts["communication behind computing"] == "5 %"


def test_a_trace_without_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no optimizer step"):
        read_profile(written(tmp_path, host("aten::mm", 0, 1)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*, unsigned long, ncclWork*)", COMMUNICATION),
        ("ncclDevKernel_ReduceScatter_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", COMMUNICATION),
        ("triton_tem_fused_flex_attention_0", ATTENTION_FORWARD),
        ("triton_tem_fused_flex_attention_backward_zeros_1", ATTENTION_BACKWARD),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 64, 64>>", ATTENTION_FORWARD),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<>", ATTENTION_BACKWARD),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel<>)", ATTENTION_FORWARD),
        ("fmha_cutlassB_bf16_aligned_128x64_k64_sm80(PyTorchMemEffAttention::AttentionBackward)", ATTENTION_BACKWARD),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128", ATTENTION_FORWARD),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_31_64x128x128", ATTENTION_BACKWARD),
        ("Memcpy DtoH (Device -> Pinned)", LAYOUT),
        ("Memcpy DtoD (Device -> Device)", None),
        ("nvjet_tst_192x192_64x4_1x2_h_bz_coopB_TNT", None),
        ("triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0", None),
    ],
)  # fmt: skip
def test_kernels_are_named_by_what_they_are_for(name: str, expected: str | None) -> None:
    assert named(name) == expected


@pytest.mark.parametrize(
    ("kernel_name", "expected"),
    [
        ("nvjet_tst_192x192_64x4_1x2_h_bz_coopB_TNT", PRODUCTS),
        ("ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_stages_32x5_tn", PRODUCTS),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128_32x3_nn_align8>", PRODUCTS),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>", PRODUCTS),
        ("triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0", ELEMENTWISE),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", ELEMENTWISE),
    ],
)
def test_kernels_of_unknown_origin_are_products_or_not(kernel_name: str, expected: str) -> None:
    assert part(named(kernel_name), "CompiledFunction", kernel_name) == expected


def test_intervals() -> None:
    one = union([(5, 7), (0, 2), (1, 3), (7, 8), (9, 9)])
    assert one == [(0, 3), (5, 8)]
    assert without(one, [(1, 2), (2.5, 6), (9, 10)]) == [(0, 1), (2, 2.5), (6, 8)]
    assert without(one, []) == one and without([], one) == []
    assert within(one, [(2, 6)]) == [(2, 3), (5, 6)]
    assert length(one) == 6
