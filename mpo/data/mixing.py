"""How many sets each part of a mixture gives, and which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from mpo.data.split import take_number
from mpo.errors import DataError

KEY = "data.source"


def take_shares(
    parts: Sequence[str], keys: Sequence[str], weights: Mapping[str, float], total: int | None, seed: int
) -> tuple[int, ...]:
    """Ascending indices of the sets that a mixture takes, each at most once; those of a smaller share of a part are
    among those of a larger one.

    Args:
        parts: the part of each set.
        keys: its prompt (``prompt_key``), which with the seed decides its place in the order of its part.
        weights: of the parts.
        total: see :func:`shares`.

    Raises:
        DataError: see :func:`shares`.
    """
    there = Counter(parts)
    wanted = shares(weights, {name: there[name] for name in weights}, total)
    chosen: list[int] = []
    for name, number in wanted.items():
        own = [index for index, part in enumerate(parts) if part == name]
        chosen += [own[position] for position in take_number([keys[i] for i in own], number, seed, "mixture")]
    return tuple(sorted(chosen))


def shares(weights: Mapping[str, float], available: Mapping[str, int], total: int | None) -> dict[str, int]:
    """How many sets each part gives.

    Of ``total`` sets each gives ``weight / sum of weights``, rounded so that they add up: down, and up for those with
    the largest rest (of equal ones the first). Without ``total`` it is the largest for which
    ``total * weight / sum of weights`` is no more than what any part has.

    Args:
        available: sets of each part.

    Raises:
        DataError: a part has fewer than its share, or none.
    """
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}  # as written: 0.7 is 7/10
    whole = sum(exact.values())
    for name in weights:
        if not available[name]:
            what = f"part '{name}' has no set left to give: earlier parts have all its prompts, or they are held out"
            raise DataError(what, f"{KEY}.parts.{name}", "leave it out, or name another file")
    scarcest = min(weights, key=lambda name: available[name] / exact[name])
    most = int(available[scarcest] * whole / exact[scarcest])
    given = most if total is None else total
    quotas = {name: given * weight / whole for name, weight in exact.items()}
    found = {name: int(quota) for name, quota in quotas.items()}
    by_rest = sorted(quotas, key=lambda name: found[name] - quotas[name])
    for name in by_rest[: given - sum(found.values())]:
        found[name] += 1
    for name, number in found.items():
        share = f"its share of {given:,} is {number:,} (weight {weights[name]:g} of {float(whole):g})"
        if number > available[name]:
            remedy = f"give at most {most:,}, lower the part's weight, or leave total out"
            raise DataError(f"part '{name}' has {available[name]:,} sets, {share}", f"{KEY}.total", remedy)
        if number == 0:
            scarce = f"; part '{scarcest}' has only {available[scarcest]:,} sets" if total is None else ""
            raise DataError(f"part '{name}' gives nothing: {share}{scarce}", f"{KEY}.parts.{name}.weight",
                            "raise it, or leave the part out")  # fmt: skip
    return found
