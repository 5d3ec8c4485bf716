"""Heads of reward models: from hidden states to one score, in float32.

Tensors' names end in their shape: B conversations, T tokens, D hidden size, A attributes, Q quantiles. The parameters
have the names that the published checkpoints give them. ``gate_B`` is where the header of the last assistant turn
begins, at the end-of-turn token of the prompt; heads without gating ignore it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from mpo.score.model_folder import Head


def last_token(hidden_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Hidden states [B, D] at the last real token, float32.

    It is found by the mask alone, so that it does not matter on which side rows are padded, nor with which token.
    """
    positions_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = (positions_T * mask_BT).argmax(dim=1)
    return at(hidden_BTD, last_B)


def at(hidden_BTD: torch.Tensor, position_B: torch.Tensor) -> torch.Tensor:
    """Hidden states [B, D] at one position of each row, float32."""
    rows_B = torch.arange(len(hidden_BTD), device=hidden_BTD.device)
    return hidden_BTD[rows_B, position_B].float()


class HeadedModel(PreTrainedModel):
    """A transformers model without its own head, and one of the heads below."""

    base_model_prefix = "model"
    _supports_sdpa = True
    gated = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = AutoModel.from_config(config)
        self.add_head(config)
        self.post_init()

    def add_head(self, config: Any) -> None:
        """Make the head's modules."""
        raise NotImplementedError

    def scores(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, gate_B: torch.Tensor) -> torch.Tensor:
        """One score for each row, float32 [B]."""
        raise NotImplementedError


class TwoLayerHead(HeadedModel):
    """INF-ORM: Linear, ReLU, Linear (infly/INF-ORM-Llama3.1-70B; class published in its model card)."""

    _keep_in_fp32_modules_strict = ["score"]

    def add_head(self, config: Any) -> None:
        """Make the head's modules."""
        size = config.hidden_size
        self.score = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 1))

    def scores(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, gate_B: torch.Tensor) -> torch.Tensor:
        """One score for each row, float32 [B]."""
        return self.score(last_token(hidden_BTD, mask_BT))[:, 0]  # type: ignore[no-any-return]


class ValueHead(HeadedModel):
    """GRM sftreg's value head: hidden layers with ReLU, or one Linear (Ray2333/GRM-*-sftreg; RewardBench's grm.py).

    Its checkpoints may still hold the language model's head, which the score does not use.
    """

    _keep_in_fp32_modules_strict = ["v_head"]
    _keep_in_fp32_modules = ["v_head"]
    _keys_to_ignore_on_load_unexpected = [r"lm_head\.weight"]

    def add_head(self, config: Any) -> None:
        """Make the head's modules: by ``vhead_layer_type``, ``vhead_num_neurons``, ``vhead_num_layers``."""
        size = config.hidden_size
        summary: nn.Module
        if getattr(config, "vhead_layer_type", "mlp") == "linear":
            summary = nn.Linear(size, 1)
        else:
            width = getattr(config, "vhead_num_neurons", 1024)
            layers: list[nn.Module] = []
            for _ in range(getattr(config, "vhead_num_layers", 1)):
                layers += [nn.Linear(size, width), nn.ReLU()]
                size = width
            summary = nn.Sequential(*layers, nn.Linear(size, 1))
        self.v_head = nn.ModuleDict({"summary": summary})

    def scores(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, gate_B: torch.Tensor) -> torch.Tensor:
        """One score for each row, float32 [B]."""
        return self.v_head["summary"](last_token(hidden_BTD, mask_BT))[:, 0]  # type: ignore[no-any-return]


class AttributeWeights(HeadedModel):
    """URM: means of attributes, weighted by an MLP on the same hidden state (LxzGordon/URM-LLaMa-3.1-8B; SGLang's
    ``LlamaForSequenceClassificationWithNormal_Weights``). ``score`` gives mean and deviation of each attribute."""

    _keep_in_fp32_modules_strict = ["score", "weights"]

    def add_head(self, config: Any) -> None:
        """Make the head's modules; ``num_labels`` is twice the attributes."""
        size = config.hidden_size
        self.score = nn.Linear(size, config.num_labels, bias=False)
        layers = [nn.Linear(size, size), nn.SELU(), nn.Linear(size, size), nn.SELU()]
        self.weights = nn.ModuleDict({"fc": nn.Sequential(*layers, nn.Linear(size, config.num_labels // 2))})

    def scores(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, gate_B: torch.Tensor) -> torch.Tensor:
        """One score for each row, float32 [B]."""
        last_BD = last_token(hidden_BTD, mask_BT)
        means_BA = self.score(last_BD).unflatten(1, (-1, 2))[:, :, 0]
        return (means_BA * self.weights["fc"](last_BD)).sum(dim=1)  # type: ignore[no-any-return]


class Gating(nn.Module):
    """Weights of attributes from the hidden state of the prompt's end: an MLP, softmax with a temperature.

    Args:
        normalised: QRM's: without biases, each ReLU followed by a BatchNorm.
    """

    def __init__(self, config: Any, normalised: bool) -> None:
        super().__init__()
        size, width = config.hidden_size, getattr(config, "gating_hidden_dim", 1024)
        self.temperature = float(getattr(config, "gating_temperature", 10))
        self.logit_scale = nn.Parameter(torch.ones(1))
        layers: list[nn.Module] = []
        for _ in range(getattr(config, "gating_n_hidden", 3)):
            layers.append(nn.Linear(size, width, bias=not normalised))
            layers += [nn.ReLU(), nn.BatchNorm1d(width)] if normalised else []
            size = width
        self.layers = nn.ModuleList([*layers, nn.Linear(size, config.num_objectives)])
        self.normalised = normalised

    def forward(self, hidden_BD: torch.Tensor) -> torch.Tensor:
        """Weights [B, A], times ``logit_scale``."""
        for number, layer in enumerate(self.layers):
            hidden_BD = layer(hidden_BD)
            if not self.normalised and number + 1 < len(self.layers):  # its activations are no modules, so not counted
                hidden_BD = torch.relu(hidden_BD)
        return (hidden_BD / self.temperature).softmax(dim=1) * self.logit_scale


class GatedAttributes(HeadedModel):
    """ArmoRM: attributes of the response, transformed, weighted by a gate on the prompt (RLHFlow/ArmoRM-Llama3-8B-v0.1;
    RLHFlow/RLHF-Reward-Modeling, armo-rm)."""

    _keep_in_fp32_modules_strict = ["regression_layer", "reward_transform_matrix", "gating"]
    gated = True
    normalised = False

    def add_head(self, config: Any) -> None:
        """Make the head's modules."""
        count = config.num_objectives
        self.regression_layer = nn.Linear(config.hidden_size, count * self.outputs(config), bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.eye(count))
        self.gating = Gating(config, self.normalised)

    def outputs(self, config: Any) -> int:
        """Numbers that the regression gives for each attribute."""
        return 1

    def scores(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, gate_B: torch.Tensor) -> torch.Tensor:
        """One score for each row, float32 [B]."""
        found_BAQ = self.regression_layer(last_token(hidden_BTD, mask_BT)).unflatten(
            1, (self.config.num_objectives, -1)
        )
        rewards_BA = found_BAQ.mean(dim=2) @ self.reward_transform_matrix
        return (self.gating(at(hidden_BTD, gate_B)) * rewards_BA).sum(dim=1)  # type: ignore[no-any-return]


class GatedQuantiles(GatedAttributes):
    """QRM: quantiles of each attribute, whose mean is its reward (nicolinho/QRM-Llama3.1-8B and QRM-Llama3-8B;
    RewardBench's qrm.py)."""

    normalised = True

    def outputs(self, config: Any) -> int:
        """Numbers that the regression gives for each attribute."""
        return int(config.num_quantiles)


OWN = {
    Head.inf_orm: TwoLayerHead,
    Head.grm: ValueHead,
    Head.urm: AttributeWeights,
    Head.armorm: GatedAttributes,
    Head.qrm: GatedQuantiles,
}
"""Heads that are classes of this project; the others are transformers' own."""
