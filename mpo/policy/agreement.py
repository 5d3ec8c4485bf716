"""A policy against the model it was made of: the log-probs of a few random tokens, before and after."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mpo.errors import cut, first_line
from mpo.layout.batch import collate
from mpo.policy.full_precision import in_float32
from mpo.policy.head import LogitExtras, logit_extras
from mpo.policy.model_class import backbone, refusal
from mpo.policy.module import PolicyModule
from mpo.policy.probe import Probe, probe

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest difference of a token's log-prob in nats, beside a thousandth of it."""
PROBES = 3
"""In float32 one of so many has to agree: rounding may send a token of one to another expert, never of all."""


def plain_logps(lm: PreTrainedModel, of: Probe) -> list[Tensor]:
    """Log-probs [T] of each response's tokens by one plain forward pass of the whole model for each response.

    Raises:
        ConfigError: the model takes no token ids alone, or returns no logits.
    """
    found = []
    for response in of.response_ids:
        ids_1N = torch.as_tensor([[*of.prompt_ids, *response]], device=lm.device)
        try:
            with torch.no_grad():
                logits_NV = lm(input_ids=ids_1N, use_cache=False).logits[0].float()
        except Exception as error:
            raise refusal(lm.config, f"does not run on token ids alone ({cut(first_line(error), 120)})") from error
        start = len(of.prompt_ids)
        logps_NV = logits_NV[start - 1 : -1].log_softmax(-1)
        found.append(logps_NV.gather(-1, ids_1N[0, start:, None]).squeeze(-1))
    return found


def check_causal(lm: PreTrainedModel, of: Probe, expected: list[Tensor]) -> None:
    """Refuse a model whose tokens see later ones.

    Args:
        expected: :func:`plain_logps` of the probe.

    Raises:
        ConfigError: it is an encoder.
    """
    cut = of._replace(response_ids=[of.response_ids[0][:1]])

    def same(whole: list[Tensor], dtype: torch.dtype) -> bool:
        return torch.allclose(plain_logps(lm, cut)[0], whole[0][:1], rtol=1e-3, atol=TOLERANCE[dtype])

    if same(expected, lm.dtype):
        return
    with in_float32(lm):
        if not same(plain_logps(lm, of), torch.float32):
            raise refusal(lm.config, "predicts a token from those after it")


def fitting_extras(lm: PreTrainedModel) -> LogitExtras:
    """What the family does to its logits, of all readings of its config the one that the model itself computes.

    The head's output is replaced by large numbers on its way: with the logits of an untrained model no cap would show.

    Raises:
        ConfigError: it does something else.
    """
    readings = logit_extras(lm.config.get_text_config())
    head, config = lm.get_output_embeddings(), lm.config
    if not isinstance(head, nn.Module):
        raise refusal(config, "has no head over its vocabulary")
    given: list[Tensor] = []
    hidden_D: list[Tensor] = []

    def seen(module: nn.Module, arguments: object, output: Any) -> None:
        hidden_D.append(output[0][0, -1].float())

    def replaced(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        if arguments:
            hidden_D.append(arguments[0].flatten(0, -2)[-1].float())
        given.append(torch.linspace(-60, 60, output.shape[-1]).to(output).expand_as(output).clone())
        return given[-1]

    hooks = [backbone(lm).register_forward_hook(seen), head.register_forward_hook(replaced)]
    try:
        plain_logits_V = _last_logits(lm)
    finally:
        for hook in hooks:
            hook.remove()
    if not given:
        raise refusal(config, "computes its logits without its own head")
    raw_V = given[-1].float().flatten()[-plain_logits_V.numel() :]
    before = _ratio(*hidden_D) if len(hidden_D) == 2 else 1.0  # minicpm3 has its factor before the head
    for extras in readings:
        logits_V = raw_V * (extras.factor / before)
        logits_V = logits_V if extras.softcap is None else (logits_V / extras.softcap).tanh() * extras.softcap
        spread = float(plain_logits_V.max() - plain_logits_V.min())
        if torch.allclose(logits_V, plain_logits_V, rtol=1e-2, atol=1e-2 * spread):
            return extras
    raise refusal(config, "changes its logits in a way that is not known here")


def _ratio(one_D: Tensor, other_D: Tensor) -> float:
    """The factor from the one to the other; 1 if there is none."""
    if one_D.shape != other_D.shape:
        return 1.0
    ratio = float((one_D @ other_D) / (one_D @ one_D))
    is_one = abs(ratio - 1.0) < 1e-2 or not torch.allclose(one_D * ratio, other_D, rtol=2e-2, atol=1e-6)
    return 1.0 if is_one or ratio == 0.0 else ratio


def _last_logits(lm: PreTrainedModel) -> Tensor:
    ids_1N = torch.as_tensor(probe(lm.config).prompt_ids, device=lm.device).unsqueeze(0)
    try:
        with torch.no_grad():
            logits_1NV: Tensor = lm(input_ids=ids_1N, use_cache=False).logits
    except Exception as error:
        raise refusal(lm.config, f"does not run on token ids alone ({cut(first_line(error), 120)})") from error
    return logits_1NV[0, -1].float()


def check_policy(policy: PolicyModule, of: Probe, expected: list[Tensor], rows: str) -> None:
    """Compare the policy as it will be trained, in training mode, with what the untouched model gave.

    A difference is looked at again in float32 with other tokens, so that roundings are not taken for a fault.

    Args:
        expected: :func:`plain_logps` of the untouched model.
        rows: name of the attention that it was loaded with.

    Raises:
        ConfigError: log-probs differ from the model's own, or from pass to pass.
    """
    lm, mode = policy.base, policy.training
    attends = lm.config.get_text_config()._attn_implementation
    try:
        policy.train()
        if _difference(policy, of, expected, lm.dtype) <= 1.0:
            return
        worst = float("inf")
        with in_float32(policy):
            for number in range(PROBES):
                other = probe(lm.config, number)
                lm.set_attn_implementation(rows)
                plain = plain_logps(lm, other)
                lm.set_attn_implementation(attends)
                worst = min(worst, _difference(policy, other, plain, torch.float32))
                if worst <= 1.0:
                    break
        if worst > 1.0:
            by = worst * TOLERANCE[torch.float32]
            raise refusal(lm.config, f"gives other log-probs here than in transformers (by {by:.2g} nats per token)")
    finally:
        policy.train(mode)


def _difference(policy: PolicyModule, of: Probe, expected: list[Tensor], dtype: torch.dtype) -> float:
    """Largest difference of a token, in tolerances; in two passes where some layers are in training mode."""
    tolerance, worst = TOLERANCE[dtype], 0.0
    batch = collate([of]).to(policy.device)
    for _ in range(2 if any(module.training for module in policy.base.modules()) else 1):
        try:
            with torch.no_grad():
                logps_1KT = policy(batch).token_logps_BKT
        except Exception as error:
            raise refusal(
                policy.base.config, f"cannot be computed with a row for each response ({cut(first_line(error), 120)})"
            ) from error
        for k, wanted_T in enumerate(expected):
            error_T = (logps_1KT[0, k, : len(wanted_T)] - wanted_T).abs() / (tolerance + 1e-3 * wanted_T.abs())
            worst = max(worst, float(error_T.max().nan_to_num(float("inf"))))
    return worst
