"""A model's files hold what the model needs: none is cut, no weight is missing, left over or of another shape."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from mpo.errors import UserError

NAMED = 3
"""Weights that an error names; the rest it counts."""
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""Weights in one file, which is read where both are, and the index of those in several."""
OF_OLD_VERSIONS = "masked_bias"
"""A constant that attention modules of older versions of transformers kept, and saved, beside their causal mask."""
REMEDY = "copy or save the model again"


def check_files(path: str) -> None:
    """Look at the weights' files of a local folder, as far as their beginnings and sizes tell; a hub's are the hub's.

    Raises:
        UserError: a file is cut or not safetensors, or one that the index names is missing; names it.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError as error:
            raise UserError(f"not a whole safetensors file: {error}", str(file), REMEDY) from error
        except FileNotFoundError:
            raise UserError("a link to a file that is missing", str(file), REMEDY) from None
    for name in () if (folder / WHOLE).is_file() else sorted(_indexed(folder / INDEX)):
        if not (folder / name).is_file():
            raise UserError(f"{INDEX} names {name}, which is missing", path, REMEDY)


def widen_when_read(config: Any) -> None:
    """Have weights that are quantised in a way that transformers can undo (fp8, mxfp4) undone as they are read.

    Without a card it does so by itself; beside one it would keep them, and most cannot be trained that way.
    """
    quantisation = getattr(config, "quantization_config", None)
    if isinstance(quantisation, dict):
        quantisation["dequantize"] = True


def check_loaded(path: str, lm: nn.Module, info: Mapping[str, Any], quantised_here: bool = False) -> None:
    """Refuse a model with weights that were not read, and so are random, or with files that have others than it needs.

    Causal masks and the like, which older versions of transformers saved and newer ones make anew, are none.

    Args:
        lm: as it was loaded.
        info: transformers' loading info: what it found missing, unexpected and of another shape, without what the
            model's class declares harmless (tied heads, rotary buffers).
        quantised_here: whole weights were, on their way into the model.

    Raises:
        UserError: names the weights, or the method by which they are still quantised.
    """
    quantizer = getattr(lm, "hf_quantizer", None)
    if quantizer is not None and (quantizer.pre_quantized or not quantised_here):
        method = quantizer.quantization_config.quant_method
        what = f"its weights are quantised ({getattr(method, 'value', method)})"
        raise UserError(what, f"the model in '{path}'", "give the model before it was quantised")
    where, remedy = f"the model in '{path}'", "give a folder with all weights of the class that its config.json names"
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"lacks {_named(missing)}", where, remedy)
    if mismatched := sorted(info["mismatched_keys"], key=lambda entry: str(entry[0])):
        name, found, wanted = mismatched[0]
        what = f"has {name} of shape {list(found)}, but its config.json means {list(wanted)}"
        raise UserError(what + (f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""), where, remedy)
    made_anew = {name for name, _ in lm.named_buffers()}
    unexpected = sorted(
        name for name in info["unexpected_keys"] if name not in made_anew and name.rpartition(".")[2] != OF_OLD_VERSIONS
    )
    if unexpected:
        raise UserError(f"has {_named(unexpected)}, which its class does not use", where, remedy)


def _indexed(index: Path) -> Iterable[str]:
    if not index.is_file():
        return ()
    try:
        return {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError("not an index of weights", str(index), REMEDY) from error


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{'weights' if len(names) > 1 else 'the weight'} {', '.join(names[:NAMED])}{more}"
