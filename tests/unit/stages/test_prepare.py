"""The preparing stage: tokens as they were drawn where the tokenizer is the sampler's, else the text tokenised anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, LlamaConfig

from mpo.cache.stage import File, Nothing
from mpo.config.schema import SftResponses
from mpo.data.chat import render_response, stop_ids
from mpo.data.store import read_stored_sets, stored_vocabulary, write_sets
from mpo.data.tokenizer import vocabulary_digest
from mpo.data.tokens import TokenizedSets
from mpo.errors import ConfigError
from mpo.stages import prepare, score
from mpo.stages.context import StageContext
from mpo.stages.nodes import prepare as node
from mpo.stages.nodes import score as score_node
from mpo.stages.summary import Summary
from mpo.testbed.tokenizer import build_tokenizer
from mpo.types import Message, Response, ResponseSet

PROMPT = (Message("user", "write garden"),)
ANEW = "3 responses of train were drawn with another tokenizer; their texts are tokenised anew"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    build_tokenizer(folder)
    LlamaConfig(vocab_size=111).save_pretrained(folder)
    return folder


def stored(policy: Path, vocabulary: str | None, largest: int = 0) -> tuple[Path, list[ResponseSet]]:
    """Sets with three drawn responses, whose ids say another word than their texts do, and one from elsewhere."""
    tokenizer = AutoTokenizer.from_pretrained(policy)
    (rose,), end = tokenizer("rose", add_special_tokens=False)["input_ids"], stop_ids(tokenizer)[0]
    drawn = [
        Response("bee", 1.0, token_ids=(rose, rose, end), token_logps=(-1.0, -2.0, -3.0)),
        Response("bee", 2.0, finished=False, token_ids=(rose, max(rose, largest))),
    ]
    sets = [
        ResponseSet("a", PROMPT, (*drawn, Response("bee", 3.0))),
        ResponseSet("b", PROMPT, (drawn[0], Response("tree", 4.0))),
    ]
    folder = policy.parent / "sets"
    folder.mkdir()
    write_sets(folder / "train.parquet", sets, vocabulary)
    return folder, sets


def run(policy: Path, sets: Path, flatten: SftResponses | None = None) -> tuple[TokenizedSets, str]:
    """The training sets and the warnings."""
    out = policy.parent / "out"
    out.mkdir()
    config = node.Config(
        40, 80, max_skipped_share=0.0, flatten=flatten, score="data", chat_template=None, trust_remote_code=False
    )
    prepare.run(StageContext("prepare", config, Nothing(), node.Inputs(sets, File(str(policy))), out))
    warnings = out / "warnings.txt"
    assert Summary.read(out).fact("responses", "train") > 0
    return TokenizedSets.load(out / "train"), warnings.read_text() if warnings.exists() else ""


def test_tokens_are_as_they_were_drawn_where_the_vocabulary_is_the_same(policy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    folder, (first, second) = stored(policy, vocabulary_digest(tokenizer))
    data, warnings = run(policy, folder)
    bee, tree = (render_response(tokenizer, PROMPT, text) for text in ("bee", "tree"))
    of_first = [list(first.responses[0].token_ids or ()), list(first.responses[1].token_ids or ()), bee]
    assert [ids.tolist() for ids in data[0].response_ids] == of_first
    assert [ids.tolist() for ids in data[1].response_ids] == [list(second.responses[0].token_ids or ()), tree]
    assert data[0].truncated == [False, True, False] and warnings == ""


@pytest.mark.parametrize("vocabulary", ["of another tokenizer", None])
def test_tokens_of_another_vocabulary_are_not_used_and_that_is_said(policy: Path, vocabulary: str | None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    folder, _ = stored(policy, vocabulary)
    data, warnings = run(policy, folder)
    bee = render_response(tokenizer, PROMPT, "bee")
    assert [ids.tolist() for ids in data[0].response_ids] == [bee, bee[:-1], bee]
    assert data[0].truncated == [False, True, False]
    assert warnings == f"{ANEW}\n"


def test_single_responses_keep_their_tokens(policy: Path) -> None:
    folder, (first, _) = stored(policy, vocabulary_digest(AutoTokenizer.from_pretrained(policy)))
    data, _ = run(policy, folder, flatten=SftResponses.all)
    assert len(data) == 5 and data[0].response_ids[0].tolist() == list(first.responses[0].token_ids or ())


def test_drawn_ids_that_the_model_has_no_embedding_for_are_refused(policy: Path) -> None:
    folder, _ = stored(policy, vocabulary_digest(AutoTokenizer.from_pretrained(policy)), largest=111)
    with pytest.raises(ConfigError, match="the texts use 111, but the model has embeddings for 111"):
        run(policy, folder)


def test_scores_leave_tokens_and_vocabulary_as_they_are(policy: Path) -> None:
    folder, sets = stored(policy, "digest")
    out = policy.parent / "scored"
    out.mkdir()
    scorer = {"_target_": "mpo.score.function.FunctionScorer", "function": f"{__name__}.letters"}
    config = score_node.Config({"letters": scorer}, {}, [])
    score.run(StageContext("score", config, score_node.Settings(), score_node.Inputs(folder), out))
    scored = list(read_stored_sets(out / "train.parquet"))
    assert stored_vocabulary(out / "train.parquet") == "digest"
    for before, after in zip(sets, scored, strict=True):
        for drawn, one in zip(before.responses, after.responses, strict=True):
            assert dict(one.scores) == {"letters": len(drawn.text)} and one.score == drawn.score
            assert (one.token_ids, one.token_logps) == (drawn.token_ids, drawn.token_logps)


def letters(prompt: str, text: str) -> float:
    return float(len(text))
