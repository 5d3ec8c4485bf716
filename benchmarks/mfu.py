"""Useful FLOP/s of a training step as a share of what this device's matrix products reach in bfloat16.

    python -m benchmarks.mfu [--model 20m|1b] [--precision fp32|bf16] [--json]

Useful: 6 FLOPs a parameter and token and the attention of tokens that see each other; the head over response tokens
alone. What is computed again (the head's logits, checkpointed layers) does not count. ``1b`` is meant for a CUDA card.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.measure import flags, report, run_side, tell


def main() -> None:
    """The measurement, in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["20m", "1b"], default="20m")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--responses", type=int, default=4, help="K")
    parser.add_argument("--prompt", type=int, default=180, help="mean tokens of a prompt")
    parser.add_argument("--length", type=int, default=280, help="mean tokens of a response")
    parser.add_argument("--sets", type=int, default=4, help="sets per optimizer step")
    parser.add_argument("--steps", type=int, default=3, help="measured steps, after one of warm-up")
    parser.add_argument("--micro-batch", type=int, default=2, help="sets forwarded at once")
    parser.add_argument("--compile", action="store_true", help="norms and gates fused by torch.compile")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        _measure(arguments)
        return
    row = run_side("benchmarks.mfu", [*flags(arguments), "--side"], arguments.threads)
    if arguments.json:
        report("mfu", arguments, [row])
        return
    print(
        f"{row['useful_flops'] / row['seconds_a_step'] / 1e12:.3f} TFLOP/s useful, {row['share']:.1%} of the "
        f"{row['product_flops_per_second'] / 1e12:.3f} TFLOP/s of {row['device']} in bfloat16 products "
        f"({row['own_product_flops_per_second'] / 1e12:.3f} in {arguments.precision}); "
        f"{row['seconds_a_step']:.2f} s a step of {row['tokens']} tokens, {row['peak_bytes'] / 2**30:.1f} GiB"
    )


def _measure(arguments: argparse.Namespace) -> None:
    import torch

    from benchmarks.material import RandomSets, llama
    from benchmarks.steps import measured_steps
    from mpo.config.schema import Precision, TrainConfig
    from mpo.planning.compute import step_work
    from mpo.planning.machine import measure
    from mpo.planning.sizes import DataSize, read_architecture

    torch.set_num_threads(arguments.threads)
    precision = Precision[arguments.precision]
    lm = llama(torch.bfloat16 if precision is Precision.bf16 else torch.float32, size=arguments.model)
    shape = read_architecture(lm.config.to_dict())
    sides = shape.hidden, shape.intermediate
    product = measure(*sides, Precision.bf16, arguments.threads)
    own = measure(*sides, precision, arguments.threads)
    sets = RandomSets(arguments.sets * (arguments.steps + 1), arguments.responses, arguments.prompt, arguments.length)
    found = measured_steps(
        lm, sets, arguments.responses, arguments.sets, micro_batch=arguments.micro_batch, precision=precision,
        compile=arguments.compile,
    )  # fmt: skip
    prompts = sum(len(sets[i].prompt_ids) for i in range(len(sets))) / len(sets)
    lengths = [len(ids) for i in range(len(sets)) for ids in sets[i].response_ids]
    size = DataSize(len(sets), arguments.responses, round(prompts), round(sum(lengths) / len(lengths)))
    plain = TrainConfig(global_batch=arguments.sets, precision=precision, activation_checkpointing=False)
    again = step_work(shape, plain, size, 1).flops
    head = 2 * size.responses * size.response_tokens * shape.embedding * arguments.sets
    useful = again - head  # the head's logits are computed once more in backward
    tell(
        {
            **found,
            "useful_flops": useful,
            "share": useful / found["seconds_a_step"] / product.flops_per_second,
            "product_flops_per_second": product.flops_per_second,
            "own_product_flops_per_second": own.flops_per_second,
            "device": product.name,
        }
    )


if __name__ == "__main__":
    main()
