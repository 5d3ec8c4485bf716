"""Task files of lm_eval with their data, as a user may keep them, and a tiny policy that can be asked."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from mpo.evaluate.policy_measure import PolicyFiles
from tests.unit.score.tiny import SIZE, tokenizer

WORDS = ("Hold", "the", "door", "open", "Throw", "it", "far")
CHOICES = [
    {
        "question": f"Name use {i} of a brick.",
        "choices": [f"{WORDS[(i + k) % 7]} {WORDS[(i * i + 2 * k) % 7]}" for k in range(3)],
        "answer": i % 3,
    }
    for i in range(12)
]
SUMS = [{"question": f"{i} + {i}", "answer": str(2 * i)} for i in range(6)]


def task_files(folder: Path) -> Path:
    """A folder with a multiple-choice task ``bricks``, a task ``sums`` that generates, and what people get wrong."""
    folder.mkdir()
    choice = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "fewshot_split": "test",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    generated = {
        "output_type": "generate_until",
        "doc_to_text": "{{question}} =",
        "doc_to_target": "answer",
        "num_fewshot": 0,
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {"name": "strict-match", "filter": [{"function": "regex", "regex_pattern": r"(\d+)"},
                                                {"function": "take_first"}]},
        ],
    }  # fmt: skip
    for name, task, rows in (("bricks", choice, CHOICES), ("sums", generated, SUMS)):
        data = folder / f"{name}.json"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        _write(folder, name, task, dataset_path="json", dataset_kwargs={"data_files": {"test": str(data)}})
    _write(folder, "far_away", choice, dataset_path="owner/far_away")
    _write(folder, "unsafe", choice, unsafe_code=True, dataset_path="json",
           dataset_kwargs={"data_files": {"test": str(folder / "bricks.json")}})  # fmt: skip
    return folder


def _write(folder: Path, name: str, task: dict[str, object], **more: object) -> None:
    text = yaml.safe_dump({"task": name, "test_split": "test", **task, **more, "metadata": {"version": 1.0}})
    (folder / f"{name}.yaml").write_text(text)


def policy(folder: Path, seed: int = 0) -> PolicyFiles:
    """A random Llama of two layers with Llama 3's template."""
    folder.mkdir()
    tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=320, max_position_embeddings=256, initializer_range=0.3, eos_token_id=1, **SIZE)
    LlamaForCausalLM(config).save_pretrained(folder)
    return PolicyFiles(str(folder), None, str(folder), True, None, False)
