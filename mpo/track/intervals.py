"""Stretches of time, ``(begin, end)``, in sorted lists that do not overlap."""

from __future__ import annotations

from collections.abc import Iterable

Interval = tuple[float, float]


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The time that any of them covers."""
    found: list[Interval] = []
    for begin, end in sorted(intervals):
        if end <= begin:
            continue
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def without(intervals: list[Interval], others: list[Interval]) -> list[Interval]:
    """The time of ``intervals`` that none of ``others`` covers; both as :func:`union` returns them."""
    found: list[Interval] = []
    first = 0
    for begin, end in intervals:
        while first < len(others) and others[first][1] <= begin:
            first += 1
        at, left = first, begin
        while left < end and at < len(others) and others[at][0] < end:
            if left < others[at][0]:
                found.append((left, others[at][0]))
            left = max(left, others[at][1])
            at += 1
        if left < end:
            found.append((left, end))
    return found


def within(intervals: list[Interval], others: list[Interval]) -> list[Interval]:
    """The time of ``intervals`` that ``others`` cover too; both as :func:`union` returns them."""
    return without(intervals, without(intervals, others))


def length(intervals: Iterable[Interval]) -> float:
    """Their time in all."""
    return sum(end - begin for begin, end in intervals)
