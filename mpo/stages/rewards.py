"""What a scorer says of the responses that a policy gives while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mpo.config.targets import build
from mpo.data.store import read_stored_sets
from mpo.data.tokens import TokenizedSets
from mpo.policy.module import PolicyModule
from mpo.policy.shared_prefix import for_decoding
from mpo.sample.base import Request, draw_seed
from mpo.sample.generation import Generation
from mpo.sample.hf import HFSampler
from mpo.sample.texts import Texts
from mpo.score.base import Item, Scorer, shown
from mpo.score.checked import scores_of_sets
from mpo.stages.nodes.train import Rewards

SPLIT = "heldout"
TOKENS_AT_ONCE = 16384
"""Of prompts and responses: their keys and values lie beside what training holds; 2 GiB for Llama-3-8B."""
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
    by_length = sorted(range(len(requests)), key=lambda i: (-len(requests[i].prompt_ids), i))
    sampler = HFSampler(batch_tokens=TOKENS_AT_ONCE)

    def of_share(rank: int, world_size: int) -> tuple[float, int]:
        texts, items, share = Texts(tokenizer, how.thinking), [], by_length[rank::world_size]
        batches = sampler.batches([len(requests[i].prompt_ids) for i in share], how.decoding)
        with for_decoding(policy) as model:
            draw = Generation(model, how.decoding, stops)
            for batch in batches:
                places = [share[at] for at in batch]
                for i, (drawn,) in zip(places, draw([requests[i] for i in places]), strict=True):
                    one, response = prompts[asked[i].id], texts.response(drawn, requests[i].prompt_ids)
                    items.append([Item(one.prompt, shown(response, how.thinking), one.tools)])
        scores = scores_of_sets(scorer, items) if items else []
        return sum(scores), len(scores)

    return of_share
