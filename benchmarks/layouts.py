"""Forward and backward of one set in three layouts: padded rows, packed rows, one row with a shared prompt.

    python -m benchmarks.layouts [--responses 2 4 8 16 64] [--json]

Packed rows hold every response with a prompt of its own, side by side without padding. Each measurement runs in a
process of its own; ratios are to padded rows.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from benchmarks.measure import PeakMemory, report, resident, run_side, tell

LAYOUTS = ("padded", "packed", "shared")


def main() -> None:
    """Every layout at every K."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, nargs="+", default=[2, 4, 8, 16, 64], help="K")
    parser.add_argument("--prompt", type=int, default=180, help="mean tokens of a prompt")
    parser.add_argument("--length", type=int, default=280, help="mean tokens of a response")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        layout, k = arguments.side.split("-")
        tell(_measure(arguments, layout, int(k)))
        return
    shared = [f"--{name}={getattr(arguments, name)}" for name in ("prompt", "length", "repeats", "threads")]
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

    from benchmarks.material import RandomSet, RandomSets, llama
    from mpo.layout.batch import collate
    from mpo.policy.module import PolicyModule
    from mpo.policy.shared_prefix import share_prefix

    torch.set_num_threads(arguments.threads)
    cuda = torch.cuda.is_available()
    lm = llama()
    if layout != "padded":
        assert share_prefix(lm)
    policy = PolicyModule(lm).to("cuda" if cuda else "cpu")
    one = RandomSets(1, responses, arguments.prompt, arguments.length)[0]
    alone = [RandomSet(one.id, one.prompt_ids, [ids], [False]) for ids in one.response_ids]
    batch = collate([one] if layout == "shared" else alone).to(policy.device)
    loaded = torch.cuda.memory_allocated() if cuda else resident()
    seconds = []
    with PeakMemory.watched() as memory:
        for _ in range(arguments.repeats + 1):
            began = time.perf_counter()
            policy(batch).token_logps_BKT.sum().backward()
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
            policy.zero_grad()
    rows = batch.prompt_lengths_S[batch.prompt_of_R] + batch.response_lengths_R
    tokens = len(rows) * int(rows.max()) if layout == "padded" else batch.tokens
    peak = torch.cuda.max_memory_allocated() if cuda else memory.peak
    return {"seconds": min(seconds[1:]), "memory_bytes": peak - loaded, "tokens": tokens}


if __name__ == "__main__":
    main()
