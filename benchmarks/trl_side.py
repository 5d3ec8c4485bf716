"""TRL's DPO trainer on the benchmarks' material, with the settings that are its best on this device.

On a card: FlashAttention 2 where ``flash_attn`` is installed, else PyTorch's scaled-dot-product attention; padding-free
where this version has it with that attention; Liger's layers where ``liger_kernel`` is installed, and its loss where
this version has no chunked head of its own; the fused AdamW. Everywhere: reference precomputed, nothing computed
again. What really ran is recorded with the figures. Not yet run on a card.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
import tempfile
from typing import TYPE_CHECKING, Any

from benchmarks.material import END, RandomSets, llama
from benchmarks.measure import PeakMemory, held, now, on_card

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PRECISIONS = ("fp32", "bf16", "bf16-weights")
"""``bf16``: float32 weights under autocast; ``bf16-weights``: bfloat16 weights and optimizer state, no float32 copy."""


def measured_steps(
    sets: RandomSets,
    size: str,
    vocabulary: int,
    responses: int,
    sets_a_step: int,
    pairs: int,
    precision: str,
    warm_up: int,
) -> dict[str, Any]:
    """Train on ``sets`` as K/2 pairs each; the first ``warm_up`` steps do not count.

    Seconds are those between a step's begin and its end as TRL's callbacks see them, without the batches' collation.

    Args:
        size: of the model, see :data:`benchmarks.material.SIZES`.
        pairs: that are forwarded at once.
        precision: one of :data:`PRECISIONS`.
    """
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOTrainer

    half = responses // 2
    of_step = sets_a_step * half
    if of_step % pairs:
        raise ValueError(f"{of_step} pairs a step cannot be forwarded {pairs} at once")
    rows = []
    for one in (sets[i] for i in range(len(sets))):
        prompt = " ".join(f"w{token}" for token in one.prompt_ids)
        texts = ["".join(f" w{token}" for token in ids[:-1]) + " </s>" for ids in one.response_ids]
        rows += [{"prompt": prompt, "chosen": texts[k], "rejected": texts[half + k]} for k in range(half)]
    seconds: list[float] = []

    class Clock(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            Clock.began = now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(now() - Clock.began)

    lm = llama(
        torch.bfloat16 if precision == "bf16-weights" else torch.float32, size=size, attention=_attention(precision)
    )
    lm.to("cuda" if on_card() else "cpu")
    loaded = held()
    with tempfile.TemporaryDirectory() as folder:
        config = _config(folder, pairs, of_step // pairs, precision, lm.config._attn_implementation)
        trainer = DPOTrainer(
            lm, args=config, train_dataset=Dataset.from_list(rows), processing_class=_tokenizer(vocabulary),
            callbacks=[Clock()],
        )  # fmt: skip
        trained = trainer.train_dataset[0]
        assert trained["prompt_ids"] == sets[0].prompt_ids.tolist()
        assert trained["chosen_ids"] == sets[0].response_ids[0].tolist()
        with PeakMemory.watched() as memory:
            trainer.train()
    tokens = sum(
        2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in trainer.train_dataset
    )
    return {
        "seconds_a_step": statistics.median(seconds[warm_up:]),
        "mean_seconds_a_step": statistics.fmean(seconds[warm_up:]),
        "loaded_bytes": loaded,
        "peak_bytes": memory.peak,
        "reserved_bytes": memory.reserved,
        "tokens": round(tokens / len(seconds)),
        "precision": precision,
        "pairs": pairs,
        "settings": _settings(trainer),
    }


def _attention(precision: str) -> str:
    """transformers' name of the fastest implementation that is here; FlashAttention has no float32."""
    flash = on_card() and precision != "fp32" and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if flash else "sdpa"


def _config(folder: str, pairs: int, accumulated: int, precision: str, attention: str) -> Any:
    import torch
    from trl import DPOConfig

    known = {field.name for field in dataclasses.fields(DPOConfig)}
    liger = on_card() and importlib.util.find_spec("liger_kernel") is not None
    chosen: dict[str, Any] = {"padding_free": attention == "flash_attention_2", "use_liger_kernel": liger}
    chosen["use_liger_loss"] = liger and not _has_own_head()  # of versions before it
    return DPOConfig(
        output_dir=folder, per_device_train_batch_size=pairs, gradient_accumulation_steps=accumulated,
        num_train_epochs=1, learning_rate=1e-5, precompute_ref_log_probs=True, precompute_ref_batch_size=pairs,
        max_length=None, bf16=precision != "fp32", use_cpu=not torch.cuda.is_available(), gradient_checkpointing=False,
        optim="adamw_torch_fused" if on_card() else "adamw_torch", dataloader_num_workers=0, report_to=[],
        logging_steps=10**9, save_strategy="no", disable_tqdm=True,
        **{name: value for name, value in chosen.items() if name in known},
    )  # fmt: skip


def _has_own_head() -> bool:
    from trl.trainer import utils

    return hasattr(utils, "add_fused_lm_head")


def _settings(trainer: Any) -> dict[str, Any]:
    """What ran, as the trainer has it now: this version may have changed what it was asked for."""
    arguments = trainer.args
    liger_loss = bool(getattr(arguments, "use_liger_loss", False))
    return {
        "attention": trainer.model.config._attn_implementation,
        "head": "Liger's loss" if liger_loss else "TRL's own, in chunks" if _has_own_head() else "full logits",
        "padding_free": bool(getattr(trainer, "padding_free", False)),
        "liger_layers": bool(arguments.use_liger_kernel),
        "optimizer": str(getattr(arguments.optim, "value", arguments.optim)),
        "autocast": bool(arguments.bf16),
        "weights": str(next(trainer.model.parameters()).dtype).removeprefix("torch."),
        "precomputed_reference": bool(arguments.precompute_ref_log_probs),
        "gradient_checkpointing": bool(arguments.gradient_checkpointing),
    }


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A word ``wN`` for each id N."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    special = {"<pad>": 0, "<s>": 1, "</s>": END}
    words = special | {f"w{i}": i for i in range(len(special), vocabulary)}
    model = Tokenizer(WordLevel(words, unk_token="<pad>"))
    model.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
    )
