"""A training step on response sets here and in TRL's DPO trainer: the same tokens, responses per second, memory.

    python -m benchmarks.step_vs_trl --responses 4 --prompt 180 --length 280 [--json]

TRL gets K/2 pairs for each prompt, so both sides train on every response once; its reference is precomputed too. Each
side runs in a process of its own and in the precision that ``--ours`` and ``--theirs`` name; of several ``--theirs``
the fastest is compared with, of several ``--pairs`` the first that fits into a card's memory. Which of TRL's settings
ran: ``benchmarks/trl_side.py`` says which are tried, the figures which were. Needs trl (1.16.0).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from typing import Any

from benchmarks.measure import flags, report, run_side, tell
from mpo.errors import EXIT_CODE

MISSING = "TRL is not installed (pip install trl==1.16.0), so there is nothing to compare with"
OUT_OF_MEMORY = "OutOfMemoryError"


def main() -> int:
    """Both sides, one after the other, or (``--side``) one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "20m", "1b", "8b"], default="20m")
    parser.add_argument("--responses", type=int, default=4, help="K")
    parser.add_argument("--prompt", type=int, default=180, help="mean tokens of a prompt")
    parser.add_argument("--length", type=int, default=280, help="mean tokens of a response")
    parser.add_argument("--lengths", choices=["even", "ultrafeedback"], default="even", help="how they spread")
    parser.add_argument("--sets", type=int, default=4, help="sets per optimizer step")
    parser.add_argument("--steps", type=int, default=3, help="measured steps")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before them")
    parser.add_argument("--micro-batch", type=int, default=2, help="sets that we forward at once")
    parser.add_argument("--micro-tokens", type=int, default=16384, help="tokens that we forward at once")
    parser.add_argument("--checkpointing", action="store_true", help="our layers' activations computed again")
    parser.add_argument("--compile", action="store_true", help="our norms and gates fused; on a card they are anyway")
    parser.add_argument("--pairs", type=int, nargs="+", default=[2], help="pairs that TRL forwards at once")
    parser.add_argument("--ours", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--theirs", choices=["fp32", "bf16", "bf16-weights"], nargs="+", default=["fp32"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=["mpo", "trl"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        tell({"mpo": ours, "trl": theirs}[arguments.side](arguments))
        return 0
    if importlib.util.find_spec("trl") is None:
        print(f"step_vs_trl: {MISSING}", file=sys.stderr)
        return EXIT_CODE
    rows = [_side(arguments, "mpo", arguments.theirs[0], arguments.pairs[0])]
    for precision in arguments.theirs:
        for pairs in arguments.pairs:
            rows.append(_side(arguments, "trl", precision, pairs))
            if "failed" not in rows[-1]:
                break
    measured = [row for row in rows if "failed" not in row]
    if len(measured) == 1:
        names = ", ".join(row["name"] for row in rows[1:])
        raise RuntimeError(f"nothing to compare with: the card's memory is too small for {names}")
    for row in measured:
        row["responses_per_second"] = arguments.sets * arguments.responses / row["seconds_a_step"]
        row["memory_above_model"] = row["peak_bytes"] - row["loaded_bytes"]
    mpo, best = measured[0], max(measured[1:], key=lambda row: row["responses_per_second"])
    compared = ("responses_per_second", "memory_above_model", "peak_bytes")
    ratio = {"side": "ratio", "against": best["name"], **{name: mpo[name] / best[name] for name in compared}}
    if arguments.json:
        report("step_vs_trl", arguments, [*rows, ratio], ["trl"])
        return 0
    for row in rows:
        print(_line(row))
    print(f"{best['name']}: {', '.join(f'{name} {value}' for name, value in best['settings'].items())}")
    faster, leaner, in_all = (ratio[name] for name in compared)
    print(f"{faster:.2f} times the responses per second, {leaner:.2f} times the memory ({in_all:.2f} with the model)")
    return 0


def _side(arguments: argparse.Namespace, side: str, precision: str, pairs: int) -> dict[str, Any]:
    """One side's figures; of TRL's also that a card's memory was not enough."""
    name = "mpo" if side == "mpo" else f"trl {precision}, {pairs} pairs"
    command = [*flags(arguments, theirs=precision, pairs=pairs), f"--side={side}"]
    try:
        return {"side": side, "name": name, **run_side("benchmarks.step_vs_trl", command, arguments.threads)}
    except RuntimeError as error:
        if side == "mpo" or OUT_OF_MEMORY not in str(error):
            raise
        return {"side": side, "name": name, "failed": "out of the card's memory"}


def _line(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{row['name']:26} {row['failed']}"
    return (
        f"{row['name']:26} {row['seconds_a_step']:8.2f} s a step  {row['responses_per_second']:8.2f} responses/s  "
        f"{row['memory_above_model'] / 2**20:8.0f} MiB above the loaded model  ({row['tokens']} tokens forwarded)"
    )


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Our loop on DeepSpeed, MPO on whole sets."""
    import torch

    from benchmarks.material import dtype_of, llama
    from benchmarks.steps import measured_steps
    from mpo.config.training import Precision

    torch.set_num_threads(arguments.threads)
    precision = Precision[arguments.ours]
    return measured_steps(
        llama(dtype_of(precision), size=arguments.model), _sets(arguments), arguments.responses, arguments.sets,
        arguments.warm_up, micro_batch=arguments.micro_batch, micro_tokens=arguments.micro_tokens, precision=precision,
        activation_checkpointing=arguments.checkpointing, compile=arguments.compile or None,
    )  # fmt: skip


def theirs(arguments: argparse.Namespace) -> dict[str, Any]:
    """TRL's DPO trainer on the same tokens, as pairs."""
    import torch

    from benchmarks.material import vocabulary_of
    from benchmarks.trl_side import measured_steps

    torch.set_num_threads(arguments.threads)
    return measured_steps(
        _sets(arguments), arguments.model, vocabulary_of(arguments.model), arguments.responses, arguments.sets,
        arguments.pairs[0], arguments.theirs[0], arguments.warm_up,
    )  # fmt: skip


def _sets(arguments: argparse.Namespace) -> Any:
    from benchmarks.material import SPREAD, RandomSets, vocabulary_of

    return RandomSets(
        arguments.sets * (arguments.steps + arguments.warm_up), arguments.responses, arguments.prompt, arguments.length,
        spread=SPREAD if arguments.lengths == "even" else None, vocabulary=vocabulary_of(arguments.model),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
