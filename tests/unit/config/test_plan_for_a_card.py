"""The printed plan for a card that is not here: memory, tokens and hours, with sampling and scoring in it."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mpo.cache.artifacts import Store
from mpo.config.flags import _scorers_apart
from mpo.config.paths import folder, options
from mpo.errors import ConfigError
from mpo.pipeline.memory_choice import settle
from mpo.pipeline.plan import UNKNOWN, show_plan
from mpo.pipeline.regimes import compose
from mpo.pipeline.rules import validate
from mpo.score.pair_rm import PairRM
from mpo.score.reward_model import RewardModel
from mpo.track.console import Console
from mpo.track.units import count
from tests.unit.config.conftest import Load

ITERATIVE = ("regime=iterative", "model=llama3_8b_instruct")
Plan = Callable[..., dict[str, str]]


@pytest.fixture
def plan(changed: Load, tmp_path: Path) -> Plan:
    """``plan(*overrides)``: the printed lines by their names."""

    def lines(*overrides: str) -> dict[str, str]:
        given = [each for override in overrides for each in _scorers_apart(override)]
        config = dataclasses.replace(changed(*given), dry_run=True, cache_dir=str(tmp_path / "cache"))
        objects, out = validate(config), io.StringIO()
        config, chosen = settle(config, objects)
        show_plan(Console(out), config, compose(config, objects.loss), Store(tmp_path / "cache"), objects, chosen)
        named = re.findall(r"^  (\S.*?) {2,}(.*)$", out.getvalue().partition("\nplan\n")[2], re.M)
        return dict(named)

    return lines


def test_a_round_has_sampling_and_scoring(plan: Plan) -> None:
    found = plan(*ITERATIVE, "score=skywork_v2", "launcher.device=h100")
    assert found["card"].startswith("8 × NVIDIA H100 SXM, 80 GB, 989 TFLOP/s in bf16, 3.35 TB/s by its data sheet")
    assert "nothing was measured" in found["card"]
    assert "a process with ZeRO 2, which fits the card's 74.5 GiB (" in found["memory"]
    assert found["chosen"].startswith("ZeRO 2, no layer recomputed, 8,192 tokens per micro-batch: at most 60.3 GiB of")
    for part in ("at 40 % of its peak", "a round", "in all", "tokens a second and card"):
        assert part in found["time"]
    asked = (
        "20,378 prompts and 2,000 held-out ones × 5 responses a round, 4.03M tokens of prompts, about 31.3M new ones"
    )
    assert found["sampling"].startswith(f"{asked} (280 a response, limit 2,048), 32 responses in all for the measures")
    assert "55 at once on each of 8 copies, each batch going on to the limit, at 60 %" in found["sampling"]
    assert "if every response reaches the limit" in found["sampling"]
    tokens = 22_378 * 5 * 460
    assert found["scoring"].startswith(
        "111,890 responses a round, about 51.5M tokens through 7.5B parameters (14.0 GiB"
    )
    minutes = 2 * 7_504_924_672 * tokens / (0.4 * 989e12 * 8) / 60
    assert (
        f"about {int(minutes)} min" in found["scoring"] and "on 8 cards at 40 % of the card's peak" in found["scoring"]
    )
    parts = [f"{part} (\\d+ h )?\\d+ (min|s)" for part in ("training", "reference", "sampling", "scoring")]
    assert re.match(r".* \+ ".join(parts) + ".* = about .* a round, .* in all", found["hours"])
    assert "29.1 GiB for downloads" in found["disk"] and "fit" not in found["hours"]


PUBLISHED = sorted(
    name for name in options("model") if "path: " in (folder("conf") / "model" / f"{name}.yaml").read_text()
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_model_has_a_plan(plan: Plan, name: str) -> None:
    """Composed and planned without network; sizes where its file has an architecture."""
    model = yaml.safe_load((folder("conf") / "model" / f"{name}.yaml").read_text())["model"]
    found = plan(f"model={name}", "launcher.device=h200")
    assert found["model"] == f"{model['path']}, {count(model['parameters'])} parameters"
    assert model["path"] in found["downloads"]
    assert ("memory" in found) == ("architecture" in model) == (found["hours"] != UNKNOWN)
    assert ("sizes are not known before it is loaded" in found["chosen"]) == ("architecture" not in model)


def test_without_a_card_there_are_tokens_and_no_hours(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpo.planning.forecast.this_machine", lambda *arguments: None)
    found = plan(*ITERATIVE, "score=skywork_v2")
    assert "hours" not in found and "card" not in found and "fits" not in found["memory"]
    assert found["sampling"].endswith("TFLOP") and found["scoring"].endswith("TFLOP")


def test_an_engine_that_refills_draws_faster(plan: Plan) -> None:
    def minutes(*overrides: str) -> float:
        line = plan(*ITERATIVE, "score=skywork_v2", "launcher.device=h100", *overrides)["hours"]
        found = re.search(r"sampling (?:(\d+) h )?(\d+) min", line)
        assert found is not None, line
        return 60 * int(found.group(1) or 0) + int(found.group(2))

    assert minutes("sampler=vllm") < minutes() < minutes("launcher.processes=4", "train.micro_batch=8")


@pytest.mark.parametrize(
    ("overrides", "name", "said"),
    [
        (["score=reward_model", "score.path=a/b"], "scoring", "size of 'reward_model' is not known: give score.par"),
        (["score=skywork_v2", "score.parameters=70000000000"], "scoring", "the weights do not fit the card's 74.5 GiB"),
        (["score=[skywork_v2,pair_rm]"], "scoring pair_rm", "434M parameters (1.6 GiB of weights)"),
        (["score=skywork_v2", "sampler=server", "sampler.urls=[http://localhost:1/v1]", "evaluate.temperatures=[]",
          "rounds=1"], "sampling", "its time is not known for this sampler"),
        (["score=skywork_v2", "data.expected_heldout=null"], "sampling", "held-out prompts are not counted"),
        (["score=skywork_v2", "data.expected_prompt_tokens=null"], "hours", UNKNOWN),
        (["score=skywork_v2", "data.expected_response_tokens=null"], "sampling", "at most 229M new ones (2,048 a re"),
    ],
)  # fmt: skip
def test_what_is_not_known_or_does_not_fit_is_said(plan: Plan, overrides: list[str], name: str, said: str) -> None:
    assert said in plan(*ITERATIVE, "launcher.device=h100", *overrides)[name]


def test_a_card_too_small_for_the_policy_is_said(plan: Plan) -> None:
    found = plan(*ITERATIVE, "score=function", "score.function=theirs.score", "launcher.device=a10",
                 "sample.precision=fp32", "train.memory=given")  # fmt: skip
    assert "does not fit the card's 22.4 GiB" in found["memory"]
    assert "weights and one response do not fit 90 % of the card's 22.4 GiB" in found["sampling"]
    assert "without sampling, of which that is not known" in found["hours"] and "scoring" not in found
    assert found["hours"].endswith("; training does not fit the card, see memory")


def test_a_reference_larger_than_a_card_is_shared_out(plan: Plan) -> None:
    shards = plan("model=llama3_8b", "launcher.device=a10")["reference"]
    assert shards == "the starting policy, about 5.1 GiB a process, its weights in shards over all of them"
    assert plan("model=llama3_8b", "launcher.device=h100")["reference"].endswith("about 16.3 GiB a process")


def test_a_reference_has_the_trained_weights_in_4_bits_or_its_own(plan: Plan) -> None:
    adapted = ("model=llama3_8b", "train/lora=qlora", "launcher.processes=1", "launcher.device=rtx4090")
    found = plan(*adapted)
    assert found["reference"] == "the starting policy, about 6.7 GiB a process"
    assert "(weights 5.4 GiB" in found["memory"] and "ZeRO 3" not in found["memory"]
    assert found["chosen"].startswith(
        "ZeRO 1, every second layer recomputed, 4,096 tokens per micro-batch: at most 19.0"
    )
    assert found["evaluation"] == "the trained policy, whole in bf16, about 16.2 GiB a process"
    assert "evaluation" not in plan(*adapted, "~evaluate.measures.ranking")
    assert plan(*adapted, "model.reference=a/b")["reference"] == "a/b, about 16.2 GiB a process"  # 15.0 GiB of weights
    rounds = ("regime=iterative", "model=llama3_8b_instruct", "score=skywork_v2", *adapted[1:])
    assert plan(*rounds)["reference"].endswith(", about 6.7 GiB a process")
    assert plan(*rounds, "regime.reference=starting")["reference"] == "the starting policy, about 16.2 GiB a process"


def test_a_policy_that_fits_in_4_bits_alone_is_said(plan: Plan) -> None:
    adapted = ("model=qwen2_5_32b_instruct", "train/lora=qlora", "launcher.device=l40s")
    found = plan(*adapted, "launcher.processes=1")
    assert re.search("about 6[0-9.]+ GiB a process, which does not fit 44.7 GiB$", found["evaluation"])
    assert "(while the policy is evaluated)" in found["chosen"] and "fits the card's" in found["memory"]
    shared = plan(*adapted, "launcher.processes=4", "train.micro_batch=1")
    assert shared["evaluation"].endswith(", its weights in shards over all of them")


def test_prompts_of_ones_own_are_counted_before_they_are_read(plan: Plan, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i:040}"}) + "\n" for i in range(100)))
    given = ("model=llama3_8b_instruct", "data=prompts", f"data.source={file}", "score=skywork_v2")
    found = plan(*given, "launcher.device=h100")
    assert found["sampling"].startswith("90 prompts and 10 held-out ones × 5 responses, 1k tokens of prompts, at most")
    assert "; at most" in found["sampling"] and found["hours"] == UNKNOWN
    assert "= about" in plan(*given, "launcher.device=h100", "data.expected_response_tokens=300")["hours"]


def test_a_run_takes_place_on_the_machine_itself(load: Load) -> None:
    with pytest.raises(ConfigError, match="launcher.device: 'h100' is what a plan is made for"):
        validate(load("launcher.device=h100"))


def test_what_a_reward_model_reads_of_a_set() -> None:
    assert RewardModel("a/b").tokens_read(60, 50, 4) == 4 * 110
    assert RewardModel("a/b", max_tokens=100).tokens_read(60, 50, 4) == 4 * 100
    assert PairRM("a/b").tokens_read(60, 50, 3) == 6 * (60 + 2 * 50)  # each pair in both orders
    assert PairRM("a/b").tokens_read(2000, 500, 3) == 6 * (1224 + 2 * 412)
    with pytest.raises(ConfigError, match=r"score\.parameters: 0 is out of range"):
        PairRM("a/b", parameters=0)
