"""Train the policy on its sets and export it as a Hugging Face folder."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mpo.config.targets import build
from mpo.data.assignments import Assignments
from mpo.data.chat import stop_ids
from mpo.data.tokens import TokenizedSets
from mpo.errors import DataError, cut, first_line
from mpo.logprobs.reference import Reference
from mpo.losses import Loss
from mpo.plain import to_plain
from mpo.planning.data_size import batch_warning
from mpo.policy.device_trial import prepare_for
from mpo.policy.devices import join_group
from mpo.policy.layers import compiles_fused
from mpo.policy.load import check_positions, load_policy
from mpo.policy.model_class import router_note
from mpo.stages.context import StageContext
from mpo.stages.models import ADAPTER_FOLDER, POLICY_FOLDER, model_source, stage_tokenizer
from mpo.stages.nodes import train as node
from mpo.stages.rewards import heldout_rewards
from mpo.stages.summary import PROFILE, SUMMARY_FILE, Summary, counts
from mpo.track.metrics import read_metrics
from mpo.track.profile import TRACE_FILE, read_profile
from mpo.train.checkpoint import CHECKPOINTS, METRICS, policy_folder
from mpo.train.evaluation import HeldOutSets
from mpo.train.export import export_adapter, export_policy, rehearse_export
from mpo.train.loop import train
from mpo.train.random_state import seed_random_state

STATE_FOLDER = "state"
SHOWN = ("loss", "accuracy", "margin")


def run(context: StageContext[node.Config, node.Settings, node.Inputs[Path]]) -> None:
    """Train in this process, one of the group; the first one reports, and all take part in the export."""
    if (context.output / SUMMARY_FILE).exists():  # all was done when an earlier run was killed
        if context.rank == 0:
            _remove_checkpoints(context.output, context.config.keep_state)
        return
    config, inputs, chosen = context.config, context.inputs, context.settings
    checked = config.train.closed_form_check and config.policy_is_reference
    settings = replace(chosen.train, closed_form_check=checked)
    loss = build(config.loss, Loss, config.allow_targets, "loss")  # type: ignore[type-abstract]
    sets = TokenizedSets.load(inputs.prepare / "train")
    assignments = Assignments.load(inputs.partition / "train")
    reference = None
    if inputs.reference is not None:
        reference = Reference.load(inputs.reference / "train", sets)
    heldout = _heldout(inputs, settings.evaluate_every)
    path, revision = model_source(inputs.policy)
    seed_random_state(config.seed)
    policy = load_policy(
        path,
        revision,
        settings.precision,
        config.trust_remote_code,
        settings.settled.activation_checkpointing,
        settings.lora,
        None if settings.lora is None else settings.lora.quantization,
    )
    warn = context.warn if context.rank == 0 else None
    prepare_for(policy, join_group(), settings.compile, warn, settings.settled.sequence_parallel)
    learn = settings.lora is None or not settings.lora.target_modules
    if context.rank == 0 and learn and (note := router_note(policy.base.config)):
        context.warn(note)
    check_positions(policy, max(sets.max_tokens, 0 if heldout is None else heldout.sets.max_tokens))
    tokenizer = stage_tokenizer(
        inputs.policy, inputs.tokenizer, config.chat_template, config.trust_remote_code, config.template_arguments
    )
    stops = sorted({*config.stop_token_ids, *stop_ids(tokenizer)})
    if config.rewards is not None and inputs.sets is not None and heldout is not None:
        count, allow = settings.reward_prompts, config.allow_targets
        assert isinstance(heldout.sets, TokenizedSets)
        rewards = heldout_rewards(config.rewards, allow, heldout.sets, inputs.sets, count, policy, tokenizer, stops)
        heldout = replace(heldout, rewards=rewards)
    if context.rank == 0 and (odd := rehearse_export(policy, context.output / POLICY_FOLDER, tokenizer, stops)):
        context.warn(f"the model's generation config is exported as it is, though transformers says: {odd[:200]}")
    progress = context.progress()
    usable = assignments.usable
    if context.rank == 0 and (warning := batch_warning(settings.global_batch, len(usable))):
        context.warn(warning)
    steps = -(-len(usable) // settings.global_batch) * settings.epochs
    steps = steps if settings.max_steps is None else min(steps, settings.max_steps)

    def show(row: dict[str, float]) -> None:
        progress.update(int(row["step"]), steps, "steps", **{key: row[key] for key in SHOWN if key in row})

    summary = train(
        policy,
        loss,
        sets,
        assignments,
        usable,
        reference,
        settings,
        config.seed,
        context.output,
        show,
        assignments.skipped,
        context.warn,
        None if inputs.state is None else inputs.state / STATE_FOLDER,
        heldout,
        config.keep_state,
    )
    facts = {"sets": len(usable), "steps": summary.steps, "seed": config.seed}
    if summary.best_step:
        facts["policy of step"] = summary.best_step
    export_policy(
        policy,
        context.output / POLICY_FOLDER,
        context.rank,
        tokenizer,
        stops,
        {
            "Configuration": {"loss": config.loss, "train": to_plain(config.train)},
            "Data": {**chosen.card, **facts, "skipped": assignments.skipped},
            "Last step": summary.last,
        },
    )
    export_adapter(policy, context.output / ADAPTER_FOLDER, context.rank)
    if context.rank == 0:
        progress.close()
        layout = "one row, prompts shared" if policy.shares_prefix else "a row for each response"
        if settings.compile or compiles_fused(policy):
            layout += ", norms and gates compiled" if compiles_fused(policy) else ", nothing that compiles"
        kept = {"": {**facts, "layout": layout, **asdict(summary), **_profile(context)}}
        Summary(skipped={"train": counts(assignments.skipped)}, facts=kept).write(context.output)
        _remove_checkpoints(context.output, config.keep_state)


def _profile(context: StageContext[node.Config, node.Settings, node.Inputs[Path]]) -> dict[str, Any]:
    """Where the time of the profiled steps went, if any were; also by a process that was killed later."""
    trace = context.output / TRACE_FILE
    if not trace.exists():
        return {}
    try:
        return {PROFILE: to_plain(read_profile(trace, read_metrics(context.output / METRICS)))}
    except Exception as error:  # whatever another version's trace leads to: the training itself is done
        context.warn(f"the trace {TRACE_FILE} was recorded, but cannot be read: {cut(first_line(error), 120)}")
        return {}


def _heldout(inputs: node.Inputs[Path], evaluate_every: int) -> HeldOutSets | None:
    """What is evaluated on during the training, if anything is.

    Raises:
        DataError: nothing is held out.
    """
    if not evaluate_every:
        return None
    if not (inputs.prepare / "heldout").exists():
        raise DataError(
            "no sets are held out to evaluate on", "train.evaluate_every", "raise data.heldout, or leave it 0"
        )
    sets = TokenizedSets.load(inputs.prepare / "heldout")
    assignments = Assignments.load(inputs.partition / "heldout")
    reference = None if inputs.reference is None else Reference.load(inputs.reference / "heldout", sets)
    return HeldOutSets(sets, assignments, assignments.usable, reference)


def _remove_checkpoints(output: Path, keep_state: bool) -> None:
    """Of a finished training; the exported policy's moves to a place of its own (``keep_state``): the next round's
    training goes on from it."""
    summary = Summary.read(output)
    exported = policy_folder(output / CHECKPOINTS, summary.fact("best_step") or summary.fact("steps"))
    if keep_state and exported.exists():  # else it has moved already
        exported.rename(output / STATE_FOLDER)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
