"""What a stage reads is written down and read again, whatever its task."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import mpo.stages.nodes
from mpo.cache.artifacts import Store
from mpo.cache.stage import File, Hub, Nothing, Stage
from mpo.config.schema import SampleConfig, ScoreTransformConfig, SftResponses
from mpo.config.training import Precision, TrainConfig
from mpo.evaluate.questions import Question
from mpo.plain import from_plain, to_plain
from mpo.stages.context import StageContext
from mpo.stages.nodes import (
    answers,
    canary,
    data,
    embed,
    evaluate,
    init,
    measure_policy,
    partition,
    prepare,
    reference,
    sample,
    score,
    train,
)  # fmt: skip

NODE = {"_target_": "mpo.losses.WMPO", "beta": 0.1, "list": [1, None, {"a": 2}]}
UPSTREAM = Stage("data", "data")
MODELS = evaluate.Models(NODE, Precision.bf16, True, False, True)
BINS = partition.Config(
    NODE, "data", "true", ScoreTransformConfig(zscore=True), 3, True, True, True, None, 0.1, ["own"]
)
STAGES = [
    data.TASK.stage(
        "data", data.Config(part=data.Part.demonstrations, heldout=0.5), data.Settings(BINS),
        data.Inputs(File("/a file"), Hub("owner/name", "main")),
    ),
    init.TASK.stage("init", init.Config({"hidden_size": 8}, 1, source=NODE), Nothing(), init.Inputs(UPSTREAM)),
    sample.TASK.stage(
        "sample",
        sample.Config(NODE, SampleConfig(), 0, ["train"], 1, 2, 3, None, [], [7], 9, 0.5, "{{ messages }}", True),
        Nothing(), sample.Inputs(UPSTREAM, Hub("owner/model"), File("/tokenizer")),
    ),
    canary.TASK.stage(
        "canary", canary.Config(Precision.bf16, "{{ messages }}", True, {"enable_thinking": False}), Nothing(),
        canary.Inputs(UPSTREAM, Hub("owner/model"), File("/tokenizer")),
    ),
    score.TASK.stage("score", score.Config({"a": NODE}, {}, []), score.Settings({"a": NODE}), score.Inputs(UPSTREAM)),
    prepare.TASK.stage(
        "prepare", prepare.Config(1, 2, 0.0, SftResponses.best, "data", None, False), Nothing(),
        prepare.Inputs(UPSTREAM, UPSTREAM),
    ),
    embed.TASK.stage("embed", Nothing(), Nothing(), embed.Inputs(UPSTREAM, Hub("owner/encoder"))),
    partition.TASK.stage("partition", BINS, Nothing(), partition.Inputs(UPSTREAM, UPSTREAM)),
    reference.TASK.stage(
        "reference", reference.Config(Precision.fp32, False, True, False), reference.Settings(2, 64),
        reference.Inputs(UPSTREAM, File("/model")),
    ),
    train.TASK.stage(
        "train", train.Config(NODE, TrainConfig(lr=1e-3), 0, 2, [1], True, None, False, []),
        train.Settings(TrainConfig(lr=1e-3, micro_tokens=64), {"source": "x"}),
        train.Inputs(UPSTREAM, UPSTREAM, UPSTREAM, UPSTREAM),
    ),
    answers.TASK.stage(
        "answers",
        answers.Config(NODE, SampleConfig(), [Question("1", ("a", "b"), system="s")], [0, 1], [], [7], None, True),
        Nothing(), answers.Inputs(UPSTREAM, Hub("owner/model"), UPSTREAM),
    ),
    measure_policy.TASK.stage(
        "measure_policy", measure_policy.Config(NODE, None, {"enable_thinking": False}, "</think>", True, ["own"]),
        measure_policy.Settings({"batch": 2}, "evaluate.measures.x"),
        measure_policy.Inputs(UPSTREAM, None, {"file": File("/questions")}),
    ),
    evaluate.TASK.stage(
        "evaluate/x", evaluate.Config(NODE, 1, "true", MODELS), evaluate.Settings(4, 64),
        evaluate.Inputs(UPSTREAM, Hub("owner/model"), start_samples={"0.7": UPSTREAM}),
    ),
]  # fmt: skip


def test_every_task_is_tried_here() -> None:
    names = {module.name for module in pkgutil.iter_modules(mpo.stages.nodes.__path__)}
    assert names == {stage.task for stage in STAGES}
    for name in names:
        assert callable(importlib.import_module(f"mpo.stages.{name}").run)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.task)
def test_a_context_comes_back_as_it_was(stage: Stage, tmp_path: Path) -> None:
    store = Store(tmp_path)
    context = StageContext.of(stage, store)
    context.output.mkdir(parents=True)
    assert StageContext.read(context.write()) == context
    assert from_plain(type(stage.config), to_plain(stage.config)) == stage.config
    for name, given in stage.stages.items():
        own, _, key = name.partition("@")
        read = getattr(context.inputs, own)
        assert (read[key] if key else read) == store.path(given)


def test_all_that_a_stage_reads_counts_in_its_fingerprint_but_settings(tmp_path: Path) -> None:
    store = Store(tmp_path)
    base = score.TASK.stage("a", score.Config({"a": NODE}, {}, []), score.Settings(), score.Inputs(UPSTREAM))
    other = score.TASK.stage("b", score.Config({"b": NODE}, {}, []), score.Settings(), score.Inputs(UPSTREAM))
    assert store.fingerprint(base) != store.fingerprint(other)
    for one, two in (
        (Hub("owner/model"), Hub("owner/model", "v2")),
        (Hub("owner/model"), File("owner/model")),
    ):
        first, second = (
            reference.TASK.stage(
                "r", reference.Config(Precision.fp32, False, True, False), reference.Settings(batch, 64),
                reference.Inputs(UPSTREAM, model),
            )
            for batch, model in ((1, one), (2, two))
        )  # fmt: skip
        again = reference.TASK.stage("r2", first.config, reference.Settings(9, 9), first.inputs)
        assert store.fingerprint(first) != store.fingerprint(second)
        assert store.fingerprint(first) == store.fingerprint(again)
