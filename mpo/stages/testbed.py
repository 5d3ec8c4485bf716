"""The embedded world's prompts (``train``, ``heldout``) or its demonstrations (``train``)."""

from __future__ import annotations

from mpo.cache.artifacts import write_json
from mpo.data.store import write_sets
from mpo.stages.context import SUMMARY_FILE, StageContext
from mpo.testbed.demonstrations import demonstration_sets, prompt_sets


def run(context: StageContext) -> None:
    """Write the part of the world that the config names."""
    config, out = context.config, context.output
    seed = config["seed"]
    if config["part"] == "demonstrations":
        counts = {"train": write_sets(out / "train.parquet", demonstration_sets(config["demonstrations"], seed))}
    else:
        counts = {
            "train": write_sets(out / "train.parquet", prompt_sets(config["prompts"], seed, "preference")),
            "heldout": write_sets(out / "heldout.parquet", prompt_sets(config["heldout_prompts"], seed, "heldout")),
        }
    write_json(
        out / SUMMARY_FILE,
        {"source": "testbed", "sets": counts, "skipped": {}, "warnings": {}, "left_out_because_heldout": 0},
    )
