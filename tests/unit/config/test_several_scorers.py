"""Several scorers side by side: how they are chosen, which one trains, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mpo.cache.artifacts import Store
from mpo.cache.stage import Placement, Stage
from mpo.config.flags import _scorers_apart
from mpo.errors import ConfigError
from mpo.pipeline.regimes import compose
from mpo.pipeline.rules import validate
from mpo.pipeline.scoring import build_scorers
from mpo.score.checked import errors_of
from tests.unit.config.conftest import Load

MODELS = ("model=llama3_8b_instruct", "regime=on_policy", "dry_run=true")


def stages(load: Load, tmp_path: Path, *overrides: str) -> dict[str, Stage]:
    given = [each for override in overrides for each in _scorers_apart(override)]
    config = load(*MODELS, *given)
    graph = compose(config, validate(config).loss)
    return {stage.name: stage for stage in graph.stages(Store(tmp_path))}


def test_a_list_is_the_first_and_the_others_beside_it() -> None:
    assert _scorers_apart("score=[a, b,c]") == ["score=a", "+score@score_also.b=b", "+score@score_also.c=c"]
    assert _scorers_apart("score=[a]") == ["score=a"]
    for other in ("score=a,b", "score=a", "score.path=[x]", "loss=[a,b]"):
        assert _scorers_apart(other) == [other]
    for wrong in ("score=[]", "score=[a,,b]", "score=[a,a]", "score=[a,b.c]"):
        with pytest.raises(ConfigError, match="^score: "):
            _scorers_apart(wrong)


def test_the_first_one_trains_and_the_order_changes_no_score(load: Load, tmp_path: Path) -> None:
    one = stages(load, tmp_path, "score=[skywork_v2,armorm]")
    other = stages(load, tmp_path, "score=[armorm,skywork_v2]")
    assert list(one["score"].config.scorers) == ["armorm", "skywork_v2"] == list(one["score"].config.heldout)
    assert {name: each.name for name, each in one["score"].inputs.models.items()} == {
        "armorm": "RLHFlow/ArmoRM-Llama3-8B-v0.1",
        "skywork_v2": "Skywork/Skywork-Reward-V2-Llama-3.1-8B",
    }
    assert one["score"].placement is Placement.replicas
    store = Store(tmp_path)
    assert store.fingerprint(one["score"]) == store.fingerprint(other["score"])
    assert (one["partition"].config.score, other["partition"].config.score) == ("skywork_v2", "armorm")
    assert store.fingerprint(one["prepare"]) == store.fingerprint(other["prepare"])


def test_a_judge_may_stand_beside_a_reward_model(load: Load, tmp_path: Path) -> None:
    served = [f"score_also.llm_judge.{each}" for each in ("urls=[http://localhost:8000/v1]", "model=judge")]
    score = stages(load, tmp_path, "score=[skywork_v2,llm_judge]", *served)["score"]
    assert list(score.config.scorers) == ["llm_judge", "skywork_v2"] and score.placement is Placement.replicas
    assert "\n" in score.config.scorers["llm_judge"]["prompt"]


def test_where_a_judge_is_asked_changes_no_score_and_what_it_is_asked_does(load: Load, tmp_path: Path) -> None:
    def scored(url: str, *others: str) -> Stage:
        chosen = ("score=llm_judge", f"score.urls=[{url}]", *others)
        return stages(load, tmp_path, *chosen)["score"]

    store = Store(tmp_path)
    one, elsewhere, another = (
        scored("http://one/v1", "score.model=judge"),
        scored("http://other/v1", "score.model=judge", "score.concurrency=2"),
        scored("http://one/v1", "score.model=other"),
    )
    for asked in (elsewhere.settings.scorers, elsewhere.settings.heldout):
        assert (asked["llm_judge"]["urls"], asked["llm_judge"]["concurrency"]) == (["http://other/v1"], 2)
    assert store.fingerprint(one) == store.fingerprint(elsewhere) != store.fingerprint(another)


def test_held_out_sets_of_the_testbed_have_the_truth_and_the_others(load: Load, tmp_path: Path) -> None:
    given = [each for each in _scorers_apart("score=[testbed_proxy,function]")]
    config = load("regime=on_policy", *given, "score_also.function.function=theirs.score", "allow_targets=[theirs]")
    graph = compose(config, validate(config.__class__(**{**config.__dict__, "dry_run": True})).loss)
    score = {stage.name: stage for stage in graph.stages(Store(tmp_path))}["score"]
    assert set(score.config.scorers) == {"proxy_reward", "score"}
    assert set(score.config.heldout) == {"true_reward", "score"}


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("score_also.reward_model.bos=3", "score_also.reward_model.bos: 3 BOS tokens; give 1, or 2"),
        ("score_also.reward_model.parameters=0", "score_also.reward_model.parameters: 0 is out of range"),
        (
            "score_also.reward_model={head: armorm, engine: vllm}",
            "score_also.reward_model.engine: vLLM has no armorm head; score_also.reward_model.engine=transformers",
        ),
    ],
)
def test_an_error_names_the_scorer_that_it_is_of(load: Load, option: str, told: str) -> None:
    given = _scorers_apart("score=[skywork_v2,reward_model]")
    config = load(*MODELS, *given, "score_also.reward_model.path=owner/model", option)
    with pytest.raises(ConfigError, match=f"^{re.escape(told)}"):
        for key, scorer in build_scorers(config):
            with errors_of(key):
                scorer.check()


SAME = [
    "score=[skywork_v2,reward_model]",
    "score_also.reward_model.path=x/y",
    "score_also.reward_model.name=skywork_v2",
]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (SAME, "score_also.reward_model: two scorers are called 'skywork_v2'; give one another name: "),
        (["score=[data,armorm]"], "score_also: scorers beside the data's own scores"),
        (["score=[armorm,skywork_v2]", "regime=off_policy"], "score: off_policy reads the data's own scores"),
        (
            ["score=[armorm,skywork_v2]", "+score_also.skywork_v2.bost=2"],
            "score_also.skywork_v2.bost: RewardModel has no",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(load: Load, tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        stages(load, tmp_path, *overrides)
    assert str(caught.value).startswith(said)
