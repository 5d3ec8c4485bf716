"""Useful FLOP/s of a training step as a share of what this device's matrix products reach, and of its data sheet.

    python -m benchmarks.mfu [--model 20m|1b|8b] [--precision fp32|bf16] [--lengths ultrafeedback] [--json]

Useful: 6 FLOPs a parameter and token and the attention of tokens that see each other; the head over response tokens
alone. What is computed again (the head's logits, checkpointed layers) does not count. All measured steps count, their
work over their time. Three rates are shown: a large bfloat16 product (8192 a side on a card, 2048 on a CPU) and one of
the model's shape, both timed in the same process, and the card's data sheet. ``1b`` (Llama-3.2-1B's shape) and ``8b``
(four layers of Llama-3-8B's) are meant for a CUDA card, on which none of this has been run yet.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.measure import flags, report, run_side, tell

if TYPE_CHECKING:
    from benchmarks.material import RandomSet
    from mpo.planning.sizes import Architecture

LARGE = 8192
"""Side of the large product on a card; on a CPU :data:`mpo.planning.machine.WIDEST`."""


def main() -> None:
    """The measurement, in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "20m", "1b", "8b"], default="20m")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--responses", type=int, default=4, help="K")
    parser.add_argument("--prompt", type=int, default=180, help="mean tokens of a prompt")
    parser.add_argument("--length", type=int, default=280, help="mean tokens of a response")
    parser.add_argument("--lengths", choices=["even", "ultrafeedback"], default="even", help="how they spread")
    parser.add_argument("--sets", type=int, default=4, help="sets per optimizer step")
    parser.add_argument("--steps", type=int, default=3, help="measured steps")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before them")
    parser.add_argument("--micro-batch", type=int, default=2, help="sets forwarded at once")
    parser.add_argument("--micro-tokens", type=int, default=16384, help="tokens forwarded at once")
    parser.add_argument("--compile", action="store_true", help="norms and gates fused; on a card they are anyway")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        tell(_measure(arguments))
        return
    row = run_side("benchmarks.mfu", [*flags(arguments), "--side"], arguments.threads)
    if arguments.json:
        report("mfu", arguments, [row])
        return
    print(f"{row['useful_flops_per_second'] / 1e12:.3f} TFLOP/s useful")
    for share, rate, what in _rates(row):
        print(f"  {share:6.1%} of {rate / 1e12:.3f} TFLOP/s, {what}")
    print(
        f"{row['mean_seconds_a_step']:.2f} s a step of {row['tokens']} tokens in {arguments.precision}, "
        f"{row['peak_bytes'] / 2**30:.1f} GiB"
    )


def _rates(row: dict[str, Any]) -> Iterator[tuple[float, float, str]]:
    """Shares, of which rates."""
    yield row["share"], row["product_flops_per_second"], "a large bfloat16 product here"
    yield row["share_of_shape"], row["shape_flops_per_second"], "one of the model's shape"
    sheet = row["data_sheet"]
    if sheet is not None:
        yield row["share_of_data_sheet"], sheet["flops_per_second"], f"{sheet['title']}'s data sheet"
    else:
        print(f"  no data sheet of {row['machine']} is known here")


def useful_flops(shape: Architecture, sets: Iterable[RandomSet]) -> float:
    """FLOPs of one step on ``sets``, forwards and backwards, each prompt forwarded once (arXiv 2204.02311, appendix
    B)."""
    matrices = shape.layers * shape.used_matrices
    total = 0.0
    for one in sets:
        prompt, lengths = len(one.prompt_ids), [len(ids) for ids in one.response_ids]
        pairs = prompt**2 / 2 + sum(length * prompt + length**2 / 2 for length in lengths)
        total += 6 * (prompt + sum(lengths)) * matrices + 6 * sum(lengths) * shape.embedding
        total += 12 * shape.heads * shape.head_dim * pairs * shape.layers
    return total


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from benchmarks.material import SPREAD, RandomSets, dtype_of, llama, vocabulary_of
    from benchmarks.measure import on_card
    from benchmarks.steps import measured_steps
    from mpo.config.training import Precision
    from mpo.planning.cards import data_sheet
    from mpo.planning.machine import WIDEST, measure
    from mpo.planning.sizes import read_architecture
    from mpo.train.batches import BatchPlan

    torch.set_num_threads(arguments.threads)
    precision = Precision[arguments.precision]
    lm = llama(dtype_of(precision), size=arguments.model)
    shape = read_architecture(lm.config.to_dict())
    large = LARGE if on_card() else WIDEST["cpu"]
    product = measure(large, large, Precision.bf16, arguments.threads)
    of_shape = measure(shape.hidden, shape.intermediate, Precision.bf16, arguments.threads)
    count = arguments.sets * (arguments.steps + arguments.warm_up)
    sets = RandomSets(
        count, arguments.responses, arguments.prompt, arguments.length,
        spread=SPREAD if arguments.lengths == "even" else None, vocabulary=vocabulary_of(arguments.model),
    )  # fmt: skip
    found = measured_steps(
        lm, sets, arguments.responses, arguments.sets, arguments.warm_up, micro_batch=arguments.micro_batch,
        micro_tokens=arguments.micro_tokens, precision=precision, compile=arguments.compile or None,
    )  # fmt: skip
    plan = BatchPlan(range(count), arguments.sets, 0)
    counted = [sets[i] for step in range(arguments.warm_up, plan.steps_per_epoch) for i in plan.batch(step)]
    useful = useful_flops(shape, counted) / found["steps"] / found["mean_seconds_a_step"]
    sheet = data_sheet(product.name) if on_card() else None
    peak = None if sheet is None else sheet.peak(precision)
    return {
        **found,
        "parameters": shape.parameters,
        "useful_flops_per_second": useful,
        "share": useful / product.flops_per_second,
        "share_of_shape": useful / of_shape.flops_per_second,
        "share_of_data_sheet": None if peak is None else useful / peak,
        "product_flops_per_second": product.flops_per_second,
        "shape_flops_per_second": of_shape.flops_per_second,
        "data_sheet": None if sheet is None else {"title": sheet.title, "flops_per_second": peak},
        "machine": product.name,
    }


if __name__ == "__main__":
    main()
