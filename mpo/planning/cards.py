"""Cards that a plan can be made for where they are not: what their vendor's data sheets say of them.

Nothing here was measured. Rates are peaks, of dense products without structured sparsity and with sums in float32, so a
plan takes the share of them that it says, see :data:`UTILISATION` and :data:`BANDWIDTH_UTILISATION`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpo.config.schema import RunConfig
from mpo.config.training import Precision
from mpo.config.wording import hint
from mpo.errors import ConfigError

UTILISATION = 0.4
"""Share of a card's peak that products are planned at, in training and in forward passes: an assumption."""
BANDWIDTH_UTILISATION = 0.6
"""Share of a card's memory bandwidth that decoding is planned at: an assumption, too."""


@dataclass(frozen=True)
class Card:
    """One card.

    Attributes:
        title: what its data sheet calls it.
        memory: bytes, a GB of the data sheet taken as 10^9: what a driver reports beyond that, up to 7 % more, is left
            to CUDA's context and to fragmentation.
        bf16_flops, fp32_flops: peak FLOP/s of dense products, in bfloat16 on tensor cores and in float32 without TF32.
        bandwidth: peak bytes per second of its memory.
    """

    title: str
    memory: int
    bf16_flops: float
    fp32_flops: float
    bandwidth: float

    def peak(self, precision: Precision) -> float:
        """Peak FLOP/s in this precision."""
        return self.bf16_flops if precision is Precision.bf16 else self.fp32_flops

    @property
    def facts(self) -> str:
        """Its numbers in words, and where they are from."""
        rates = f"{self.bf16_flops / 1e12:.4g} TFLOP/s in bf16, {self.bandwidth / 1e12:.3g} TB/s"
        return f"{self.memory / 1e9:.0f} GB, {rates} by its data sheet: planned from that, nothing was measured on one"

    def rate(self, precision: Precision) -> float:
        """FLOP/s that a plan counts on."""
        return UTILISATION * self.peak(precision)


def _card(title: str, gigabytes: int, bf16_tflops: float, fp32_tflops: float, gigabytes_per_second: float) -> Card:
    return Card(title, gigabytes * 10**9, bf16_tflops * 1e12, fp32_tflops * 1e12, gigabytes_per_second * 1e9)


CARDS = {
    "b200": _card("NVIDIA B200 SXM", 180, 2250, 75, 8000),
    "h200": _card("NVIDIA H200 SXM", 141, 989, 67, 4800),
    "h100": _card("NVIDIA H100 SXM", 80, 989, 67, 3350),
    "h100-pcie": _card("NVIDIA H100 PCIe", 80, 756, 51, 2000),
    "a100-80gb": _card("NVIDIA A100 80GB SXM", 80, 312, 19.5, 2039),
    "a100-40gb": _card("NVIDIA A100 40GB SXM", 40, 312, 19.5, 1555),
    "l40s": _card("NVIDIA L40S", 48, 362, 91.6, 864),
    "l4": _card("NVIDIA L4", 24, 121, 30.3, 300),
    "a10": _card("NVIDIA A10", 24, 125, 31.2, 600),
    "rtx5090": _card("NVIDIA GeForce RTX 5090", 32, 209.5, 104.8, 1792),
    "rtx4090": _card("NVIDIA GeForce RTX 4090", 24, 165.2, 82.6, 1008),
    "rtx3090": _card("NVIDIA GeForce RTX 3090", 24, 71, 35.6, 936),
}
"""By the name that ``launcher.device`` takes. Source: NVIDIA's data sheets of the data centre cards (where one gives
rates with sparsity alone, half of them; of the B200 an eighth of DGX B200's and HGX B200's), and its RTX Blackwell, Ada
and GA102 architecture papers for the GeForce ones."""

DRIVERS_NAMES = {
    "NVIDIA B200": "b200",
    "NVIDIA H200": "h200",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA L40S": "l40s",
    "NVIDIA L4": "l4",
    "NVIDIA A10": "a10",
    "NVIDIA GeForce RTX 5090": "rtx5090",
    "NVIDIA GeForce RTX 4090": "rtx4090",
    "NVIDIA GeForce RTX 3090": "rtx3090",
}
"""What drivers call these cards, word for word: an H100 NVL or an A10G is another card. None has been asked here."""


def data_sheet(name: str) -> Card | None:
    """The card that the driver calls ``name``; None where its data sheet is not in the table."""
    return CARDS[DRIVERS_NAMES[name]] if name in DRIVERS_NAMES else None


def named_card(config: RunConfig) -> Card | None:
    """The card that ``launcher.device`` names; None for the machine's own device.

    Raises:
        ConfigError: no card of the table is called so.
    """
    name = config.launcher.device
    if name is None:
        return None
    if name not in CARDS:
        raise ConfigError(f"no data sheet of a card '{name}' is known here", "launcher.device", hint(name, CARDS))
    return CARDS[name]
