"""Numbers as people read them: durations, memory, values with their standard errors."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """``0.4 s``, ``42 s``, ``3 min 04 s`` or ``1 h 02 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def step_duration(seconds: float) -> str:
    """The same, but ``38 ms`` below a second."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else duration(seconds)


def memory(count: float) -> str:
    """Bytes as ``512 MiB`` or ``71.3 GiB``."""
    gibibytes = count / 2**30
    return f"{gibibytes:.1f} GiB" if gibibytes >= 1 else f"{count / 2**20:.0f} MiB"


def number(value: float, standard_error: float | None = None) -> str:
    """A value to the precision that its standard error leaves, e.g. ``7.213 ± 0.052``; without one, four digits.

    A value that is not finite is an en dash: there was nothing to measure.
    """
    if not math.isfinite(value):
        return "–"
    if standard_error is None or not math.isfinite(standard_error):
        return _four_digits(value)
    # Two digits of the error.
    if standard_error <= 1e-9 * abs(value):  # none, or rounding alone
        return f"{_four_digits(value)} ± 0"
    places = max(0, 1 - math.floor(math.log10(standard_error)))
    return f"{value:.{places}f} ± {standard_error:.{places}f}"


def _four_digits(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def count(things: int) -> str:
    """A number of things to three digits, ``7.5B``, ``110M`` or ``4.5k``; below a thousand as it is."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if things >= 0.9995 * unit:  # which is rounded to one of these
            return f"{things / unit:.3g}{name}"
    return str(things)


def percent(share: float) -> str:
    """A share as ``40 %``."""
    return f"{100 * share:.3g} %"
