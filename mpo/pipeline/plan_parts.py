"""What the plan says of a mixture's parts, from the beginnings of those that are local files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mpo.config.files import DATA_SUFFIXES, is_local, redacted_name
from mpo.data.estimate import Sketch, sketch
from mpo.data.mixing import shares
from mpo.data.sources.mixture import Mixture, Part
from mpo.errors import DataError


def sketch_parts(source: Mixture, max_prompt_tokens: int, max_tokens: int) -> dict[str, Sketch | None]:
    """An estimate of each part by name; None where its size is not known before it is read."""
    return {name: _sketch(part, max_prompt_tokens, max_tokens) for name, part in source.parts.items()}


def mixed(source: Mixture, found: Mapping[str, Sketch | None]) -> Sketch | None:
    """An estimate of the whole, as if no prompt were in two parts; None where a part's is missing, or too small."""
    known = {name: one for name, one in found.items() if one is not None}
    numbers = _shares(source, found)
    if len(known) < len(found) or numbers is None:
        return None
    sets = sum(numbers.values())
    responses = {name: numbers[name] * one.responses for name, one in known.items()}
    every = sum(responses.values())  # none, of prompts alone
    prompt_tokens = sum(numbers[name] * one.prompt_tokens for name, one in known.items())
    response_tokens = sum(responses[name] * one.response_tokens for name, one in known.items())
    return Sketch(
        sets=sets,
        responses=max(1, round(every / sets)) if every else 0,
        prompt_tokens=round(prompt_tokens / sets),
        response_tokens=round(response_tokens / max(1, every)),
    )


def parts_line(source: Mixture, found: Mapping[str, Sketch | None]) -> str:
    """Each part with its size, as far as that is known, its weight and how many sets it gives."""
    numbers = _shares(source, found)
    return "; ".join(_part(name, part, found[name], numbers) for name, part in source.parts.items())


def _part(name: str, part: Part, found: Sketch | None, numbers: Mapping[str, int] | None) -> str:
    size = "size known once it is read" if found is None else f"about {found.sets:,} sets"
    text = f"{name} ({redacted_name(part.path)}): {size}, weight {part.weight:g}"
    if numbers is None:
        return text
    few = found is not None and found.sets < numbers[name]
    return f"{text}, gives {numbers[name]:,}{', which are more than it seems to have' if few else ''}"


def _shares(source: Mixture, found: Mapping[str, Sketch | None]) -> dict[str, int] | None:
    """How many sets each part gives, where that is known: with a total it does not depend on what there is."""
    weights = {name: part.weight for name, part in source.parts.items()}
    sizes = {name: one.sets for name, one in found.items() if one is not None}
    if source.total is None and len(sizes) < len(weights):
        return None
    available = sizes if source.total is None else dict.fromkeys(weights, source.total)
    try:
        return shares(weights, available, source.total)
    except DataError:  # which the stage that reads them all reports
        return None


def _sketch(part: Part, max_prompt_tokens: int, max_tokens: int) -> Sketch | None:
    if not is_local(part.path, DATA_SUFFIXES):
        return None
    found = sketch(replace(part.spec, path_or_name=str(Path(part.path).expanduser())), max_prompt_tokens, max_tokens)
    return found if found is None or part.limit is None else replace(found, sets=min(found.sets, part.limit))
