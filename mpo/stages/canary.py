"""Log-probs of the first prompt's tokens, by transformers on the CPU: no card has to hold the policy twice."""

from __future__ import annotations

from pathlib import Path

import torch

from mpo.cache.stage import Nothing
from mpo.data.chat import render_prompt
from mpo.data.store import read_stored_sets
from mpo.policy.pretrained import load_model
from mpo.sample.canary import MOST_TOKENS, Canary
from mpo.stages.context import StageContext
from mpo.stages.models import check_ids, model_source, stage_tokenizer
from mpo.stages.nodes import canary
from mpo.stages.summary import Summary


def run(context: StageContext[canary.Config, Nothing, canary.Inputs[Path]]) -> None:
    """Write ``canary.json``: ids of a prompt's beginning and their log-probs."""
    config, inputs = context.config, context.inputs
    tokenizer = stage_tokenizer(
        inputs.policy, inputs.tokenizer, config.chat_template, config.trust_remote_code, config.template_arguments
    )
    first = next(one for path in sorted(inputs.prompts.glob("*.parquet")) for one in read_stored_sets(path))
    ids = render_prompt(tokenizer, first.prompt, first.tools)[:MOST_TOKENS]
    check_ids(inputs.policy, config.trust_remote_code, max(ids), tokenizer)
    model = load_model(*model_source(inputs.policy), config.precision, config.trust_remote_code)
    with torch.inference_mode():
        logits_TV = model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
    logps_T = logits_TV.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    Canary(tuple(ids), tuple(logps_T.tolist())).write(context.output)
    Summary(facts={"": {"tokens": len(ids)}}).write(context.output)
