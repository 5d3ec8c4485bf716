"""Sets of many responses in bounded memory: a step on one set of each K, time a response and peak memory.

    python -m benchmarks.large_k [--responses 8 32 128] [--rounds 3] [--json]

Sets above ``--micro-tokens`` are forwarded in pieces, all but one of them twice: for the loss, and for its gradient.
Their memory is one piece's, which K = 8 does not fill by default, and what attention computed for the others.
All K are measured by turns, over ``--measured`` responses each (a step at least), all seconds of which count: a median
would leave a slow step out where there are many, and not where there is one. They are compared with a round's first.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

from benchmarks.measure import flags, report, run_side, tell


def main() -> None:
    """Each K in a process of its own, one after the other, in several rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "20m", "1b", "8b"], default="20m")
    parser.add_argument("--responses", type=int, nargs="+", default=[8, 32, 128], help="K; the first is compared with")
    parser.add_argument("--prompt", type=int, default=180, help="tokens of every prompt")
    parser.add_argument("--length", type=int, default=280, help="tokens of every response")
    parser.add_argument("--measured", type=int, default=128, help="responses of the measured steps")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--micro-tokens", type=int, default=3072, help="tokens forwarded at once")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        _measure(arguments)
        return
    shared = {name: value for name, value in vars(arguments).items() if name not in ("responses", "rounds")}
    rows: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        first: dict[str, Any] | None = None
        for k in arguments.responses:
            side = run_side(
                "benchmarks.large_k", [*flags(argparse.Namespace(**shared)), f"--side={k}"], arguments.threads
            )
            row = {"round": number, "responses": k, "seconds_a_response": side["mean_seconds_a_step"] / k, **side}
            row["memory_above_model"] = side["peak_bytes"] - side["loaded_bytes"]
            first = first or row
            row["memory_ratio"] = row["peak_bytes"] / first["peak_bytes"]
            row["time_ratio"] = row["seconds_a_response"] / first["seconds_a_response"]
            rows.append(row)
            if not arguments.json:
                print(_line(row), flush=True)
    if arguments.json:
        report("large_k", arguments, rows)
        return
    print("medians of the rounds")
    for k in arguments.responses:
        mine = [row for row in rows if row["responses"] == k]
        print(_line(mine[0] | {name: statistics.median(row[name] for row in mine) for name in _SHOWN}))


_SHOWN = ("seconds_a_response", "time_ratio", "peak_bytes", "memory_ratio", "memory_above_model")


def _line(row: dict[str, Any]) -> str:
    return (
        f"K = {row['responses']:4}  {row['seconds_a_response']:7.3f} s a response ({row['time_ratio']:.2f} times), "
        f"peak {row['peak_bytes'] / 2**20:6.0f} MiB ({row['memory_ratio']:.2f} times), "
        f"{row['memory_above_model'] / 2**20:6.0f} MiB above the loaded model"
    )


def _measure(arguments: argparse.Namespace) -> None:
    import torch

    from benchmarks.material import RandomSets, dtype_of, llama, vocabulary_of
    from benchmarks.steps import measured_steps
    from mpo.config.training import Precision

    torch.set_num_threads(arguments.threads)
    precision = Precision[arguments.precision]
    count = max(1, arguments.measured // arguments.side) + arguments.warm_up
    sets = RandomSets(
        count, arguments.side, arguments.prompt, arguments.length, spread=0.0, vocabulary=vocabulary_of(arguments.model)
    )
    tell(
        measured_steps(
            llama(dtype_of(precision), size=arguments.model),
            sets,
            arguments.side,
            1,
            arguments.warm_up,
            micro_batch=1,
            micro_tokens=arguments.micro_tokens,
            precision=precision,
        )
    )


if __name__ == "__main__":
    main()
