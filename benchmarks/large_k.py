"""Sets of many responses in bounded memory: a step on one set of each K, time a response and peak memory.

    python -m benchmarks.large_k [--responses 8 32 128] [--json]

Sets above ``--micro-tokens`` are forwarded in pieces, all but one of them twice: for the loss, and for its gradient.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.measure import report, run_side, tell


def main() -> None:
    """Each K in a process of its own, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, nargs="+", default=[8, 32, 128], help="K; the first is compared with")
    parser.add_argument("--prompt", type=int, default=180, help="tokens of every prompt")
    parser.add_argument("--length", type=int, default=280, help="tokens of every response")
    parser.add_argument("--steps", type=int, default=2, help="measured steps, after one of warm-up")
    parser.add_argument("--micro-tokens", type=int, default=2560, help="tokens forwarded at once")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        _measure(arguments)
        return
    shared = [f"--{name}={getattr(arguments, name.replace('-', '_'))}" for name in
              ("prompt", "length", "steps", "micro-tokens", "threads")]  # fmt: skip
    rows = []
    for k in arguments.responses:
        side = run_side("benchmarks.large_k", [*shared, f"--side={k}"], arguments.threads)
        rows.append({"responses": k, "seconds_a_response": side["seconds_a_step"] / k, **side})
        rows[-1]["memory_above_model"] = side["peak_bytes"] - side["loaded_bytes"]
        first = rows[0]
        rows[-1]["memory_ratio"] = rows[-1]["peak_bytes"] / first["peak_bytes"]
        rows[-1]["time_ratio"] = rows[-1]["seconds_a_response"] / first["seconds_a_response"]
        if not arguments.json:
            print(
                f"K = {k:4}  {rows[-1]['seconds_a_response']:7.3f} s a response ({rows[-1]['time_ratio']:.2f} times), "
                f"peak {side['peak_bytes'] / 2**20:6.0f} MiB ({rows[-1]['memory_ratio']:.2f} times), "
                f"{rows[-1]['memory_above_model'] / 2**20:6.0f} MiB above the loaded model"
            )
    if arguments.json:
        report("large_k", arguments, rows)


def _measure(arguments: argparse.Namespace) -> None:
    import torch

    from benchmarks.material import RandomSets, llama
    from benchmarks.steps import measured_steps

    torch.set_num_threads(arguments.threads)
    sets = RandomSets(arguments.steps + 1, arguments.side, arguments.prompt, arguments.length, spread=0.0)
    tell(measured_steps(llama(), sets, arguments.side, 1, micro_batch=1, micro_tokens=arguments.micro_tokens))


if __name__ == "__main__":
    main()
