"""Golden cases of losses: one set, a loss, and the loss and gradient that it must give.

A golden file is a JSON list of objects with ``loss`` (a name in ``LOSSES``, or ``package.module:Class`` where imports
are allowed), ``params``, ``regime``, ``policy_logps``, ``ref_logps`` (may be absent or null for a reference-free loss),
``lengths``, ``rewards`` (the scores), optionally ``accepted`` (the marks of partition ``given``), ``expected_loss``
and ``expected_grad`` (with respect to ``policy_logps``).

``params`` holds the loss's own fields, ``partition`` with that partition's fields (``k``, ``trim``, ``bins``), ``kl``
(KTO's mismatched log-ratio) and ``rejected_index`` (which response a pair's random draw took).
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass, fields
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import torch

from mpo.errors import DataError, UserError
from mpo.losses import LOSSES, Loss, LossInputs
from mpo.partition import PARTITIONS, Partition


@dataclass(frozen=True)
class GoldenCase:
    """One checked case; K responses, ``reference_logps`` None where the case has none."""

    where: str
    name: str
    regime: str
    loss: Loss
    bins: list[int]
    policy_logps: list[float]
    reference_logps: list[float] | None
    lengths: list[int]
    scores: list[float]
    kl: float | None
    expected_loss: float
    expected_grad: list[float]

    def evaluate(self, dtype: torch.dtype) -> tuple[float, list[float]]:
        """Loss and its gradient with respect to the policy's log-probs, computed in ``dtype``."""

        def row(values: list[float]) -> torch.Tensor:
            return torch.tensor([values], dtype=dtype)

        policy_BK = row(self.policy_logps).requires_grad_()
        output = self.loss(
            LossInputs(
                policy_logps_BK=policy_BK,
                reference_logps_BK=None if self.reference_logps is None else row(self.reference_logps),
                lengths_BK=torch.tensor([self.lengths]),
                scores_BK=row(self.scores),
                bins_BK=torch.tensor([self.bins]),
                mask_BK=torch.ones(1, len(self.bins), dtype=torch.bool),
                mismatched_log_ratio=None if self.kl is None else torch.tensor(self.kl, dtype=dtype),
            )
        )
        (grad_BK,) = torch.autograd.grad(output.loss_B.sum(), policy_BK)
        return output.loss_B.item(), grad_BK[0].tolist()


def read_golden(path: Path, allow_import: bool = False) -> list[GoldenCase]:
    """All cases of a golden file.

    Raises:
        DataError: the file or a case cannot be used; ``where`` is ``file`` or ``file:case index``.
    """
    remedy = "give a JSON list of golden cases"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path), remedy) from error
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", str(path), remedy) from error
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", f"{path}:{error.lineno}", remedy) from error
    if not isinstance(rows, list) or not rows:
        raise DataError("holds no list of cases", str(path), remedy)
    return [_read_case(row, f"{path}:case {index}", allow_import) for index, row in enumerate(rows)]


def _read_case(row: Any, where: str, allow_import: bool) -> GoldenCase:
    if not isinstance(row, dict):
        raise DataError("is not a JSON object", where, "give loss, params, numbers and expectations by name")
    params = row.get("params", {})
    if not isinstance(params, dict):
        raise DataError("params is not a JSON object", where, "give parameters by name")
    scores = _numbers(row, "rewards", where)
    size = len(scores)
    try:
        loss_class = _loss_class(row.get("loss"), allow_import)
        loss, bins = _build(loss_class, dict(params), scores, row.get("accepted"))
    except UserError as error:
        raise DataError(error.what, f"{where}: {error.where}" if error.where else where, error.remedy) from error
    reference = None if row.get("ref_logps") is None else _numbers(row, "ref_logps", where, size)
    if loss.needs_reference and reference is None:
        raise DataError("ref_logps is missing", where, f"loss {row['loss']} needs reference log-probs")
    if loss.needs_token_logps:
        raise DataError(f"loss {row['loss']} reads log-probs token by token", where, "golden cases hold sums only")
    if loss.needs_wpo_weights:
        raise DataError(f"loss {row['loss']} reads whole distributions of tokens", where, "golden cases hold sums only")
    kl = _numbers({"kl": [params["kl"]]}, "kl", where)[0] if "kl" in params else None
    if loss.needs_mismatched_kl and kl is None:
        raise DataError("params.kl is missing", where, f"loss {row['loss']} needs it")
    return GoldenCase(
        where=where,
        name=str(row["loss"]),
        regime=str(row.get("regime", "")),
        loss=loss,
        bins=bins,
        policy_logps=_numbers(row, "policy_logps", where, size),
        reference_logps=reference,
        lengths=_lengths(row, where, size),
        scores=scores,
        kl=kl,
        expected_loss=_numbers({"expected_loss": [row.get("expected_loss")]}, "expected_loss", where)[0],
        expected_grad=_numbers(row, "expected_grad", where, size),
    )


def _numbers(row: dict[str, Any], key: str, where: str, size: int | None = None) -> list[float]:
    values = row.get(key)
    if not isinstance(values, list) or not values:
        raise DataError(f"{key} is missing or no list", where, "give one number per response")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise DataError(f"{key} holds {str(value)[:40]}", where, "give finite numbers")
    if size is not None and len(values) != size:
        raise DataError(f"{key} holds {len(values)} numbers, rewards {size}", where, "give one number per response")
    return [float(value) for value in values]


def _lengths(row: dict[str, Any], where: str, size: int) -> list[int]:
    values = _numbers(row, "lengths", where, size)
    if not all(value.is_integer() and value >= 1 for value in values):
        raise DataError("lengths holds a number of tokens below 1 or broken", where, "give whole numbers above 0")
    return [int(value) for value in values]


def _loss_class(name: Any, allow_import: bool) -> type[Loss]:
    if isinstance(name, str) and ":" in name:
        return _imported(name, allow_import)
    if not isinstance(name, str) or name not in LOSSES:
        near = get_close_matches(str(name), LOSSES, n=1)
        raise DataError(
            f"unknown loss {name!r}", remedy=f"did you mean {near[0]}?" if near else "see mpo.losses.LOSSES"
        )
    return LOSSES[name]


def _imported(name: str, allow_import: bool) -> type[Loss]:
    if not allow_import:
        raise DataError(f"loss {name} would import code", remedy="pass --allow-import if you trust the file")
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # whatever the module does when it is imported
        raise DataError(
            f"loss {name} cannot be imported ({type(error).__name__}: {error})", remedy="give package.module:Class"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Loss)):
        raise DataError(f"{name} is no mpo.losses.Loss", remedy="give a subclass of mpo.losses.Loss")
    return found


def _build(
    loss_class: type[Loss], params: dict[str, Any], scores: list[float], accepted: Any
) -> tuple[Loss, list[int]]:
    """Loss and bins of a case; raises DataError or ConfigError on a parameter that belongs to neither."""
    params.pop("kl", None)
    rejected = params.pop("rejected_index", None)
    partition_name = params.pop("partition", loss_class.default_partition)
    if not isinstance(partition_name, str) or partition_name not in PARTITIONS:
        raise DataError(f"unknown partition {partition_name!r}", remedy=f"give one of {', '.join(PARTITIONS)}")
    partition_class = PARTITIONS[partition_name]
    loss_fields = {field.name for field in fields(loss_class)}
    partition_fields = {field.name for field in fields(partition_class)} - loss_fields
    for key in params:
        if key not in loss_fields | partition_fields:
            near = get_close_matches(key, sorted(loss_fields | partition_fields), n=1)
            raise DataError(f"unknown parameter {key}", remedy=f"did you mean {near[0]}?" if near else "leave it out")
    loss = _made(loss_class, {key: value for key, value in params.items() if key in loss_fields})
    chosen = {key: value for key, value in params.items() if key in partition_fields}
    partition = partition_class(**_typed(partition_class, chosen))
    loss.check_partition(partition)
    if rejected is None:
        return loss, partition(scores, accepted)
    return loss, _drawn(partition, scores, rejected)


def _made(loss_class: type[Loss], values: dict[str, Any]) -> Loss:
    try:
        return loss_class(**_typed(loss_class, values))
    except UserError:
        raise
    except Exception as error:
        if loss_class in LOSSES.values():
            raise
        what = f"{loss_class.__name__} cannot be made ({type(error).__name__}: {error})"
        raise DataError(what, remedy="give its parameters in params") from error


def _drawn(partition: Partition, scores: list[float], rejected: Any) -> list[int]:
    if not isinstance(rejected, int) or not 0 <= rejected < len(scores):
        raise DataError(f"rejected_index {rejected!r} is no response", remedy=f"give an index below {len(scores)}")
    for draw in range(len(scores)):
        bins = partition(scores, draw=draw)
        if [index for index, number in enumerate(bins) if number == 1] == [rejected]:
            return bins
    raise DataError(f"partition never rejects response {rejected} alone", remedy="give another rejected_index")


def _typed(owner: type[Loss | Partition], values: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(owner)
    return {key: _value(key, value, hints[key]) for key, value in values.items()}


def _value(key: str, value: Any, hint: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, Enum):
        if value in hint.__members__:
            return hint[value]
        raise DataError(f"{key} is {value!r}", remedy=f"give one of {', '.join(hint.__members__)}")
    allowed = (int, float) if hint is float else hint
    if isinstance(value, bool) is not (hint is bool) or not isinstance(value, allowed):
        raise DataError(f"{key} is {value!r}", remedy=f"give a value of type {hint.__name__}")
    return value
