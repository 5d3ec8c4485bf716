"""A training step on response sets here and in TRL's DPO trainer: the same tokens, responses per second, memory.

    python -m benchmarks.step_vs_trl --responses 4 --prompt 180 --length 280 [--json]

TRL gets K/2 pairs for each prompt, so both sides train on every response once; its reference is precomputed too. Each
side runs in a process of its own and in the precision that ``--ours`` and ``--theirs`` name. Needs trl (1.16.0).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

from benchmarks.measure import PeakMemory, flags, report, resident, run_side, tell


def main() -> None:
    """Both sides, one after the other, or (``--side``) one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=4, help="K")
    parser.add_argument("--prompt", type=int, default=180, help="mean tokens of a prompt")
    parser.add_argument("--length", type=int, default=280, help="mean tokens of a response")
    parser.add_argument("--sets", type=int, default=4, help="sets per optimizer step")
    parser.add_argument("--steps", type=int, default=3, help="measured steps, after one of warm-up")
    parser.add_argument("--micro-batch", type=int, default=2, help="sets that we forward at once")
    parser.add_argument("--micro-tokens", type=int, default=16384, help="tokens that we forward at once")
    parser.add_argument("--checkpointing", action="store_true", help="our layers' activations computed again")
    parser.add_argument("--compile", action="store_true", help="our norms and gates fused by torch.compile")
    parser.add_argument("--pairs", type=int, default=2, help="pairs that TRL forwards at once")
    parser.add_argument("--ours", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--theirs", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=["mpo", "trl"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        tell({"mpo": ours, "trl": theirs}[arguments.side](arguments))
        return
    rows = [
        {"side": side, **run_side("benchmarks.step_vs_trl", [*flags(arguments), f"--side={side}"], arguments.threads)}
        for side in ("mpo", "trl")
    ]
    for row in rows:
        row["responses_per_second"] = arguments.sets * arguments.responses / row["seconds_a_step"]
        row["memory_above_model"] = row["peak_bytes"] - row["loaded_bytes"]
    mpo, trl = rows
    ratios = {
        "responses_per_second": mpo["responses_per_second"] / trl["responses_per_second"],
        "memory_above_model": mpo["memory_above_model"] / trl["memory_above_model"],
    }
    if arguments.json:
        report("step_vs_trl", arguments, [*rows, {"side": "ratio", **ratios}], ["trl"])
        return
    for row in rows:
        print(
            f"{row['side']:4} {row['seconds_a_step']:8.2f} s a step  {row['responses_per_second']:8.2f} responses/s  "
            f"{row['memory_above_model'] / 2**20:8.0f} MiB above the loaded model  ({row['tokens']} tokens forwarded)"
        )
    faster, leaner = ratios["responses_per_second"], ratios["memory_above_model"]
    print(f"{faster:.2f} times the responses per second, {leaner:.2f} times the memory")


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Our loop on DeepSpeed, MPO on whole sets."""
    import torch

    from benchmarks.material import RandomSets, llama
    from benchmarks.steps import measured_steps
    from mpo.config.schema import Precision

    torch.set_num_threads(arguments.threads)
    sets = RandomSets(arguments.sets * (arguments.steps + 1), arguments.responses, arguments.prompt, arguments.length)
    return measured_steps(
        llama(torch.bfloat16 if arguments.ours == "bf16" else torch.float32), sets, arguments.responses, arguments.sets,
        micro_batch=arguments.micro_batch, micro_tokens=arguments.micro_tokens, precision=Precision[arguments.ours],
        activation_checkpointing=arguments.checkpointing, compile=arguments.compile,
    )  # fmt: skip


def theirs(arguments: argparse.Namespace) -> dict[str, Any]:
    """TRL's DPO trainer on the same tokens, as pairs."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from benchmarks.material import END, VOCABULARY, RandomSets, llama

    torch.set_num_threads(arguments.threads)
    special = {"<pad>": 0, "<s>": 1, "</s>": END}
    words = special | {f"w{i}": i for i in range(len(special), VOCABULARY)}
    model = Tokenizer(WordLevel(words, unk_token="<pad>"))
    model.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
    )
    sets = RandomSets(arguments.sets * (arguments.steps + 1), arguments.responses, arguments.prompt, arguments.length)
    rows = []
    for i in range(len(sets)):
        one = sets[i]
        prompt = " ".join(f"w{token}" for token in one.prompt_ids)
        texts = ["".join(f" w{token}" for token in ids[:-1]) + " </s>" for ids in one.response_ids]
        half = arguments.responses // 2
        rows += [{"prompt": prompt, "chosen": texts[k], "rejected": texts[half + k]} for k in range(half)]
    pairs = arguments.sets * (arguments.responses // 2)
    seconds: list[float] = []

    class Clock(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            Clock.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - Clock.began)

    lm = llama()
    loaded = resident()
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, per_device_train_batch_size=arguments.pairs,
            gradient_accumulation_steps=max(1, pairs // arguments.pairs), num_train_epochs=1, learning_rate=1e-5,
            precompute_ref_log_probs=True, precompute_ref_batch_size=arguments.pairs, max_length=None,
            bf16=arguments.theirs == "bf16", use_cpu=not torch.cuda.is_available(), gradient_checkpointing=False,
            dataloader_num_workers=0, report_to=[], logging_steps=10**9, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = DPOTrainer(
            lm, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[Clock()]
        )
        trained = trainer.train_dataset[0]
        assert trained["prompt_ids"] == sets[0].prompt_ids.tolist()
        assert trained["chosen_ids"] == sets[0].response_ids[0].tolist()
        with PeakMemory.watched() as memory:
            trainer.train()
    tokens = sum(
        2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in trainer.train_dataset
    )
    return {
        "seconds_a_step": statistics.median(seconds[1:]),
        "loaded_bytes": loaded,
        "peak_bytes": memory.peak,
        "tokens": round(tokens / len(seconds)),
        "precision": arguments.theirs,
    }


if __name__ == "__main__":
    main()
