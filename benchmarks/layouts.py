"""Forward and backward of one set in three layouts: padded rows, packed rows, one row with a shared prompt.

    python -m benchmarks.layouts [--responses 2 4 8 16 64] [--json]

Packed rows hold every response with a prompt of its own, side by side without padding. Each measurement runs in a
process of its own; ratios are to padded rows.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from benchmarks.measure import PeakMemory, flags, held, now, report, run_side, tell

LAYOUTS = ("padded", "packed", "shared")


def main() -> None:
    """Every layout at every K."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "20m", "1b", "8b"], default="20m")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--responses", type=int, nargs="+", default=[2, 4, 8, 16, 64], help="K")
    parser.add_argument("--prompt", type=int, default=180, help="mean tokens of a prompt")
    parser.add_argument("--length", type=int, default=280, help="mean tokens of a response")
    parser.add_argument("--repeats", type=int, default=3, help="after one that warms up; the fastest counts")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        layout, k = arguments.side.split("-")
        tell(_measure(arguments, layout, int(k)))
        return
    shared = flags(
        argparse.Namespace(**{name: value for name, value in vars(arguments).items() if name != "responses"})
    )
    rows: list[dict[str, Any]] = []
    for k in arguments.responses:
        sides = {layout: run_side("benchmarks.layouts", [*shared, f"--side={layout}-{k}"], arguments.threads)
                 for layout in LAYOUTS}  # fmt: skip
        for layout, side in sides.items():
            faster = sides["padded"]["seconds"] / side["seconds"]
            memory = side["memory_bytes"] / sides["padded"]["memory_bytes"]
            rows.append({"responses": k, "layout": layout, **side, "speed_ratio": faster, "memory_ratio": memory})
            if not arguments.json:
                print(
                    f"K = {k:3}  {layout:6}  {k / side['seconds']:8.2f} responses/s ({faster:.2f} times)  "
                    f"{side['memory_bytes'] / 2**20:7.0f} MiB ({memory:.2f} times)  {side['tokens']} tokens"
                )
    if arguments.json:
        report("layouts", arguments, rows)


def _measure(arguments: argparse.Namespace, layout: str, responses: int) -> dict[str, Any]:
    import torch

    from benchmarks.material import RandomSets, dtype_of, llama, vocabulary_of
    from mpo.config.training import Precision
    from mpo.layout.batch import collate
    from mpo.policy.devices import join_group
    from mpo.policy.module import PolicyModule
    from mpo.policy.shared_prefix import share_prefix

    torch.set_num_threads(arguments.threads)
    lm = llama(dtype_of(Precision[arguments.precision]), size=arguments.model)
    if layout != "padded":
        assert share_prefix(lm)
    policy = PolicyModule(lm).to(join_group())
    vocabulary = vocabulary_of(arguments.model)
    one = RandomSets(1, responses, arguments.prompt, arguments.length, vocabulary=vocabulary)[0]
    batch = collate([one] if layout == "shared" else one.alone()).to(policy.device)
    loaded = held()
    seconds = []
    with PeakMemory.watched() as memory:
        for _ in range(arguments.repeats + 1):
            began = now()
            policy(batch).token_logps_BKT.sum().backward()
            seconds.append(now() - began)
            policy.zero_grad()
    rows = batch.prompt_lengths_S[batch.prompt_of_R] + batch.response_lengths_R
    tokens = len(rows) * int(rows.max()) if layout == "padded" else batch.tokens
    return {"seconds": min(seconds[1:]), "memory_bytes": memory.peak - loaded, "tokens": tokens}


if __name__ == "__main__":
    main()
