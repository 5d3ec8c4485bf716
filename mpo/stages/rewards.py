"""What a scorer says of the responses that a policy gives while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mpo.config.targets import build
from mpo.data.store import read_stored_sets
from mpo.data.tokens import TokenizedSets
from mpo.policy.module import PolicyModule
from mpo.policy.shared_prefix import without_sharing
from mpo.sample.base import Request, draw_seed
from mpo.sample.generation import Generation
from mpo.sample.hf import HFSampler
from mpo.sample.texts import Texts
from mpo.score.base import Item, Scorer
from mpo.score.checked import scores_of_sets
from mpo.stages.nodes.train import Rewards

SPLIT = "heldout"
SEED = 0
"""One for all runs, and the same numbers for a prompt in each evaluation: curves differ by their policies."""


def heldout_rewards(
    how: Rewards, allow_targets: Sequence[str], sets: TokenizedSets, source: Path, count: int, policy: PolicyModule,
    tokenizer: PreTrainedTokenizerBase, stops: Sequence[int],
) -> Callable[[int, int], tuple[float, int]]:  # fmt: skip
    """What answers the first ``count`` held-out prompts with ``policy`` as it is then, and scores the responses.

    Args:
        sets: the held-out ones, whose prompts are rendered as the policy reads them.
        source: folder of the same sets with their messages.

    Returns:
        Given a process's rank and how many there are, the sum and number of the scores of its share.
    """
    scorer = build(how.scorer, Scorer, list(allow_targets), "score")  # type: ignore[type-abstract]
    prompts = {one.id: one for one in read_stored_sets(source / f"{SPLIT}.parquet")}
    asked = [sets[i] for i in range(min(count, len(sets)))]
    requests = [Request(one.prompt_ids.tolist(), [draw_seed(SEED, 0, SPLIT, one.id, 0)]) for one in asked]
    batches = HFSampler().batches([len(request.prompt_ids) for request in requests], how.decoding)

    def of_share(rank: int, world_size: int) -> tuple[float, int]:
        texts, items = Texts(tokenizer, how.thinking), []
        with without_sharing(policy) as model:
            draw = Generation(model, how.decoding, stops)
            for batch in batches[rank::world_size]:
                for i, (drawn,) in zip(batch, draw([requests[i] for i in batch]), strict=True):
                    answer = replace(texts.response(drawn, requests[i].prompt_ids).message, reasoning=None)
                    items.append([Item(prompts[asked[i].id].prompt, answer, prompts[asked[i].id].tools)])
        scores = scores_of_sets(scorer, items) if items else []
        return sum(scores), len(scores)

    return of_share
