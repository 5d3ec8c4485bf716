"""One loss curve whatever the number of processes, the ZeRO stage and the micro-batch; every path trains."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mpo.layout.batch import collate
from mpo.policy.load import load_policy
from tests.distributed.world import TokenSets, curve, spawn, weights

GRID = list(itertools.product((0, 1, 2, 3), (1, 4)))
QUICK = [(0, 4), (2, 1), (3, 4)]
BF16 = {"precision": "bf16"}
IN_PIECES = {"micro_tokens": 18}
"""Most sets hold more tokens, up to 53: they are forwarded in pieces, the others whole."""
BOTH: list[tuple[str, dict[str, Any]]] = [("", {}), ("-pieces", IN_PIECES)]


def job(out: Path, stage: int, micro: int, **more: Any) -> dict[str, Any]:
    config = {"zero_stage": stage, "micro_batch": micro, "global_batch": 5, "lr": 3e-3, "warmup_ratio": 0.0}
    # 24 sets in batches of 5: the fifth batch has 4 sets, so shares are ragged, and with 2 processes of micro-batch 1
    # one of them has an empty micro-batch.
    config |= {"epochs": 2, "max_steps": 6} | more.pop("config", {})
    return {"out": str(out), "loss_fields": {"beta": 0.1}, "config": config} | more


def paths_through_losses(folder: Path) -> list[dict[str, Any]]:
    short = {"max_steps": 2}
    return [
        job(folder / "kto", 3, 2, loss="kto", config=short),
        job(folder / "kto-pieces", 0, 2, loss="kto", config=short | IN_PIECES),
        job(folder / "wpo", 2, 2, loss="wpo", config=short),
        job(folder / "wpo-pieces", 3, 2, loss="wpo", config=short | {"micro_tokens": 10}),
        job(folder / "grpo", 0, 2, loss="grpo", loss_fields={}, config=short),
        job(folder / "simpo", 2, 2, loss="simpo", loss_fields={}, config=short),
        job(folder / "lora", 0, 2, lora=True, config=short | {"activation_checkpointing": True}),
        job(folder / "lora3", 3, 2, lora=True, config=short | {"activation_checkpointing": True}),
        job(folder / "plain3", 3, 2, config=short | {"activation_checkpointing": True}),
        job(folder / "second3", 3, 2, config=short | {"activation_checkpointing": 2}),
        job(folder / "plain0", 0, 2, config=short),
        *(job(folder / f"bf16-{stage}", stage, 2, config=short | BF16) for stage in (1, 3)),
        job(folder / "bf16-lora", 1, 2, lora=True, config=short | BF16),
        job(folder / "offload", 2, 2, config=short | {"offload": "optimizer"}),
        job(folder / "plain3-pieces", 3, 2, config=short | {"activation_checkpointing": True} | IN_PIECES),
        *(job(folder / f"bf16-{stage}-pieces", stage, 2, config=short | BF16 | IN_PIECES) for stage in (1, 3)),
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quick runs at world size 1 and 2."""
    folder = tmp_path_factory.mktemp("trained")
    quick = [job(folder / f"1-{stage}-{micro}", stage, micro) for stage, micro in QUICK]
    quick += [job(folder / "1-rows", 0, 4, rows=True), job(folder / "1-pieces", 0, 4, config=IN_PIECES)]
    quick += [job(folder / "1-rows-pieces", 0, 4, rows=True, config=IN_PIECES)]
    quick += [job(folder / f"bf16-alone{name}", 1, 2, config={"max_steps": 2} | BF16 | more) for name, more in BOTH]
    alone = {"global_batch": 1, "max_steps": 3, "micro_tokens": 8}  # all sets are larger: nothing but pieces
    answers = {"answers_alone": True}
    quick += [job(folder / "answers-1", 0, 4, **answers), job(folder / "answers-1-rows", 0, 1, rows=True, **answers)]
    assert spawn([*quick, job(folder / "again", 0, 4), job(folder / "alone-1", 0, 4, config=alone)]) == [0]
    both = [job(folder / f"2-{stage}-{micro}", stage, micro) for stage, micro in [*QUICK, (1, 1)]]
    both += [job(folder / "2-0-pieces", 0, 4, config=IN_PIECES)]
    both += [job(folder / "answers-2-pieces", 3, 4, config=IN_PIECES, **answers)]
    both += [job(folder / "2-2-offload", 2, 1, config={"offload": "optimizer"})]  # several micro-batches a window
    both += [job(folder / "alone-2", 2, 4, config=alone)]
    assert spawn([*both, *paths_through_losses(folder)], 2) == [0, 0]
    return folder


@pytest.fixture(scope="module")
def further(trained: Path) -> Path:
    """``trained``, with the paths that take longest."""
    short = {"max_steps": 2}
    checkpointed = short | {"activation_checkpointing": True}
    jobs = [
        job(trained / "2-3-pieces", 3, 4, config=IN_PIECES),
        job(trained / "lora3-pieces", 3, 2, lora=True, config=checkpointed | IN_PIECES),
        *(job(trained / f"bf16-2{name}", 2, 2, config=short | BF16 | more) for name, more in BOTH),
        job(trained / "compiled3", 3, 2, config=checkpointed | {"compile": True}),
    ]
    assert spawn(jobs, 2) == [0, 0]
    return trained


def assert_one_curve(folders: list[Path]) -> None:
    expected = torch.tensor(curve(folders[0]), dtype=torch.float64)
    assert len(expected) == 6
    assert expected.std() > 1e-2  # a curve that doesn't move would prove nothing
    for folder in folders[1:]:
        torch.testing.assert_close(torch.tensor(curve(folder), dtype=torch.float64), expected, rtol=1e-6, atol=0.0)


def test_quick_grid_gives_one_curve(trained: Path) -> None:
    assert_one_curve(sorted(path for path in trained.iterdir() if path.name[0] in "12" and path.name != "2-3-pieces"))


def test_of_answers_alone_there_is_one_curve_too(trained: Path) -> None:
    assert_one_curve(sorted(trained.glob("answers-*")))
    assert curve(trained / "answers-1") != curve(trained / "1-0-4")


def test_process_without_a_piece_of_the_only_set_waits_for_the_other(trained: Path) -> None:
    expected = torch.tensor(curve(trained / "alone-1"))
    assert len(expected) == 3
    torch.testing.assert_close(torch.tensor(curve(trained / "alone-2")), expected, rtol=1e-6, atol=0.0)


@pytest.mark.slow
def test_full_grid_gives_one_curve(tmp_path: Path) -> None:
    for world_size in (1, 2):
        jobs = [job(tmp_path / f"{world_size}-{stage}-{micro}", stage, micro) for stage, micro in GRID]
        assert spawn(jobs, world_size) == [0] * world_size
    assert_one_curve(sorted(tmp_path.iterdir()))


def test_one_seed_gives_bitwise_the_same_weights(trained: Path) -> None:
    first, second = weights(trained / "1-0-4"), weights(trained / "again")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "name", ["kto", "wpo", "grpo", "simpo", "lora", "lora3", "bf16-1", "bf16-3", "bf16-lora", "offload"]
)
def test_path_trains_two_steps(trained: Path, name: str) -> None:
    assert curve(trained / name, "step") == [1, 2]
    assert all(norm > 0 for norm in curve(trained / name, "grad_norm"))
    # The first loss is the loss at policy = reference; the first update changes the policy.
    if name != "simpo":
        first, second = curve(trained / name, "kl")
        assert abs(first) < (1e-3 if "bf16" in name else 1e-9) and second > 1e-6


def test_pieces_change_no_loss_of_mismatched_pairs(trained: Path) -> None:
    torch.testing.assert_close(curve(trained / "kto-pieces"), curve(trained / "kto"), rtol=1e-6, atol=0.0)


def test_pieces_change_no_weight_of_a_pair(trained: Path) -> None:
    for key in ("loss", "weight", "grad_norm"):
        torch.testing.assert_close(curve(trained / "wpo-pieces", key), curve(trained / "wpo", key), rtol=1e-5, atol=0.0)
    assert all(0 < weight < 1 for weight in curve(trained / "wpo", "weight"))


def test_rotary_frequencies_stay_float32_in_bf16(trained: Path) -> None:
    buffers = json.loads((trained / "bf16-3" / "buffers.json").read_text())
    assert {dtype for name, dtype in buffers.items() if "inv_freq" in name} == {"torch.float32"}
    assert weights(trained / "bf16-3")["lm_head.weight"].dtype == torch.bfloat16


def test_gradients_of_bf16_are_summed_in_float32(trained: Path) -> None:
    """Two micro-batches in each of two processes; a sum in bfloat16 would be off by a thousandth."""
    for pieces in ("", "-pieces"):
        expected = curve(trained / f"bf16-3{pieces}", "grad_norm")[0]
        found = curve(trained / f"bf16-1{pieces}", "grad_norm")[0]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
        # Alone, a process does not round the whole gradient of the vocabulary's weights before it is summed.
        both = [curve(trained / f"bf16-{name}{pieces}", "grad_norm") for name in ("alone", "3")]
        torch.testing.assert_close(both[0], both[1], rtol=5e-3, atol=0.0)
    whole = curve(trained / "bf16-3", "grad_norm")[0]
    assert expected != whole
    torch.testing.assert_close(expected, whole, rtol=5e-3, atol=0.0)


@pytest.mark.parametrize("name", ["plain3", "second3", "plain3-pieces"])
def test_activation_checkpointing_and_zero_change_no_update(trained: Path, name: str) -> None:
    plain, checkpointed = weights(trained / "plain0"), weights(trained / name)
    for parameter in plain:
        torch.testing.assert_close(checkpointed[parameter], plain[parameter], rtol=0.0, atol=2e-5)


def assert_adapters_alike(trained: Path, name: str) -> None:
    torch.testing.assert_close(curve(trained / name), curve(trained / "lora"), rtol=1e-6, atol=0.0)
    plain, spread = weights(trained / "lora"), weights(trained / name)
    assert plain.keys() == weights(trained / "plain0").keys()
    for part in plain:
        torch.testing.assert_close(spread[part], plain[part], rtol=0.0, atol=2e-5)
    alone, of_shards = (load_file(trained / job / "adapter" / "adapter_model.safetensors") for job in ("lora", name))
    assert alone.keys() == of_shards.keys() and len(alone) == 2 * 2 * 7  # A and B of seven maps in two layers
    for part in alone:
        torch.testing.assert_close(of_shards[part], alone[part], rtol=0.0, atol=2e-5)
    assert not (trained / "plain0" / "adapter").exists()


def test_adapters_train_alike_under_zero_3(trained: Path) -> None:
    assert_adapters_alike(trained, "lora3")


@pytest.mark.slow
def test_further_paths_train_alike(further: Path) -> None:
    assert_one_curve([further / name for name in ("1-0-4", "2-3-pieces")])
    assert_adapters_alike(further, "lora3-pieces")
    torch.testing.assert_close(curve(further / "compiled3"), curve(further / "plain0"), rtol=1e-5, atol=0.0)
    for pieces in ("", "-pieces"):
        expected, found = (curve(further / f"bf16-{stage}{pieces}", "grad_norm")[0] for stage in (3, 2))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", ["2-3-4", "lora3", "2-0-4"])
def test_export_loads_elsewhere_and_scores_alike(trained: Path, name: str) -> None:
    folder = trained / name / "policy"
    lm = AutoModelForCausalLM.from_pretrained(folder).eval()
    sets = TokenSets(3)
    ours = load_policy(str(folder))(collate([sets[i] for i in range(3)])).logps_BK
    for b, k in ((0, 0), (1, 1), (2, 0)):
        prompt, response = torch.from_numpy(sets[b].prompt_ids).long(), torch.from_numpy(sets[b].response_ids[k]).long()
        ids_1T = torch.cat([prompt, response]).unsqueeze(0)
        logps_TV = lm(ids_1T).logits[0].log_softmax(-1)
        direct = logps_TV[len(prompt) - 1 : -1].gather(-1, response.unsqueeze(-1)).sum()
        torch.testing.assert_close(ours[b, k], direct, rtol=1e-5, atol=1e-5)
    assert lm.generation_config.eos_token_id == 2
    assert "library_name: transformers" in (folder / "README.md").read_text()
