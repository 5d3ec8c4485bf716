"""Where a training step's time goes: head, attention, the layers' products, what is elementwise, optimizer.

    python -m benchmarks.breakdown [--responses 4 --sets 2 --prompt 180 --length 280] [--json]

Shares as ``train.profile=true`` shows them (:mod:`mpo.track.profile`), and the rate of products against the machine's
own rate.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from benchmarks.measure import flags, report, run_side, tell


def main() -> None:
    """One measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "20m", "1b", "8b"], default="20m")
    parser.add_argument("--responses", type=int, default=4, help="K")
    parser.add_argument("--prompt", type=int, default=180, help="mean tokens of a prompt")
    parser.add_argument("--length", type=int, default=280, help="mean tokens of a response")
    parser.add_argument("--sets", type=int, default=2, help="sets per optimizer step")
    parser.add_argument("--micro-batch", type=int, default=2, help="sets forwarded at once")
    parser.add_argument("--micro-tokens", type=int, default=16384, help="tokens forwarded at once")
    parser.add_argument("--steps", type=int, default=2, help="steps after the profiled ones, whose time is shown")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        tell(_measure(arguments))
        return
    row = run_side("benchmarks.breakdown", [*flags(arguments), "--side"], arguments.threads)
    if arguments.json:
        report("breakdown", arguments, [row])
        return
    print(f"{row['seconds_a_step']:.2f} s a step of {row['tokens']} tokens, without the profiler")
    for part, share in row["profile"]["shares"].items():
        print(f"  {share:6.1%}  {part}")
    print(
        f"{row['product_flops'] / 1e9:.0f} GFLOP of products a step: at this machine's rate for them "
        f"({row['machine_flops_per_second'] / 1e9:.0f} GFLOP/s) they alone take {row['product_seconds']:.2f} s"
    )


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from benchmarks.material import RandomSets, dtype_of, llama, vocabulary_of
    from benchmarks.steps import PROFILED, measured_steps
    from mpo.config.training import Precision
    from mpo.planning.machine import measure
    from mpo.planning.sizes import read_architecture

    torch.set_num_threads(arguments.threads)
    precision = Precision[arguments.precision]
    lm = llama(dtype_of(precision), size=arguments.model)
    shape = read_architecture(lm.config.to_dict())
    machine = measure(shape.hidden, shape.intermediate, precision, arguments.threads)
    sets = RandomSets(
        arguments.sets * (PROFILED + arguments.steps), arguments.responses, arguments.prompt, arguments.length,
        vocabulary=vocabulary_of(arguments.model),
    )  # fmt: skip
    row = measured_steps(
        lm, sets, arguments.responses, arguments.sets, micro_batch=arguments.micro_batch,
        micro_tokens=arguments.micro_tokens, precision=precision, profile=True,
    )  # fmt: skip
    responses = sum(len(ids) for i in range(len(sets)) for ids in sets[i].response_ids) * arguments.sets / len(sets)
    matrices = shape.layers * shape.used_matrices
    flops = 6 * matrices * row["tokens"] + 8 * shape.embedding * responses  # the head's logits are computed twice
    return {
        **row,
        "product_flops": flops,
        "product_seconds": flops / machine.flops_per_second,
        "machine_flops_per_second": machine.flops_per_second,
    }


if __name__ == "__main__":
    main()
