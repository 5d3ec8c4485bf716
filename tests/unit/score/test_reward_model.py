"""Reward models with one output: the published formula, whatever the batch, the padding or the BOS."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GemmaConfig, Qwen2Config

from mpo.config.training import Precision
from mpo.errors import ConfigError, DataError, UserError
from mpo.score import Item
from mpo.score.checked import checked_scores
from mpo.score.forward import by_length
from mpo.score.heads import last_token
from mpo.score.reward_model import CUT, CUT_RESPONSE, Head, RewardModel, TooLong
from mpo.types import Message
from tests.unit.score import tiny

ONE = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("reward"))


def saved(folder: Path, **tokenizer: Any) -> Path:
    base = tiny.backbone()
    tiny.tokenizer(folder, **tokenizer)
    torch.manual_seed(1)
    tiny.save(folder, base.config, {**tiny.named(base), "score.weight": torch.randn(1, 16)}, **ONE)
    return folder


def model(folder: Path, **options: Any) -> RewardModel:
    return RewardModel(**{"path": str(folder), "max_tokens": 256, "precision": Precision.fp32, **options})


def by_hand(folder: Path, items: list[Item], bos: int = 1) -> list[float]:
    """score.weight · h at the last token of each conversation, computed one by one."""
    weights = load_file(folder / "model.safetensors")
    tokenizer, base = AutoTokenizer.from_pretrained(folder), tiny.backbone()
    first = [tokenizer.bos_token_id] * (bos - 1)
    states = [tiny.hidden(base, first + tiny.text_ids(tokenizer, one)) for one in items]
    return [float(weights["score.weight"][0].float() @ state[-1]) for state in states]


def test_the_score_is_the_head_at_the_last_token_of_the_conversation(folder: Path) -> None:
    scorer = model(folder)
    scorer.check()
    found, expected = checked_scores(scorer, tiny.ITEMS), by_hand(folder, tiny.ITEMS)
    assert found == pytest.approx(expected, abs=1e-5)
    assert max(found) - min(found) > 0.5  # the comparison is one of numbers that differ


def test_it_is_what_transformers_gives_for_one_conversation(folder: Path) -> None:
    lm = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        logits = [float(lm(torch.tensor([tiny.text_ids(tokenizer, one)])).logits[0, 0]) for one in tiny.ITEMS]
    assert model(folder).score(tiny.ITEMS) == pytest.approx(logits, abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 60, 100_000])
def test_batches_change_no_score(folder: Path, batch_tokens: int) -> None:
    alone = [model(folder).score([one])[0] for one in tiny.ITEMS]
    assert model(folder, batch_tokens=batch_tokens).score(tiny.ITEMS) == pytest.approx(alone, abs=1e-5)


def test_batches_hold_rows_of_similar_length_and_no_more_tokens_than_allowed() -> None:
    assert list(by_length([3, 9, 4, 20, 8], 18)) == [[3], [1, 4], [2, 0]]
    assert list(by_length([], 18)) == []


@pytest.mark.parametrize(
    "options",
    [{"pad_token": tiny.EOT}, {"pad_token": None}, {"padding_side": "left"}, {"padding_side": "right"}],
    ids=["pad is eos", "no pad", "left", "right"],
)
def test_padding_does_not_matter(folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    other = model(saved(tmp_path, **options))
    assert other.score(tiny.ITEMS) == pytest.approx(by_hand(folder, tiny.ITEMS), abs=1e-5)


def test_the_last_token_is_found_by_the_mask_on_either_side() -> None:
    hidden_BTD = torch.arange(8.0).reshape(2, 4, 1)
    mask_BT = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
    assert last_token(hidden_BTD, mask_BT).tolist() == [[1.0], [7.0]]
    assert last_token(hidden_BTD.bfloat16(), mask_BT).dtype is torch.float32


@pytest.mark.parametrize("adds_bos", [True, False])
def test_there_is_one_bos_whoever_writes_it_and_two_only_if_wanted(tmp_path: Path, adds_bos: bool) -> None:
    folder = saved(tmp_path, adds_bos=adds_bos)
    once, twice = model(folder), model(folder, bos=2)
    one, two = once._input_ids(tiny.ITEMS[0]), twice._input_ids(tiny.ITEMS[0])
    bos = once._loaded.tokenizer.bos_token_id
    assert one.count(bos) == 1 and one[0] == bos and two == [bos, *one]
    assert twice.score(tiny.ITEMS) == pytest.approx(by_hand(folder, tiny.ITEMS, bos=2), abs=1e-5)
    assert abs(twice.score(tiny.ITEMS)[0] - once.score(tiny.ITEMS)[0]) > 1e-3


def test_a_second_bos_of_a_template_without_any_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, adds_bos=False)
    scorer = model(folder, bos=2, chat_template="chatml")
    with pytest.raises(ConfigError, match="score.bos: neither template nor tokenizer writes a BOS; set it to 1"):
        scorer.score(tiny.ITEMS)


def test_tools_reach_the_template(folder: Path, tmp_path: Path) -> None:
    tools = json.dumps([{"type": "function", "function": {"name": "throw", "description": "", "parameters": {}}}])
    template = tmp_path / "tools.jinja"
    template.write_text(
        "{{ bos_token }}{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
        "{% for turn in messages %}{{ turn.role }}:{{ turn.content }}<|eot_id|>{% endfor %}"
    )
    scorer = model(folder, chat_template=str(template))
    texts = [scorer._loaded.tokenizer.decode(scorer._input_ids(tiny.item("Yes", tools=each))) for each in (None, tools)]
    assert "throw" not in texts[0] and texts[1].startswith(f"{tiny.BOS}throw")


def test_too_long_conversations_lose_their_beginning_and_are_counted(folder: Path) -> None:
    scorer = model(folder, max_tokens=24)
    long = tiny.item("Throw it!", prompt="Name a use of a brick. " * 9)
    longer = tiny.item("Throw it far away? " * 12)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for one in (long, longer):
        whole, cut = tiny.text_ids(tokenizer, one), scorer._input_ids(one)
        assert len(cut) == 24 and cut == [whole[0], *whole[-23:]]
    assert scorer.take_warnings() == {CUT: 1, CUT_RESPONSE: 1} and scorer.take_warnings() == {}
    weight, base = load_file(folder / "model.safetensors")["score.weight"][0], tiny.backbone()
    whole = tiny.text_ids(tokenizer, long)
    assert scorer.score([long])[0] == pytest.approx(
        float(weight @ tiny.hidden(base, [whole[0], *whole[-23:]])[-1]), abs=1e-5
    )
    with pytest.raises(DataError, match=r"score.max_tokens: a conversation has \d+ tokens, more than max_tokens=24"):
        model(folder, max_tokens=24, too_long=TooLong.refuse).score([long])


def test_the_head_stays_float32_beside_bfloat16_weights(folder: Path) -> None:
    scorer = model(folder, precision=Precision.bf16)
    lm = scorer._loaded.lm
    saved_as = load_file(folder / "model.safetensors")["score.weight"]
    assert lm.score.weight.dtype is torch.float32 and torch.equal(lm.score.weight, saved_as)
    assert lm.model.embed_tokens.weight.dtype is torch.bfloat16
    assert scorer.score(tiny.ITEMS) == pytest.approx(by_hand(folder, tiny.ITEMS), abs=0.4)


def test_the_model_is_loaded_once_and_dropped_when_closed(folder: Path) -> None:
    scorer = model(folder)
    scorer.close()  # nothing is loaded yet
    scorer.score(tiny.ITEMS[:1])
    loaded = scorer._loaded
    scorer.score(tiny.ITEMS[1:])
    assert scorer._loaded is loaded
    scorer.close()
    assert loaded.lm is None and "_loaded" not in vars(scorer)


@pytest.mark.parametrize("config", [GemmaConfig, Qwen2Config], ids=["gemma", "qwen2"])
def test_other_families_are_read_alike(tmp_path: Path, config: Any) -> None:
    size = {**tiny.SIZE, "num_key_value_heads": 1, "head_dim": 8}
    shape = config(vocab_size=320, max_position_embeddings=256, initializer_range=0.3, **size)
    base, weight = tiny.backbone(shape), torch.randn(1, 16)
    tiny.tokenizer(tmp_path)
    keys = {**ONE, "architectures": [config.__name__.replace("Config", "ForSequenceClassification")]}
    tiny.save(tmp_path, shape, {**tiny.named(base), "score.weight": weight}, **keys)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)  # of Qwen2's class it splits otherwise than the one saved
    expected = [float(weight[0] @ tiny.hidden(base, tiny.text_ids(tokenizer, one))[-1]) for one in tiny.ITEMS]
    scorer = model(tmp_path)
    scorer.check()
    assert scorer.score(tiny.ITEMS) == pytest.approx(expected, abs=1e-5)


def test_scores_that_are_not_finite_are_one_line(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"][0, 0] = math.nan
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(DataError, match=r"score: reward_model \('.*'\) gives nan for 5 of 5 responses; set score.prec"):
        checked_scores(model(folder), tiny.ITEMS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score.weight": None}, "lacks the weight score.weight"),
        ({"v_head.weight": torch.zeros(1, 16)}, "has the weight v_head.weight, which its class does not use"),
        ({"score.weight": torch.zeros(2, 16)}, "score.weight of shape [2, 16], but its config.json means [1, 16]"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    folder = saved(tmp_path)
    weights = {**load_file(folder / "model.safetensors"), **change}
    save_file({name: value for name, value in weights.items() if value is not None}, folder / "model.safetensors")
    with pytest.raises(UserError) as caught:
        model(folder).score(tiny.ITEMS)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "a LlamaForCausalLM, which is no sequence classification model"),
        ({"architectures": None}, "a model of no named class, which is no sequence classification model"),
        ({"id2label": None}, "a LlamaForSequenceClassification with 2 outputs; name a reward model with one"),
        ({"architectures": ["INFORMForSequenceClassification"]}, "score.head: .*; choose inf_orm"),
        ({"max_position_embeddings": 64}, "score.max_tokens: 256 is beyond the model's 64 positions"),
    ],
)
def test_another_kind_of_model_is_refused_before_it_is_loaded(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    file = saved(tmp_path) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))
    with pytest.raises(ConfigError, match=said):
        model(tmp_path).check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "/no/such/folder"}, "score.path: there is no folder"),
        ({"path": "not a name"}, "score.path: 'not a name' is neither a folder nor a hub name"),
        ({"bos": 3}, "score.bos: 3 BOS tokens; give 1, or 2"),
        ({"max_tokens": 0}, "score.max_tokens: 0 is too few; give at least 8"),
        ({"name": "a/b"}, "score.name: 'a/b' cannot name a score"),
        ({"chat_template": "llama4"}, "score.chat_template: unknown chat template 'llama4'"),
        ({"head": Head.armorm}, "score.head: .* whose config.json has no num_objectives"),
        ({"head": Head.token_logit}, "score.head: .* which has no token logits"),
    ],
)
def test_options_that_cannot_work_are_one_line(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        model(**{"folder": folder, **options}).check()


def test_broken_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no config.json"):
        model(tmp_path).check()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="score.path: its config.json is broken"):
        model(tmp_path).check()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="has no weights"):
        model(tmp_path).check()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="weights as a pickle .* only safetensors are read"):
        model(tmp_path).check()


def test_a_template_that_refuses_a_conversation_is_one_line(folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "no_system.jinja"
    template.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ bos_token }}{% for turn in messages %}{{ turn.role }}{{ turn.content }}<|eot_id|>{% endfor %}"
    )
    with pytest.raises(DataError) as caught:
        model(folder, chat_template=str(template)).score([tiny.item("Yes", system="Hold it.")])
    said = "refuses a conversation (system, user, assistant): System role not supported; leave such prompts out"
    assert said in str(caught.value)


def test_a_tokenizer_without_a_template_is_one_line(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    for file in folder.glob("chat_template*"):
        file.unlink()
    with pytest.raises(ConfigError, match="score.path: of the reward model: the tokenizer has no chat template"):
        model(folder).score(tiny.ITEMS)


def test_an_encoder_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    tiny.tokenizer(tmp_path)
    BertForSequenceClassification(BertConfig(vocab_size=320, num_labels=1, **tiny.SIZE)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="score.path: model type bert has no head with one output at the last token"):
        model(tmp_path).score(tiny.ITEMS)


def test_checks_import_no_torch(folder: Path) -> None:
    code = (
        "import sys; from mpo.score.reward_model import RewardModel;"
        f"RewardModel({str(folder)!r}, max_tokens=256).check(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_a_reasoning_turn_is_rendered_by_the_template(folder: Path) -> None:
    thought = Item((Message("user", "Throw"),), Message("assistant", "it", reasoning="far"))
    plain = Item((Message("user", "Throw"),), Message("assistant", "it"))
    scorer = model(folder)
    assert scorer.score([thought]) == scorer.score([plain])  # Llama 3's template shows no reasoning
