"""The planned memory of a micro-batch beside what its tensors take on a card in name only."""

from __future__ import annotations

import pytest

from mpo.config.training import LoraConfig, TrainConfig
from mpo.planning.memory import training_memory
from mpo.planning.sizes import read_architecture
from tests.compile.attention_cases import Lengths
from tests.compile.conftest import Cards
from tests.compile.policy_cases import SHAPES, peak

pytestmark = [pytest.mark.slow, pytest.mark.compile]

SETS: dict[str, Lengths] = {
    "two": [(180, [280] * 4)] * 2,
    "twelve": [(180, [280] * 4)] * 12,
    "long prompts": [(3000, [250] * 8)] * 2,
}
TOLERANCE = 0.03
LONG: Lengths = [(9000, [2500] * 8)]
OF_SHARED_ROWS = 0.1
"""The hidden states of a whole row are there at the same time as the head's gradients in the plan alone."""


@pytest.mark.parametrize(("sets", "checkpointing"), [("two", False), ("twelve", True), ("long prompts", True)])
@pytest.mark.parametrize("name", SHAPES)
def test_the_plan_is_what_the_tensors_take(cards: Cards, name: str, sets: str, checkpointing: bool) -> None:
    found = cards.run("sm_90", peak, SHAPES[name], checkpointing, SETS[sets])
    config = TrainConfig(activation_checkpointing=checkpointing)
    planned = training_memory(read_architecture(SHAPES[name]), config, 8, found.tokens, scored=found.scored)
    expected = planned.activations + planned.logits
    print(f"{name}, {found.tokens} tokens: {found}, planned {expected}, {expected / found.most:.3f} times")
    assert abs(expected / found.most - 1) <= TOLERANCE


@pytest.mark.parametrize(("sets", "checkpointing"), [("two", False), ("twelve", False), ("twelve", True)])
@pytest.mark.parametrize(("name", "layers"), [("1B", 16), ("8B", 8)])
def test_the_plan_of_adapters_is_what_the_tensors_take(
    cards: Cards, name: str, layers: int, sets: str, checkpointing: bool
) -> None:
    """On a frozen model in bfloat16; of one in 4 bits what is kept is compared on a CPU (tests/unit/planning)."""
    shape, lora = SHAPES[name] | {"num_hidden_layers": layers}, LoraConfig()
    found = cards.run("sm_90", peak, shape, checkpointing, SETS[sets], lora)
    config = TrainConfig(activation_checkpointing=checkpointing, lora=lora)
    planned = training_memory(read_architecture(shape), config, 8, found.tokens, scored=found.scored)
    expected = planned.activations + planned.logits
    print(f"{name}, {found.tokens} tokens: {found}, planned {expected}, {expected / found.most:.3f} times")
    assert abs(expected / found.most - 1) <= TOLERANCE


@pytest.mark.parametrize(("processes", "checkpointing"), [(4, True), (4, False), (16, True)])
def test_the_plan_of_a_shared_row_is_what_the_tensors_take(cards: Cards, processes: int, checkpointing: bool) -> None:
    """With 16 processes two have the same of 8 heads of keys."""
    found = cards.run("sm_90", peak, SHAPES["8B"], checkpointing, LONG, None, processes)
    config = TrainConfig(activation_checkpointing=checkpointing, sequence_parallel=processes)
    planned = training_memory(read_architecture(SHAPES["8B"]), config, 16, found.tokens, scored=found.scored)
    expected = planned.activations + planned.logits
    print(
        f"{processes} processes, {found.tokens} tokens: {found}, planned {expected}, {expected / found.most:.3f} times"
    )
    assert abs(expected / found.most - 1) <= OF_SHARED_ROWS
