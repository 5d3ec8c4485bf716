"""Drawing with transformers: the right distribution, rows that end early, one draw for one seed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import Lfm2Config, Lfm2ForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from mpo.config.schema import SampleConfig
from mpo.config.training import Precision
from mpo.errors import ConfigError, DataError
from mpo.sample import Drawn, HFSampler, Request, SamplingJob
from mpo.sample.generation import BLOCK, Generation, inverse_cdf

STOPS = (3, 40, 41, 42, 43)
PROMPTS = [[7, 8, 9], [10, 11, 12, 13, 14], [20], [21, 22, 23, 24, 25, 26, 27], [30, 31]]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=111, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def recurrent_model(model: LlamaForCausalLM) -> Lfm2ForCausalLM:
    """Layers whose state can neither be repeated for more responses nor lose rows, beside attention."""
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=model.config.vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2,
        layer_types=["conv", "full_attention", "conv"],
    )  # fmt: skip
    return Lfm2ForCausalLM(config).eval()


def requests(n: int) -> list[Request]:
    return [Request(prompt, [1000 * i + k for k in range(n)]) for i, prompt in enumerate(PROMPTS)]


def drawn_alone(model: PreTrainedModel, decoding: SampleConfig, n: int) -> list[list[Drawn]]:
    draw = Generation(model, decoding, STOPS)
    return [[draw([Request(one.prompt_ids, [seed])])[0][0] for seed in one.seeds] for one in requests(n)]


@pytest.mark.parametrize("family", ["attention", "recurrent"])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_batches_and_order_change_no_draw(request: pytest.FixtureRequest, family: str, top_p: float) -> None:
    model = request.getfixturevalue("model" if family == "attention" else "recurrent_model")
    decoding = SampleConfig(temperature=0.9, top_p=top_p, max_new_tokens=24)
    alone = drawn_alone(model, decoding, 4)
    draw = Generation(model, decoding, STOPS)
    for size in (1, 2, 5):
        order = list(range(len(PROMPTS)))
        random.Random(size).shuffle(order)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            for position, found in zip(chosen, draw([requests(4)[i] for i in chosen]), strict=True):
                for one, other in zip(found, alone[position], strict=True):
                    assert (one.token_ids, one.finished) == (other.token_ids, other.finished)
                    assert one.token_logps == pytest.approx(other.token_logps, abs=2e-5)
    lengths = {len(one.token_ids) for of_request in alone for one in of_request}
    assert len(lengths) > 3, "rows that end at different times are the point of this test"
    assert {one.finished for of_request in alone for one in of_request} == {True, False}


def test_requests_may_ask_for_different_numbers(model: LlamaForCausalLM) -> None:
    decoding = SampleConfig(max_new_tokens=12)
    uneven = [Request(one.prompt_ids, one.seeds[: 1 + i % 3]) for i, one in enumerate(requests(3))]
    found = Generation(model, decoding, STOPS)(uneven)
    assert [len(each) for each in found] == [1, 2, 3, 1, 2]
    for one, whole in zip(found, drawn_alone(model, decoding, 3), strict=True):
        assert [each.token_ids for each in one] == [each.token_ids for each in whole[: len(one)]]


def test_other_seeds_are_other_draws_and_the_largest_is_one(model: LlamaForCausalLM) -> None:
    draw = Generation(model, SampleConfig(max_new_tokens=12), STOPS)
    ((first, second, third, again),) = draw([Request([7, 8], [0, 1, 2**64 - 1, 0])])
    assert len({tuple(one.token_ids) for one in (first, second, third)}) == 3
    assert first.token_ids == again.token_ids


def test_a_draw_goes_on_from_one_block_of_random_numbers_to_the_next(model: LlamaForCausalLM) -> None:
    """Many more tokens than a block; a shorter limit draws the beginning of the same response."""
    long, short = (
        Generation(model, SampleConfig(max_new_tokens=limit), [])(requests(2)) for limit in (2 * BLOCK + 9, BLOCK + 1)
    )
    for whole, start in zip(sum(long, []), sum(short, []), strict=True):
        assert len(whole.token_ids) == 2 * BLOCK + 9 and not whole.finished
        assert start.token_ids == whole.token_ids[: BLOCK + 1]
        assert whole.token_ids[BLOCK : 2 * BLOCK] != whole.token_ids[:BLOCK]


@pytest.mark.parametrize("family", ["attention", "recurrent"])
def test_nearly_greedy_equals_a_plain_loop_although_rows_end_at_different_times(
    request: pytest.FixtureRequest, family: str
) -> None:
    model = request.getfixturevalue("model" if family == "attention" else "recurrent_model")
    rows = [[5 + i, 50 + i, 9] if i % 2 else [60 + i] for i in range(8)]
    stops = [3, *range(40, 60)]
    draw = Generation(model, SampleConfig(temperature=1e-4, max_new_tokens=12), stops)
    found = draw([Request(row, [2 * i, 2 * i + 1]) for i, row in enumerate(rows)])
    lengths = set()
    for row, (one, two) in zip(rows, found, strict=True):
        ids, expected, logps = list(row), [], []
        while len(expected) < 12:
            with torch.no_grad():
                logps_V = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            expected.append(int(logps_V.argmax()))
            logps.append(float(logps_V.max()))
            ids.append(expected[-1])
            if expected[-1] in stops:
                break
        assert list(one.token_ids) == expected == list(two.token_ids)
        assert one.finished is (expected[-1] in stops)
        assert one.token_logps == pytest.approx(logps, abs=2e-5)  # of the policy, at temperature 1
        lengths.add(len(expected))
    assert len(lengths) > 1, "rows that end at different times are the point of this test"


@pytest.mark.parametrize(("temperature", "top_p"), [(0.8, 1.0), (1.0, 0.7), (1.3, 0.5)])
def test_first_tokens_follow_the_policy(model: LlamaForCausalLM, temperature: float, top_p: float) -> None:
    count = 20_000
    draw = Generation(model, SampleConfig(temperature=temperature, top_p=top_p, max_new_tokens=1), [3])
    (found,) = draw([Request([7, 8], range(count))])
    with torch.no_grad():
        logits_V = model(torch.tensor([[7, 8]])).logits[0, -1].double()
    expected_V = (logits_V / temperature).softmax(-1)
    order_V = expected_V.argsort(descending=True)
    before_V = expected_V[order_V].cumsum(0) - expected_V[order_V]
    expected_V[order_V[before_V >= top_p]] = 0  # the fewest that reach top_p stay
    expected_V /= expected_V.sum()
    counts_V = torch.bincount(torch.tensor([one.token_ids[0] for one in found]), minlength=111)
    assert int(counts_V[expected_V == 0].sum()) == 0
    common_V = expected_V * count >= 5
    rare = [counts_V[~common_V].sum().item()], [expected_V[~common_V].sum().item() * count]
    seen, wanted = counts_V[common_V].tolist(), (expected_V[common_V] * count).tolist()
    if rare[1][0] >= 5:
        seen, wanted = seen + rare[0], wanted + rare[1]
        assert chisquare(seen, wanted).pvalue > 1e-3
    else:
        assert chisquare(seen, [each * sum(seen) / sum(wanted) for each in wanted]).pvalue > 1e-3
    logps_V = logits_V.log_softmax(-1)
    for one in found[:50]:
        assert one.token_logps == pytest.approx([float(logps_V[one.token_ids[0]])], abs=2e-5)


def test_the_inverse_of_the_distribution_function_is_exact_at_its_ends() -> None:
    scores_RV = torch.log(torch.tensor([0.25, 0.0, 0.5, 0.25, 0.0])).repeat(7, 1)
    below = 1 - 2**-53
    uniforms_R = torch.tensor([0.0, 0.2, 0.2500001, 0.7, 0.7500001, 0.99, below], dtype=torch.float64)
    assert inverse_cdf(scores_RV, uniforms_R).tolist() == [0, 0, 2, 2, 3, 3, 3]  # never 1 or 4
    first_never_RV = torch.log(torch.tensor([[0.0, 1.0, 0.0]]))
    for uniform in (0.0, below):
        assert inverse_cdf(first_never_RV, torch.tensor([uniform], dtype=torch.float64)).tolist() == [1]


def test_logits_that_are_no_numbers_are_one_line(model: LlamaForCausalLM) -> None:
    broken = LlamaForCausalLM(model.config).eval()
    with torch.no_grad():
        broken.lm_head.weight[5] = float("nan")
    with pytest.raises(DataError, match="the policy's logits are not finite numbers"):
        Generation(broken, SampleConfig(max_new_tokens=4), STOPS)(requests(2))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 4), st.integers(20, 300))
def test_batches_hold_every_prompt_once_within_rows_and_tokens(lengths: list[int], n: int, tokens: int) -> None:
    batches = HFSampler(batch=12, batch_tokens=tokens).batches(lengths, SampleConfig(n=n, max_new_tokens=10))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)
    for batch in batches:
        rows = len(batch) * n
        assert len(batch) == 1 or (rows <= 12 and rows * (lengths[batch[0]] + 10) <= tokens)


@pytest.mark.parametrize("options", [{"batch": 0}, {"batch_tokens": -1}, {"batch": 10**7}])
def test_sizes_out_of_range_are_refused(options: dict[str, int]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=rf"sampler\.{name}: -?\d+ is out of range"):
        HFSampler(**options)


def test_it_draws_from_a_saved_policy(model: LlamaForCausalLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    decoding = SampleConfig(n=2, max_new_tokens=6, precision=Precision.fp32)
    with HFSampler().open(SamplingJob(str(tmp_path), None, False, decoding, STOPS, 64)) as draw:
        found = draw(requests(2))
    in_memory = Generation(model, decoding, STOPS)(requests(2))
    assert [[one.token_ids for one in each] for each in found] == [[one.token_ids for one in e] for e in in_memory]
