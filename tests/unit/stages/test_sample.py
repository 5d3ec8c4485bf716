"""The sampling stage: prompts too long are left out first, tokens are stored as drawn, a stop costs one batch, and any
sampler will do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from mpo.cache.stage import File, Nothing
from mpo.config.schema import SampleConfig, Unwanted
from mpo.data.chat import render_prompt, stop_ids
from mpo.data.store import read_stored_sets, stored_vocabulary, write_sets
from mpo.data.tokenizer import vocabulary_digest
from mpo.errors import ConfigError, DataError
from mpo.sample import Draw, HFSampler, SamplingJob
from mpo.sample.base import draw_seed
from mpo.stages import sample
from mpo.stages.context import StageContext
from mpo.stages.nodes import sample as node
from mpo.stages.summary import Summary
from mpo.testbed.tokenizer import build_tokenizer
from mpo.types import Message, ResponseSet

HF = {"_target_": "mpo.sample.HFSampler"}
TEXTS = ["write garden", "write " + "garden " * 40, "garden"]
TOY = '''
import random
from contextlib import contextmanager
from dataclasses import dataclass
from mpo.sample import Drawn, Sampler


@dataclass(frozen=True)
class Toy(Sampler):
    """Random words; ``spoil`` names what it does wrong."""

    words: int = 3
    spoil: str = ""

    @contextmanager
    def open(self, job):
        def draw(requests):
            if self.spoil == "raises":
                raise RuntimeError("the engine is gone")
            return [[self.one(job, seed) for seed in one.seeds] for one in requests]

        yield draw

    def one(self, job, seed):
        ids = [random.Random(seed).randrange(20, 100) for _ in range(self.words)]
        if self.spoil == "sometimes empty" and seed % 2:
            ids = []
        return Drawn(ids, False) if self.spoil == "unended" else Drawn([*ids, job.stop_token_ids[0]], True)
'''


def prepared(tmp_path: Path, texts: list[str], before_template: str = "") -> tuple[Path, Path]:
    """Folders of prompts and of a tiny policy."""
    build_tokenizer(tmp_path / "policy")
    template = tmp_path / "policy" / "chat_template.jinja"
    template.write_text(before_template + template.read_text())
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=111, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path / "policy")
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    sets = [ResponseSet(str(i), (Message("user", text),), ()) for i, text in enumerate(texts)]
    for split in ("train", "heldout"):
        write_sets(prompts / f"{split}.parquet", sets)
    return prompts, tmp_path / "policy"


def run(
    tmp_path: Path,
    share: float = 0.0,
    before_template: str = "",
    texts: list[str] = TEXTS,
    folder: str = "out",
    sampler: dict[str, Any] = HF,
    **changed: Any,
) -> Path:
    if not (tmp_path / "prompts").exists():
        prepared(tmp_path, texts, before_template)
    how = SampleConfig(n=changed.pop("n", 2), max_new_tokens=changed.pop("max_new_tokens", 4), **changed.pop("how", {}))
    config = node.Config(
        sampler, how, seed=0, splits=["train"], round=1, rounds=1, seed_rounds=0, prompts=None,
        allow_targets=["toy_sampler", __name__.partition(".")[0]], stop_token_ids=[], max_prompt_tokens=20,
        max_skipped_share=share, chat_template=None, trust_remote_code=False,
    )  # fmt: skip
    out = tmp_path / folder
    out.mkdir(exist_ok=True)
    inputs = node.Inputs(tmp_path / "prompts", File(str(tmp_path / "policy")))
    sample.run(StageContext("sample", replace(config, **changed), Nothing(), inputs, out))
    return out


def drawn(out: Path, split: str = "train") -> dict[str, ResponseSet]:
    return {one.id: one for one in read_stored_sets(out / f"{split}.parquet")}


def test_prompts_above_the_limit_are_counted_not_answered(tmp_path: Path) -> None:
    out = run(tmp_path, 0.5)
    assert list(drawn(out)) == ["0", "2"] and all(len(one.responses) == 2 for one in drawn(out).values())
    summary = Summary.read(out)
    assert summary.skipped["train"] == {"prompt_too_long": 1} and summary.fact("sets", "train") == 2
    assert not list(out.glob("*.batches.*.jsonl"))


def test_tokens_are_stored_as_drawn_with_their_log_probs_and_their_text(tmp_path: Path) -> None:
    out = run(tmp_path, 0.5, n=40, max_new_tokens=30)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "policy")
    stops = set(stop_ids(tokenizer))
    assert stored_vocabulary(out / "train.parquet") == vocabulary_digest(tokenizer)
    finished = []
    for one in drawn(out).values():
        prompt = render_prompt(tokenizer, one.prompt)
        for each in one.responses:
            assert each.token_ids is not None and each.token_logps is not None
            ids = list(each.token_ids)
            assert each.finished is (ids[-1] in stops) and stops.isdisjoint(ids[:-1])
            assert each.finished or len(ids) == 30
            inner = ids[:-1] if each.finished else ids
            assert each.text == tokenizer.decode(inner, skip_special_tokens=True)
            with torch.no_grad():
                logps_TV = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
            expected = [float(logps_TV[len(prompt) - 1 + t, index]) for t, index in enumerate(ids)]
            assert each.token_logps == pytest.approx(expected, abs=2e-5)
            finished.append(each.finished)
    assert {*finished} == {True, False}
    facts = Summary.read(out).facts["train"]
    assert facts["cut_at_limit"] == finished.count(False) and facts["responses"] == 80


def test_neither_batches_nor_other_prompts_nor_their_order_change_a_draw(tmp_path: Path) -> None:
    texts = ["write garden", "garden", "write garden write garden", "rose", "the bee sees the rose ."]
    whole = drawn(run(tmp_path, texts=texts, n=3, max_new_tokens=9))
    small = drawn(run(tmp_path, folder="small", sampler={**HF, "batch": 3}, n=3, max_new_tokens=9))
    first = drawn(run(tmp_path, folder="first", prompts=2, n=2, max_new_tokens=9))
    sets = list(read_stored_sets(tmp_path / "prompts" / "train.parquet"))
    write_sets(tmp_path / "prompts" / "train.parquet", reversed(sets))
    turned = drawn(run(tmp_path, folder="turned", sampler={**HF, "batch": 7}, n=3, max_new_tokens=9))

    def ids(found: dict[str, ResponseSet], n: int = 3) -> dict[str, list[Any]]:
        return {key: [each.token_ids for each in found[key].responses[:n]] for key in sorted(found)}

    assert ids(whole) == ids(small) == ids(turned)
    assert ids(first) == {key: value for key, value in ids(whole, 2).items() if key in first}
    changes = ({"seed": 1}, {"round": 2}, {"splits": ["heldout"]})
    others = [drawn(run(tmp_path, folder=f"other{i}", n=3, max_new_tokens=9, **changed), *changed.get("splits", ()))
              for i, changed in enumerate(changes)]  # fmt: skip
    assert all(ids(one) != ids(whole) for one in others) and ids(others[0]) != ids(others[1]) != ids(others[2])


class Killed(BaseException):
    """As a kill: nothing of ours takes it."""


CALLS: list[int] = []
"""Requests of each call of a ``Stopping`` sampler's draws; opening it counts as 0."""


@dataclass(frozen=True)
class Stopping(HFSampler):
    """Draws so many batches, then dies."""

    calls: int = 10**9

    @contextmanager
    def open(self, job: SamplingJob) -> Iterator[Draw]:
        CALLS.append(0)
        with super().open(job) as draw:

            def drawn(requests: Any) -> Any:
                if len(CALLS) > self.calls:
                    raise Killed
                CALLS.append(len(requests))
                return draw(requests)

            yield drawn


@pytest.mark.parametrize("calls", [1, 3, 4])
def test_a_stopped_stage_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, calls: int) -> None:
    texts = [f"{'garden ' * (1 + i % 4)}rose" for i in range(5)]
    target = {"_target_": f"{__name__}.Stopping", "batch": 4}
    how = {"texts": texts, "splits": ["train", "heldout"], "max_new_tokens": 9}
    whole = run(tmp_path, folder="whole", sampler=target, **how)
    CALLS.clear()
    with pytest.raises(Killed):
        run(tmp_path, sampler={**target, "calls": calls}, **how)
    assert len(CALLS) == calls + 1 - (calls == 0)
    before = sum(CALLS)
    CALLS.clear()
    out = run(tmp_path, sampler=target, **how)
    assert CALLS[0] == 0 and before + sum(CALLS) == 2 * len(texts)  # nothing is drawn twice
    for split in ("train", "heldout"):
        assert (out / f"{split}.parquet").read_bytes() == (whole / f"{split}.parquet").read_bytes()
    assert (out / "summary.json").read_text() == (whole / "summary.json").read_text()


def test_nothing_is_loaded_where_all_batches_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = {"_target_": f"{__name__}.Stopping"}
    with monkeypatch.context() as patch:
        patch.setattr(sample, "write_sets", lambda *arguments: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run(tmp_path, 0.5, sampler=target)
    assert list((tmp_path / "out").glob("*.batches.*.jsonl"))
    CALLS.clear()
    assert len(drawn(run(tmp_path, 0.5, sampler=target))) == 2 and CALLS == []


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The node of a sampler outside the package."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "toy_sampler.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    monkeypatch.delitem(sys.modules, "toy_sampler", raising=False)
    return {"_target_": "toy_sampler.Toy", "words": 2}


def test_empty_responses_are_dropped_and_counted(tmp_path: Path, toy: dict[str, Any]) -> None:
    some = {**toy, "words": 1, "spoil": "sometimes empty"}
    kept = run(tmp_path, 0.5, sampler=some, n=3)
    counts = {key: len(one.responses) for key, one in drawn(kept).items()}
    empty = Summary.read(kept).fact("empty", "train")
    assert counts == {"0": 3, "2": 3} and 0 < empty < 6
    out = run(tmp_path, 0.5, sampler=some, n=3, folder="dropped", how={"empty": Unwanted.drop})
    assert sum(len(one.responses) for one in drawn(out).values()) == 6 - empty
    assert Summary.read(out).fact("empty, dropped", "train") == empty and Summary.read(out).fact("empty", "train") == 0
    assert f"responses sampled for train: {empty} empty, dropped" in (out / "warnings.txt").read_text()
    with pytest.raises(DataError, match=r"every response to all 2 prompts of train was dropped \(6 empty, dropped\)"):
        run(tmp_path, 0.5, sampler={**toy, "words": 0}, n=3, folder="none", how={"empty": Unwanted.drop})


def test_a_sampler_of_ones_own_draws_with_the_seeds_that_it_is_given(tmp_path: Path, toy: dict[str, Any]) -> None:
    import random

    found = drawn(run(tmp_path, 0.5, sampler=toy))
    stop = stop_ids(AutoTokenizer.from_pretrained(tmp_path / "policy"))[0]
    for key, one in found.items():
        for number, each in enumerate(one.responses):
            seed = draw_seed(0, 1, "train", key, number)
            assert each.token_ids == (*(random.Random(seed).randrange(20, 100) for _ in range(2)), stop)
            assert each.finished and each.token_logps is None and len(each.text.split()) == 2


def test_what_a_sampler_of_ones_own_does_wrong_is_one_line(tmp_path: Path, toy: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^sampler: Toy returned 9 tokens, at most 4 were asked for; stop at"):
        run(tmp_path, 0.5, sampler={**toy, "words": 8})
    with pytest.raises(ConfigError, match=r"^sampler: Toy raised RuntimeError: the engine is gone at toy_sampler.py:"):
        run(tmp_path, 0.5, sampler={**toy, "spoil": "raises"})
    assert all(not each.finished for one in drawn(run(tmp_path, 0.5, sampler={**toy, "spoil": "unended"})).values()
               for each in one.responses)  # fmt: skip


def test_special_tokens_inside_responses_are_counted_and_said(tmp_path: Path) -> None:
    out = run(tmp_path, 0.5, n=60)  # an untrained policy draws any token
    facts = Summary.read(out).facts["train"]
    said = (out / "warnings.txt").read_text()
    assert 0 < facts["with_special_tokens"] < facts["responses"] == 120
    assert said.startswith(f"{facts['with_special_tokens']} of 120 responses sampled for train have special tokens")


def test_too_many_of_them_stop_the_run_before_it_samples(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"set 1: train: the prompt has \d+ tokens, .* \(1 of 3 sets cannot be used: prompt_too_long 1\)",
    ):
        run(tmp_path, 0.1)


def test_prompts_that_the_template_refuses_are_counted_too(tmp_path: Path) -> None:
    refusing = "{% if messages[0].content == 'garden' %}{{ raise_exception('no gardens') }}{% endif %}"
    out = run(tmp_path, 0.7, refusing)
    assert list(drawn(out)) == ["0"]
    skipped = Summary.read(out).skipped["train"]
    assert skipped == {"prompt_too_long": 1, "template_refused": 1}
    with pytest.raises(DataError, match=r"2 of 3 sets cannot be used: .*template_refused 1"):
        run(tmp_path / "again", 0.5, refusing)
