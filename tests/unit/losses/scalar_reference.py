"""Losses once more, as plain formulas on 80-digit numbers, one set at a time; the golden values of this repository.

``python -m tests.unit.losses.scalar_reference`` rewrites ``tests/golden/losses_small.json`` from them.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

SMALL = Path(__file__).resolve().parents[3] / "tests/golden/losses_small.json"


@dataclass(frozen=True)
class Scalars:
    """One set, in 80-digit numbers; ``order`` from best score to worst."""

    logps: list[Decimal]
    r: list[Decimal]
    n: list[int]
    s: list[Decimal]
    order: list[int]
    param: dict[str, Any]

    def __getitem__(self, name: str) -> Decimal:
        return Decimal(repr(self.param[name]))

    @property
    def size(self) -> int:
        return len(self.s)

    @property
    def best(self) -> int:
        return self.order[0]

    @property
    def worst(self) -> int:
        return self.order[-1]

    def p(self, i: int) -> Decimal:
        return (self.logps[i] / self.n[i]).exp()

    def pairs(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.size) for j in range(self.size) if self.s[i] > self.s[j]]

    def accepted(self) -> list[int]:
        mean = sum(self.s) / self.size
        return [i for i in range(self.size) if self.s[i] > mean]

    def rest(self) -> list[int]:
        return [i for i in range(self.size) if i != self.best]


def nls(x: Decimal) -> Decimal:
    return (1 + (-x).exp()).ln()


def sigma(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp())


def lse(values: Sequence[Decimal]) -> Decimal:
    return sum(value.exp() for value in values).ln()  # type: ignore[union-attr]


def mean(values: Sequence[Decimal]) -> Decimal:
    return sum(values, Decimal(0)) / len(values)


def sides(z: list[Decimal], accepted: list[int]) -> Decimal:
    return lse(z) - lse([z[i] for i in accepted])


def softmax(values: Sequence[Decimal]) -> list[Decimal]:
    return [(value - lse(values)).exp() for value in values]


def listwise(z: list[Decimal], order: list[int]) -> Decimal:
    return sum((lse([z[j] for j in order[k:]]) - z[i] for k, i in enumerate(order)), Decimal(0))


def wmpo(x: Scalars) -> Decimal:
    d = [s - mean(x.s) for s in x.s]
    d = [abs(value) for value in d] if x.param["deviation"] == "absolute" else d
    return sides([x["beta"] * r + x["alpha"] * value for r, value in zip(x.r, d, strict=True)], x.accepted())


def mpo_ref_free(x: Scalars) -> Decimal:
    z = [x["beta"] * logp / n for logp, n in zip(x.logps, x.n, strict=True)]
    return sides([v - x["gamma"] if i in x.accepted() else v for i, v in enumerate(z)], x.accepted())


def k_bin(x: Scalars) -> Decimal:
    count, z = x.param["bins"], [x["beta"] * r for r in x.r]
    sizes = [x.size // count + (b < x.size % count) for b in range(count)]
    total, start = Decimal(0), 0
    for size in sizes:
        total += lse([z[i] for i in x.order[start:]]) - lse([z[i] for i in x.order[start : start + size]])
        start += size
    return total


def nca(x: Scalars) -> Decimal:
    target = softmax([s / x["tau"] for s in x.s])
    return sum(
        (t * nls(x["beta"] * r) + nls(-x["beta"] * r) / x.size for t, r in zip(target, x.r, strict=True)), Decimal(0)
    )


def infonca(x: Scalars) -> Decimal:
    z = [x["beta"] * r for r in x.r]
    return sum((t * (lse(z) - v) for t, v in zip(softmax([s / x["tau"] for s in x.s]), z, strict=True)), Decimal(0))


def dpo(x: Scalars) -> Decimal:
    h, e = x["beta"] * (x.r[x.best] - x.r[x.worst]), x["label_smoothing"]
    return (1 - e) * nls(h) + e * nls(-h)


def kto(x: Scalars) -> Decimal:
    z = [x["beta"] * (r - max(x["kl"], Decimal(0))) for r in x.r]
    desired, undesired = x["desirable_weight"], x["undesirable_weight"]
    return mean([desired * sigma(-v) if i in x.accepted() else undesired * sigma(v) for i, v in enumerate(z)])


def orpo(x: Scalars) -> Decimal:
    logit = [x.p(i).ln() - (1 - x.p(i)).ln() for i in range(x.size)]
    return x["lam"] * nls(logit[x.best] - logit[x.worst]) - x.logps[x.best] / x.n[x.best]


def rdpo(x: Scalars) -> Decimal:
    b, w = x.best, x.worst
    return nls(x["beta"] * (x.r[b] - x.r[w]) + x["alpha"] * (x.n[b] - x.n[w]))


def simpo(x: Scalars) -> Decimal:
    return nls(x["beta"] * (x.logps[x.best] / x.n[x.best] - x.logps[x.worst] / x.n[x.worst]) - x["gamma"])


def sppo_soft(x: Scalars) -> Decimal:
    rate = [mean([sigma(a - b) for b in x.s]) for a in x.s]
    return mean([(r - (w - Decimal("0.5")) / x["beta"]) ** 2 for r, w in zip(x.r, rate, strict=True)])


def sppo(x: Scalars) -> Decimal:
    rate = {i: mean([sigma(x.s[i] - b) for b in x.s]) for i in (x.best, x.worst)}
    return sum(((x.r[i] - (w - Decimal("0.5")) / x["beta"]) ** 2 for i, w in rate.items()), Decimal(0))


def point_ce(x: Scalars) -> Decimal:
    share = [s / x["score_max"] for s in x.s]
    return -mean([s * x.p(i).ln() + (1 - s) * (1 - x.p(i)).ln() for i, s in enumerate(share)])


def pair_sum(x: Scalars) -> Decimal:
    return sum((nls(x.p(i) - x.p(j)) for i, j in x.pairs()), Decimal(0))


def bernoulli_kl(a: Decimal, b: Decimal) -> Decimal:
    return sigma(a) * (nls(b) - nls(a)) + sigma(-a) * (nls(-b) - nls(-a))


def log2(x: Decimal) -> Decimal:
    return x.ln() / Decimal(2).ln()


def gains(x: Scalars) -> list[Decimal]:
    return [Decimal(2) ** (s / x["score_max"]) - 1 for s in x.s]


def ideal(x: Scalars) -> Decimal:
    ordered = sorted(gains(x), reverse=True)
    return sum((g / log2(Decimal(i + 2)) for i, g in enumerate(ordered)), Decimal(0))


def lipo(x: Scalars) -> Decimal:
    z, g = [x["beta"] * r for r in x.r], gains(x)
    discount = [1 / Decimal(1 + 1 + sum(other > own for other in z)).ln() for own in z]
    terms = [abs(g[i] - g[j]) * abs(discount[i] - discount[j]) * nls(z[i] - z[j]) for i, j in x.pairs()]
    return sum(terms, Decimal(0))


def approx_ndcg(x: Scalars) -> Decimal:
    z = [x["alpha"] * x["beta"] * r for r in x.r]
    rank = [1 + sum(sigma(b - a) for j, b in enumerate(z) if j != i) for i, a in enumerate(z)]
    return -sum((g / log2(1 + k) for g, k in zip(gains(x), rank, strict=True)), Decimal(0)) / ideal(x)


def neural_ndcg(x: Scalars) -> Decimal:
    z, size = [x["beta"] * r for r in x.r], range(x.size)
    rows = [
        softmax([((x.size - 1 - 2 * i) * z[j] - sum(abs(z[j] - v) for v in z)) / x["tau"] for j in size]) for i in size
    ]
    for _ in range(50):
        column = [sum(row[j] for row in rows) for j in size]
        rows = [[row[j] / column[j] for j in size] for row in rows]
        rows = [[value / sum(row) for value in row] for row in rows]
    found = [sum(row[j] * gains(x)[j] for j in size) for row in rows]
    return -sum((value / log2(Decimal(i + 2)) for i, value in enumerate(found)), Decimal(0)) / ideal(x)


def rrhf(x: Scalars) -> Decimal:
    z = [logp / n for logp, n in zip(x.logps, x.n, strict=True)]
    return sum((max(Decimal(0), z[j] - z[i]) for i, j in x.pairs()), Decimal(0)) - x.logps[x.best]


def dpop(x: Scalars) -> Decimal:
    r_w, r_b = x.r[x.best], x.r[x.worst]
    return nls(x["beta"] * (r_w - r_b - x["lam"] * max(Decimal(0), -r_w)))


def irpo(x: Scalars) -> Decimal:
    contrast = nls(x["beta"] * (x.r[x.best] - x.r[x.worst]))
    return contrast - x["alpha"] * x.logps[x.best] / x.n[x.best]


def cpo(x: Scalars) -> Decimal:
    contrast = nls(x["beta"] * (x.logps[x.best] - x.logps[x.worst]))
    return contrast - x["lam"] * x.logps[x.best] / x.n[x.best]


def rpo(x: Scalars) -> Decimal:
    gap = x["beta"] * (x.r[x.best] - x.r[x.worst])
    return bernoulli_kl(x["eta"] * (x.s[x.best] - x.s[x.worst]), gap)


SCALAR: dict[str, tuple[dict[str, Any], Callable[[Scalars], Decimal]]] = {
    "mpo": ({"beta": 0.05}, lambda x: sides([x["beta"] * r for r in x.r], x.accepted())),
    "wmpo": ({"beta": 0.1, "alpha": 0.5, "deviation": "absolute"}, wmpo),
    "mpo_1vsk": ({"beta": 0.05}, lambda x: sides([x["beta"] * r for r in x.r], [x.best])),
    "mpo_ref_free": ({"beta": 2.5, "gamma": 1.4}, mpo_ref_free),
    "k_bin": ({"beta": 0.1, "bins": 2}, k_bin),
    "plackett_luce": ({"beta": 0.1}, lambda x: listwise([x["beta"] * r for r in x.r], x.order)),
    "infonca": ({"beta": 0.1, "tau": 0.7}, infonca),
    "nca": ({"beta": 0.1, "tau": 0.7}, nca),
    "dpo": ({"beta": 0.1, "label_smoothing": 0.1}, dpo),
    "dpo_all_pairs": ({"beta": 0.1}, lambda x: mean([nls(x["beta"] * (x.r[i] - x.r[j])) for i, j in x.pairs()])),
    "dpo_cross_pairs": (
        {"beta": 0.1},
        lambda x: mean(
            [nls(x["beta"] * (x.r[i] - x.r[j])) for i in x.accepted() for j in range(x.size) if j not in x.accepted()]
        ),
    ),
    "kto": ({"beta": 0.1, "kl": 0.7, "desirable_weight": 1.0, "undesirable_weight": 1.33}, kto),
    "ipo": ({"beta": 0.1}, lambda x: (x.r[x.best] - x.r[x.worst] - 1 / (2 * x["beta"])) ** 2),
    "orpo": ({"lam": 0.1}, orpo),
    "rdpo": ({"beta": 0.1, "alpha": 0.005}, rdpo),
    "simpo": ({"beta": 2.0, "gamma": 0.5}, simpo),
    "sppo_hard": (
        {"beta": 0.01},
        lambda x: (x.r[x.best] - 1 / (2 * x["beta"])) ** 2 + (x.r[x.worst] + 1 / (2 * x["beta"])) ** 2,
    ),
    "sppo_soft": ({"beta": 0.1}, sppo_soft),
    "sft": ({}, lambda x: -x.logps[x.best] / x.n[x.best]),
    "point_ce": ({"score_max": 10.0}, point_ce),
    "point_mse": ({"score_max": 10.0}, lambda x: mean([(s / x["score_max"] - x.p(i)) ** 2 for i, s in enumerate(x.s)])),
    "pair_single": ({"rejected_index": None}, lambda x: nls(x.p(x.best) - x.p(x.param["rejected_index"]))),
    "pair_mns": ({}, lambda x: sum((nls(x.p(x.best) - x.p(i)) for i in x.rest()), Decimal(0))),
    "pair_mnm": ({}, lambda x: nls((x.size - 1) * x.p(x.best) - sum(x.p(i) for i in x.rest()))),
    "pair_mcs": ({}, pair_sum),
    "pair_mcm": ({}, lambda x: nls(sum((x.p(i) - x.p(j) for i, j in x.pairs()), Decimal(0)))),
    "list_mle": ({}, lambda x: listwise([x.p(i) for i in range(x.size)], x.order)),
    "sppo": ({"beta": 0.1}, sppo),
    "rrhf": ({}, rrhf),
    "cpo": ({"beta": 0.1, "lam": 0.7}, cpo),
    "dpop": ({"beta": 0.1, "lam": 5.0}, dpop),
    "irpo": ({"beta": 0.1, "alpha": 0.7}, irpo),
    "rpo": ({"beta": 0.1, "eta": 0.5}, rpo),
    "bco_pair": ({"beta": 0.1}, lambda x: nls(x["beta"] * x.r[x.best]) + nls(-x["beta"] * x.r[x.worst])),
    "lipo": ({"beta": 0.1, "score_max": 10.0}, lipo),
    "approx_ndcg": ({"beta": 0.1, "score_max": 10.0, "alpha": 3.0}, approx_ndcg),
    "neural_ndcg": ({"beta": 0.1, "score_max": 10.0, "tau": 1.5}, neural_ndcg),
}
"""Parameters and scalar form of every loss on log-prob sums, written from the equations for distinct scores."""


def scalar_loss(case: dict[str, Any], policy: list[Decimal]) -> Decimal:
    reference, scores = ([Decimal(repr(value)) for value in case[key]] for key in ("ref_logps", "rewards"))
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    ratios = [a - b for a, b in zip(policy, reference, strict=True)]
    return SCALAR[case["loss"]][1](Scalars(policy, ratios, case["lengths"], scores, order, case["params"]))


def scalar_expectation(case: dict[str, Any]) -> tuple[float, list[float]]:
    """Loss and, by central differences of 1e-25, gradient in 80 digits."""
    with localcontext() as context:
        context.prec = 80
        step, grad = Decimal("1e-25"), []
        policy = [Decimal(repr(value)) for value in case["policy_logps"]]
        for i in range(len(policy)):
            up, down = ([v + sign * step if i == j else v for j, v in enumerate(policy)] for sign in (1, -1))
            grad.append(float((scalar_loss(case, up) - scalar_loss(case, down)) / (2 * step)))
        return float(scalar_loss(case, policy)), grad


def new_cases() -> list[dict[str, Any]]:
    draw, cases = random.Random(20250101), []
    for name, (params, _) in SCALAR.items():
        for size, spread in ((2, 10.0), (5, 150.0)):
            lengths = [draw.randint(3, 300) for _ in range(size)]
            policy = [round(-n * draw.uniform(0.01, 2.5), 3) for n in lengths]
            scores = [round(1.7 * i + draw.uniform(0.5, 1.5), 2) for i in range(size)]
            draw.shuffle(scores)
            drawn = {"rejected_index": scores.index(min(scores))} if "rejected_index" in params else {}
            case: dict[str, Any] = {"loss": name, "params": params | drawn}
            case |= {"regime": "typical" if spread < 100 else "far", "policy_logps": policy}
            case |= {"ref_logps": [round(value + draw.gauss(0, spread), 3) for value in policy]}
            case |= {"lengths": lengths, "rewards": scores}
            case["expected_loss"], case["expected_grad"] = scalar_expectation(case)
            cases.append(case)
    return cases


if __name__ == "__main__":
    SMALL.write_text(json.dumps(new_cases(), indent=1) + "\n", encoding="utf-8")
    sys.exit()
