"""What checkpoints cost: seconds of a step with them, written while training goes on or at once, beside none.

    python -m benchmarks.checkpoints [--model 20m|110m|1b] [--every 5] [--intervals 2] [--rounds 2] [--json]

Each side is a training in a process of its own, all by turns; they are compared with a round's side without
checkpoints. Whole intervals count, each from a checkpoint's beginning to the next one's, so that what is still being
written during later steps counts too; the steps before the first checkpoint warm up. ``TMPDIR`` says which disk is
written to. On a CPU memory is the process's, the copy that is being written included; on a card, where none of this has
been run yet, it is the card's alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

from benchmarks.measure import flags, report, run_side, tell

SIDES: dict[str, dict[str, bool]] = {
    "none": {},
    "async": {"checkpoint_async": True},
    "at once": {"checkpoint_async": False},
}
"""What each trains with, beside ``checkpoint_every``; the first is compared with."""


def main() -> None:
    """Each side in a process of its own, one after the other, in several rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "20m", "110m", "1b"], default="110m")
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--intervals", type=int, default=2, help="measured intervals between checkpoints")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--responses", type=int, default=4, help="K, of one set per step")
    parser.add_argument("--prompt", type=int, default=50, help="tokens of every prompt")
    parser.add_argument("--length", type=int, default=40, help="tokens of every response")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    spare = max(1, len(os.sched_getaffinity(0)) - 1)
    parser.add_argument("--threads", type=int, default=spare, help="that train; by default a core is left for writing")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        _measure(arguments)
        return
    shared = {name: value for name, value in vars(arguments).items() if name not in ("rounds", "side")}
    rows: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        first: dict[str, Any] | None = None
        for side in SIDES:
            command = [*flags(argparse.Namespace(**shared)), f"--side={side}"]
            row = {"round": number, "side": side, **run_side("benchmarks.checkpoints", command, arguments.threads)}
            first = first or row
            rows.append(row | _compared(row, first, arguments.every))
            if not arguments.json:
                print(_line(rows[-1]), flush=True)
    if arguments.json:
        report("checkpoints", arguments, rows)
        return
    size = max(row["checkpoint_bytes"] for row in rows) / 2**30
    print(f"medians of the rounds; a checkpoint of {size:.2f} GiB every {arguments.every} steps")
    for side in SIDES:
        mine = [row for row in rows if row["side"] == side]
        print(_line(mine[0] | {name: statistics.median(row[name] for row in mine) for name in _SHOWN}))


_SHOWN = ("mean_seconds_a_step", "time_ratio", "seconds_a_checkpoint", "peak_bytes", "memory_ratio")


def _compared(row: dict[str, Any], none: dict[str, Any], every: int) -> dict[str, float]:
    """A side beside the one without checkpoints: ratios, and the seconds that one checkpoint takes from training."""
    seconds, without = row["mean_seconds_a_step"], none["mean_seconds_a_step"]
    return {
        "time_ratio": seconds / without,
        "seconds_a_checkpoint": (seconds - without) * every,
        "memory_ratio": row["peak_bytes"] / none["peak_bytes"],
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['side']:8} {row['mean_seconds_a_step']:7.3f} s a step ({row['time_ratio']:.3f} times), "
        f"{row['seconds_a_checkpoint']:6.2f} s a checkpoint, "
        f"peak {row['peak_bytes'] / 2**20:6.0f} MiB ({row['memory_ratio']:.2f} times)"
    )


def _measure(arguments: argparse.Namespace) -> None:
    import torch

    from benchmarks.material import RandomSets, dtype_of, llama, vocabulary_of
    from benchmarks.steps import measured_steps
    from mpo.config.training import Precision

    torch.set_num_threads(arguments.threads)
    precision = Precision[arguments.precision]
    sets = RandomSets(
        arguments.every * (1 + arguments.intervals), arguments.responses, arguments.prompt, arguments.length,
        spread=0.0, vocabulary=vocabulary_of(arguments.model),
    )  # fmt: skip
    chosen = SIDES[arguments.side]
    tell(
        measured_steps(
            llama(dtype_of(precision), size=arguments.model), sets, arguments.responses, 1, warm_up=arguments.every,
            precision=precision, checkpoint_every=arguments.every if chosen else 0, **chosen,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
