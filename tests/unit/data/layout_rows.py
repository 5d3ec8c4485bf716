"""A small valid row of each layout, by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def response_sets(number: int) -> Row:
    scored = [{"text": f"answer {number} {k}", "score": k, "model": f"m{k}"} for k in range(3)]
    return {"id": f"set-{number}", "prompt": f"question {number}", "responses": scored}


def parallel_lists(number: int) -> Row:
    return {"prompt": f"question {number}", "responses": ["one", f"two {number}"], "scores": [0.5, 2]}


def pairs(number: int) -> Row:
    return {"prompt": f"question {number}", "chosen": f"good {number}", "rejected": "bad"}


def conversation_pairs(number: int) -> Row:
    turns = [{"role": "user", "content": f"question {number}"}]
    return {
        "chosen": [*turns, {"role": "assistant", "content": f"good {number}"}],
        "rejected": [*turns, {"role": "assistant", "content": "bad"}],
    }


def ultrafeedback(number: int) -> Row:
    rating = {"Rating": "4", "Rationale": "fine"}
    completions = [
        {
            "model": f"m{k}",
            "response": f"answer {number} {k}",
            "overall_score": [3.5, 10, 7][k],
            "fine-grained_score": [3.0, None, 4.25][k],
            "annotations": {"honesty": rating, "helpfulness": {"Rating": "N/A"}},
        }
        for k in range(3)
    ]
    return {"source": "here", "instruction": f"question {number}", "completions": completions}


def binarized(number: int) -> Row:
    row = conversation_pairs(number)
    return {"prompt": f"question {number}", "prompt_id": f"p{number}", **row, "score_chosen": 8, "score_rejected": 6.5}


def armorm(number: int) -> Row:
    texts = [f"answer {number} {k}" for k in range(3)]
    return {"prompt": f"question {number}", "all_generated_responses": texts, "all_rm_scores": [0.1, 0.3, 0.2]}


def chat(number: int) -> Row:
    turns = [("system", "be kind"), ("user", f"question {number}"), ("assistant", f"answer {number}")]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


LAYOUTS: dict[str, list[Callable[[int], Row]]] = {
    "response_sets": [response_sets, parallel_lists],
    "pairs": [pairs, conversation_pairs],
    "ultrafeedback": [ultrafeedback],
    "ultrafeedback_binarized": [binarized],
    "ultrafeedback_armorm": [armorm],
    "chat": [chat],
}
