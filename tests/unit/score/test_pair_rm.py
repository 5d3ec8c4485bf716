"""PairRM: its logits, and the scores that SPPO makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Tokenizer

from mpo.config.training import Precision
from mpo.errors import ConfigError, DataError, UserError
from mpo.score import Item
from mpo.score.checked import scores_of_sets
from mpo.score.pair_model import CUT_PROMPT, CUT_RESPONSE
from mpo.score.pair_rm import PairRM, prompt_text
from mpo.types import Message
from tests.unit.score import tiny

PIECES = ["▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:!?", "▁the", "▁door", "▁it", "▁Throw"]
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
PREFIXES = ["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"]
SIZE, TASKS = 16, 3
RESPONSES = ["Hold the door.", "Throw it!", "Throw it far, far away? Hold it. Name the door, and throw it.", "No"]
SET = [tiny.item(text) for text in RESPONSES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("pair"))


def saved(folder: Path) -> Path:
    vocab = [*((token, 0.0) for token in SPECIAL), *((piece, -float(len(piece) < 2)) for piece in PIECES)]
    tokenizer = DebertaV2Tokenizer(vocab=vocab)
    tokenizer.add_tokens(PREFIXES, special_tokens=True)
    tokenizer.save_pretrained(folder)
    ids = dict(zip(PREFIXES, tokenizer.convert_tokens_to_ids(PREFIXES), strict=True))
    config = DebertaV2Config(
        vocab_size=len(tokenizer), max_position_embeddings=128, initializer_range=0.4, relative_attention=True,
        position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p", type_vocab_size=0,
        position_biased_input=False, max_relative_positions=-1, **tiny.SIZE,
    )  # fmt: skip
    torch.manual_seed(2)
    head = {"1.weight": torch.randn(SIZE, 2 * SIZE) / 4, "1.bias": torch.randn(SIZE)}
    head |= {"4.weight": torch.randn(TASKS, SIZE), "4.bias": torch.randn(TASKS)}
    named = tiny.named(tiny.backbone(config), "pretrained_model.")
    keys = {
        "architectures": ["DebertaV2PairRM"], "n_tasks": TASKS, "drop_out": 0.05,
        "source_prefix_id": ids["<|source|>"], "cand1_prefix_id": ids["<|candidate1|>"],
        "cand2_prefix_id": ids["<|candidate2|>"], "cand_prefix_id": ids["<|candidate|>"], "sep_token_id": 2,
    }  # fmt: skip
    tiny.save(folder, config, {**named, **{f"head_layer.{name}": value for name, value in head.items()}}, **keys)
    return folder


def model(folder: Path, **options: Any) -> PairRM:
    return PairRM(str(folder), **options)


def logit(folder: Path, prompt: str, first: str, second: str, most: tuple[int, int] = (1224, 412)) -> float:
    """That ``first`` is better, as the model card reads a pair: three parts cut on their own, found by their prefix."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    source = tokenizer.encode(PREFIXES[0] + prompt, max_length=most[0], truncation=True)
    each = (most[0] + 2 * most[1] - len(source)) // 2
    parts = [
        tokenizer.encode(prefix + text, max_length=each, truncation=True)
        for prefix, text in zip(PREFIXES[1:3], (first, second), strict=True)
    ]
    ids = [*source, *parts[0], *parts[1]]
    weights = load_file(folder / "model.safetensors")
    from transformers import AutoConfig

    base = tiny.backbone(AutoConfig.from_pretrained(folder))
    base.load_state_dict(
        {name.removeprefix("pretrained_model."): value for name, value in weights.items() if "pretrained" in name}
    )
    states = tiny.hidden(base, ids)
    source_state, *candidates = (states[ids.index(tokenizer.convert_tokens_to_ids(prefix))] for prefix in PREFIXES[:3])
    outputs = []
    for state in candidates:
        inner = weights["head_layer.1.weight"] @ torch.cat([source_state, state]) + weights["head_layer.1.bias"]
        outputs.append(weights["head_layer.4.weight"] @ torch.tanh(inner) + weights["head_layer.4.bias"])
    return float((outputs[0] - outputs[1]).mean())


def by_hand(folder: Path, prompt: str, responses: list[str], most: tuple[int, int] = (1224, 412)) -> list[float]:
    c = [[0.0 if a == b else logit(folder, prompt, a, b, most) for b in responses] for a in responses]
    count = len(responses)
    return [sum(c[i][j] - c[j][i] for j in range(count)) / count for i in range(count)]


def test_scores_are_the_mean_of_both_orders_against_every_response(folder: Path) -> None:
    scorer = model(folder)
    scorer.check()
    expected = by_hand(folder, "Name a use of a brick.", RESPONSES)
    assert scores_of_sets(scorer, [SET]) == pytest.approx(expected, abs=1e-5)
    assert sum(expected) == pytest.approx(0, abs=1e-4) and max(expected) - min(expected) > 0.05
    assert scorer.take_warnings() == {}


@pytest.mark.parametrize("batch_tokens", [1, 200])
def test_batches_change_no_score(folder: Path, batch_tokens: int) -> None:
    assert model(folder, batch_tokens=batch_tokens).score(SET) == pytest.approx(model(folder).score(SET), abs=1e-5)


def test_sets_are_scored_on_their_own_whatever_their_sizes(folder: Path) -> None:
    scorer = model(folder)
    sets = [SET, [], SET[:1], SET[1:3]]
    assert scores_of_sets(scorer, sets) == pytest.approx([*scorer.score(SET), 0.0, *scorer.score(SET[1:3])], abs=1e-6)


def test_too_long_texts_lose_their_end_as_published_and_are_counted(folder: Path) -> None:
    scorer = model(folder, prompt_tokens=12, response_tokens=14)
    expected = by_hand(folder, "Name a use of a brick.", RESPONSES, (12, 14))
    assert scorer.score(SET) == pytest.approx(expected, abs=1e-5)
    long = sum(len(AutoTokenizer.from_pretrained(folder)(PREFIXES[1] + text)["input_ids"]) > 14 for text in RESPONSES)
    assert 0 < long < 4 and scorer.take_warnings() == {CUT_PROMPT: 4, CUT_RESPONSE: long}
    assert scorer.take_warnings() == {}


def test_a_conversation_is_a_line_for_each_turn() -> None:
    turns = (
        Message("system", "Hold it."),
        Message("user", "Throw"),
        Message("assistant", "it"),
        Message("user", "far"),
    )
    found = prompt_text(Item(turns, Message("assistant", "no")))
    assert found == "system: Hold it.\nuser: Throw\nassistant: it\nuser: far"
    assert prompt_text(SET[0]) == "Name a use of a brick."


def test_prefixes_within_a_text_do_not_mislead_it(folder: Path) -> None:
    odd = [tiny.item(f"No {PREFIXES[2]} Throw it"), SET[0]]
    scores = model(folder).score(odd)
    assert scores[0] == pytest.approx(-scores[1], abs=1e-5) and scores[0] != 0


def test_the_head_stays_float32_beside_bfloat16_weights(folder: Path) -> None:
    scorer = model(folder, precision=Precision.bf16)
    lm = scorer._loaded.lm
    assert lm.head_layer[1].weight.dtype is torch.float32
    assert lm.pretrained_model.embeddings.word_embeddings.weight.dtype is torch.bfloat16
    assert scorer.score(SET) == pytest.approx(model(folder).score(SET), abs=0.5)
    scorer.close()
    assert "_loaded" not in vars(scorer)


def test_what_is_no_pair_rm_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="score.response_tokens: 0 is too few"):
        model(folder, response_tokens=0).check()
    tiny.tokenizer(tmp_path)
    base = tiny.backbone()
    tiny.save(tmp_path, base.config, tiny.named(base))
    with pytest.raises(ConfigError, match=r"is no PairRM: its config\.json has no source_prefix_id"):
        model(tmp_path).check()
    with pytest.raises(ConfigError, match=r"score\.path: '.*' is no PairRM; name llm-blender/PairRM-hf"):
        model(tmp_path).score(SET)


def test_a_tokenizer_without_the_prefixes_is_one_line(tmp_path: Path) -> None:
    saved(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "cand2_prefix_id": 5}))
    with pytest.raises(ConfigError, match=r"its tokenizer does not read <\|candidate2\|> as token 5; take the tok"):
        model(tmp_path).score(SET)


def test_weights_that_are_missing_are_named_and_nan_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "head_layer.4.bias": torch.full((TASKS,), torch.nan)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="score: pair_rm .* gives a comparison that is not finite"):
        model(tmp_path).score(SET)
    del weights["head_layer.1.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks the weight head_layer\.1\.bias"):
        model(tmp_path).score(SET)
