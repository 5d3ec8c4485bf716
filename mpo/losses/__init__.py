"""Losses over response sets, for any trainer: torch in, torch out.

A loss is a frozen dataclass whose fields are its hyper-parameters. It maps a batch of sets to one number per set; the
batch's loss is the mean over the kept sets of the global batch.

>>> import torch
>>> from mpo.partition import Mean
>>> scores = [[9.0, 3.0, 6.5], [2.0, 8.0, 0.0]]  # the second set has two responses, padded to three
>>> inputs = LossInputs(
...     policy_logps_BK=torch.tensor([[-30.0, -42.0, -35.0], [-20.0, -21.0, 0.0]], requires_grad=True),
...     reference_logps_BK=torch.tensor([[-31.0, -40.0, -35.0], [-20.0, -24.0, 0.0]]),
...     lengths_BK=torch.tensor([[20, 25, 22], [15, 12, 0]]),
...     scores_BK=torch.tensor(scores),
...     bins_BK=torch.tensor([Mean()(scores[0]), [*Mean()(scores[1][:2]), -1]]),
...     mask_BK=torch.tensor([[True, True, True], [True, True, False]]),
... )
>>> output = MPO(beta=0.1)(inputs)
>>> loss = output.loss_B.sum() / output.keep_B.sum()
>>> round(loss.item(), 4)
0.4414
>>> loss.backward()
"""

from __future__ import annotations

from mpo.losses.base import Loss
from mpo.losses.compose import Compose, Contrast, Link, Reward
from mpo.losses.grpo import GRPO
from mpo.losses.inputs import LossInputs, LossOutput
from mpo.losses.kto import KTO
from mpo.losses.length import LDDPO
from mpo.losses.likelihood_term import CPO, IRPO, RRHF
from mpo.losses.mppo import ListMLE, PairMCM, PairMCS, PairMNM, PairMNS, PairSingle
from mpo.losses.pairwise import (
    DPO,
    DPOP,
    IPO,
    ORPO,
    RDPO,
    SPPO,
    WPO,
    BCOPair,
    DPOAllPairs,
    DPOCrossPairs,
    SimPO,
    SPPOHard,
)
from mpo.losses.pointwise import SFT, PointCE, PointMSE
from mpo.losses.ranking import ApproxNDCG, LiPO, NeuralNDCG
from mpo.losses.reward_aware import RPO, RewardDistance
from mpo.losses.set_level import MPO, WMPO, Deviation, KBinMPO, MPO1vsK, MPORefFree, PlackettLuce
from mpo.losses.soft import NCA, InfoNCA, SPPOSoft
from mpo.losses.weighted_sum import Sum, Term

LOSSES: dict[str, type[Loss]] = {
    "mpo": MPO,
    "wmpo": WMPO,
    "mpo_1vsk": MPO1vsK,
    "mpo_ref_free": MPORefFree,
    "k_bin": KBinMPO,
    "plackett_luce": PlackettLuce,
    "infonca": InfoNCA,
    "nca": NCA,
    "dpo": DPO,
    "dpo_all_pairs": DPOAllPairs,
    "dpo_cross_pairs": DPOCrossPairs,
    "grpo": GRPO,
    "kto": KTO,
    "ipo": IPO,
    "orpo": ORPO,
    "rdpo": RDPO,
    "simpo": SimPO,
    "sppo": SPPO,
    "sppo_hard": SPPOHard,
    "sppo_soft": SPPOSoft,
    "sft": SFT,
    "point_ce": PointCE,
    "point_mse": PointMSE,
    "pair_single": PairSingle,
    "pair_mns": PairMNS,
    "pair_mnm": PairMNM,
    "pair_mcs": PairMCS,
    "pair_mcm": PairMCM,
    "list_mle": ListMLE,
    "rrhf": RRHF,
    "cpo": CPO,
    "dpop": DPOP,
    "irpo": IRPO,
    "rpo": RPO,
    "wpo": WPO,
    "bco_pair": BCOPair,
    "ld_dpo": LDDPO,
    "lipo": LiPO,
    "approx_ndcg": ApproxNDCG,
    "neural_ndcg": NeuralNDCG,
    "compose": Compose,
    "sum": Sum,
}
"""Losses by the name that configs and golden files use."""

__all__ = [
    "ApproxNDCG",
    "BCOPair",
    "CPO",
    "Compose",
    "Contrast",
    "DPO",
    "DPOAllPairs",
    "DPOCrossPairs",
    "DPOP",
    "Deviation",
    "GRPO",
    "IPO",
    "IRPO",
    "InfoNCA",
    "KBinMPO",
    "KTO",
    "LDDPO",
    "LOSSES",
    "LiPO",
    "Link",
    "ListMLE",
    "Loss",
    "LossInputs",
    "LossOutput",
    "MPO",
    "MPO1vsK",
    "MPORefFree",
    "NCA",
    "NeuralNDCG",
    "ORPO",
    "PairMCM",
    "PairMCS",
    "PairMNM",
    "PairMNS",
    "PairSingle",
    "PlackettLuce",
    "PointCE",
    "PointMSE",
    "RDPO",
    "RPO",
    "RRHF",
    "Reward",
    "RewardDistance",
    "SFT",
    "SPPO",
    "SPPOHard",
    "SPPOSoft",
    "SimPO",
    "Sum",
    "Term",
    "WMPO",
    "WPO",
]
