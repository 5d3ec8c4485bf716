"""The results of ``make bench-gpu`` as a Markdown table, beside the goals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mpo.track.units import memory

Row = tuple[str, str, str]
"""Question, goal, what was measured."""
Judged = tuple[str, str, str, bool | None]
"""The same, and whether that meets the goal; None without one."""
SHARE, FASTER, LARGER = 0.5, 3.0, 1.3
"""Goals: of an H100's measured bfloat16 product rate; times TRL at its best; times the memory of K = 8."""


def table(record: dict[str, Any]) -> str:
    """What :mod:`benchmarks.bench_gpu` recorded."""
    device = record["device"] or {"kind": "nothing"}
    where = (
        f"{device['name']} ({memory(device['memory_bytes'])}), driver {device['driver']}, CUDA {device['cuda']}"
        if device["kind"] == "cuda"
        else record["hardware"]
    )
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    commit = record["commit"][:12] or "unknown"
    lines = [f"`{record['command']}` at commit {commit}, {record['created']}: {where}; {versions}.", ""]
    if record["small"]:
        lines += ["**A trial of the code on a tiny model: these figures say nothing about speed.**", ""]
    lines += ["| question | goal | measured |", "|---|---|---|"]
    judged = device["kind"] == "cuda" and not record["small"]
    lines += [f"| {' | '.join(row)} |" for part in record["parts"] for row in _rows(part, judged)]
    return "\n".join(lines) + "\n"


def _rows(part: dict[str, Any], judged: bool) -> Iterator[Row]:
    """Of one part; goals are those of a card, so nothing else is ``judged`` by them."""
    if "result" not in part:
        word = "skipped" if "skipped" in part else "failed"
        yield f"`{part['name']}`", "", f"{word}: {part[word]}".replace("|", "\\|")
        return
    of_part = {"mfu": _mfu, "step_vs_trl": _trl, "large_k": _large_k, "layouts": _layouts, "breakdown": _breakdown}
    for question, goal, measured, met in of_part[part["module"]](part["result"]["rows"], part):
        verdict = "" if met is None or not judged else ", met" if met else ", not met"
        yield question, goal, measured + verdict


def _mfu(rows: list[dict[str, Any]], part: dict[str, Any]) -> Iterator[Judged]:
    (row,) = rows
    k, size, rate = part["result"]["arguments"]["responses"], row["parameters"] / 1e9, row["product_flops_per_second"]
    sheet, has_goal = row["share_of_data_sheet"], part["name"] == "mfu_1b"
    yield (
        f"useful arithmetic, {size:.2f}B parameters, K = {k}: share of {rate / 1e12:.3g} TFLOP/s, the measured rate of "
        "bfloat16 products",
        f"{SHARE:.0%}" if has_goal else "",
        f"{'no data sheet known' if sheet is None else f'{sheet:.0%} of the data sheet'}; "
        f"{row['tokens'] / row['mean_seconds_a_step']:,.0f} tokens/s, {_held(row)}; {row['share']:.0%}",
        row["share"] >= SHARE if has_goal else None,
    )


def _trl(rows: list[dict[str, Any]], part: dict[str, Any]) -> Iterator[Judged]:
    ratio = next(row for row in rows if row["side"] == "ratio")
    best = next(row for row in rows if row.get("name") == ratio["against"])
    settings = best["settings"]
    how = [settings["attention"], f"head: {settings['head']}", f"{settings['weights']} weights"]
    how += [name.replace("_", " ") for name in ("autocast", "padding_free", "liger_layers") if settings[name]]
    how += [f"{best['pairs']} pairs at once"]
    yield (
        f"a step beside TRL {part['result']['versions']['trl']} at its best here ({', '.join(how)})",
        f"{FASTER:g} × its rate",
        f"{ratio['peak_bytes']:.2f} × its memory ({_held(rows[0])} beside {_held(best)}); "
        f"{ratio['responses_per_second']:.2f} × its rate",
        ratio["responses_per_second"] >= FASTER,
    )


def _large_k(rows: list[dict[str, Any]], part: dict[str, Any]) -> Iterator[Judged]:
    first, last = rows[0], rows[-1]
    yield (
        f"a set of K = {last['responses']} beside K = {first['responses']}",
        f"{LARGER:g} × its memory",
        f"{last['time_ratio']:.2f} × its time a response; {_held(last)} beside {_held(first)}, "
        f"{last['memory_ratio']:.2f} ×",
        last["memory_ratio"] <= LARGER,
    )


def _layouts(rows: list[dict[str, Any]], part: dict[str, Any]) -> Iterator[Judged]:
    for row in (row for row in rows if row["layout"] == "shared"):
        yield (
            f"shared prompts beside padded rows, K = {row['responses']}, forwards and backwards",
            "",
            f"{row['speed_ratio']:.2f} × the rate, {row['memory_ratio']:.2f} × the memory above the model",
            None,
        )


def _breakdown(rows: list[dict[str, Any]], part: dict[str, Any]) -> Iterator[Judged]:
    shares = [f"{name} {share:.0%}" for name, share in rows[0]["profile"]["shares"].items() if share >= 0.005]
    yield "where a step's time goes", "", "; ".join(shares), None


def _held(row: dict[str, Any]) -> str:
    reserved = row.get("reserved_bytes")
    return memory(row["peak_bytes"]) + (f" ({memory(reserved)} reserved)" if reserved else "")
