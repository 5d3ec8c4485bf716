"""A tiny policy and ragged response sets, and worker processes that train on them as told."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import deepspeed.runtime.zero.muon.original_muon  # noqa: F401 - ZeRO imports it, and with it the compiler: 3 s
import numpy as np
import torch
from safetensors.torch import load_file
from torch import distributed as dist
from transformers import AutoModelForCausalLM, LlamaConfig

from mpo.config.training import LoraConfig, Offload, Precision, Schedule, TrainConfig
from mpo.errors import UserError
from mpo.logprobs.reference import Reference, compute_reference
from mpo.losses import LOSSES, Loss
from mpo.partition import PARTITIONS
from mpo.policy.devices import join_group
from mpo.policy.load import make_policy
from mpo.policy.module import PolicyModule
from mpo.policy.shared_prefix import share_prefix
from mpo.train.evaluation import HeldOutSets
from mpo.train.export import export_adapter, export_policy
from mpo.train.loop import train
from mpo.train.zero import init_process_group, single_process_environment

VOCAB = 128


@dataclass(frozen=True)
class TokenSet:
    id: str
    prompt_ids: np.ndarray
    response_ids: list[np.ndarray]
    scores: list[float]
    truncated: list[bool]
    uncounted: list[int]


class TokenSets:
    """Sets with 2 to 5 responses of 1 to 9 tokens after prompts of 1 to 8."""

    def __init__(self, count: int, seed: int = 0, answers_alone: bool = False) -> None:
        """``answers_alone``: the first half of every response is no part of a loss."""
        rng = np.random.default_rng(seed)
        self.fingerprint = f"sets-{count}-{seed}"

        def beginnings(responses: list[np.ndarray]) -> list[int]:
            return [len(ids) // 2 if answers_alone else 0 for ids in responses]

        self.max_tokens = 17

        def ids(longest: int) -> np.ndarray:
            return rng.integers(1, VOCAB, rng.integers(1, longest + 1)).astype(np.int32)

        self._sets = []
        for i in range(count):
            k = int(rng.integers(2, 6))
            responses = [ids(9) for _ in range(k)]
            scores = [float(score) for score in rng.permutation(k)]
            self._sets.append(
                TokenSet(f"set-{i}", ids(8), responses, scores, [len(r) == 9 for r in responses], beginnings(responses))
            )

    def __len__(self) -> int:
        return len(self._sets)

    def __getitem__(self, i: int) -> TokenSet:
        return self._sets[i]


class Marks:
    """Bins of each set by a loss's default partition."""

    def __init__(self, sets: TokenSets, loss: Loss) -> None:
        partition = PARTITIONS[loss.default_partition]()
        self._scores = [sets[i].scores for i in range(len(sets))]
        self._bins = [partition(scores) for scores in self._scores]

    def scores(self, i: int) -> list[float]:
        return self._scores[i]

    def bins(self, i: int) -> list[int]:
        return self._bins[i]


def tiny_policy(
    lora: bool = False,
    checkpointing: int = 0,
    dtype: torch.dtype = torch.float32,
    rows: bool = False,
    compile: bool = False,
) -> PolicyModule:
    """A Llama of two layers, the same at every call; ``rows``: with a row for each response."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=2,
    )
    lm = AutoModelForCausalLM.from_config(config, dtype=dtype)
    assert rows or share_prefix(lm)
    return make_policy(lm, checkpointing, LoraConfig(rank=4, alpha=8.0) if lora else None, compile)


def add_noise(policy: PolicyModule, share: float) -> None:
    """Make hidden states differ from one forward pass to the next by a share of them, as if kernels rounded them so."""
    generator = torch.Generator().manual_seed(3)

    def noisy(module: torch.nn.Module, inputs: object, hidden: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(hidden.shape, generator=generator).to(hidden)
        return hidden * (1 + share * noise)

    policy.base.get_decoder().norm.register_forward_hook(noisy)


def run_job(job: dict[str, Any]) -> None:
    """Train as ``job`` says and export.

    Keys: out, config (fields of TrainConfig), loss, loss_fields, sets, answers_alone (see TokenSets), lora, rows;
    stop_at and kill_at (step whose end sends the signal), once (checkpoint that is complete by then), noise (see
    add_noise), shift_reference (nats added to each token), break_set (whose reference becomes nan), heldout (so many
    other sets are evaluated on), keep_state, state (what another training with keep_state has kept, whose optimizer
    this one goes on with).
    """
    out = Path(job["out"])
    fields = {"precision": "fp32", "activation_checkpointing": False, "zero_stage": 0} | job.get("config", {})
    enums = {"precision": Precision, "schedule": Schedule, "offload": Offload}
    fields = {name: enums[name](value) if name in enums else value for name, value in fields.items()}
    lora = bool(job.get("lora"))
    config = TrainConfig(**fields, lora=LoraConfig(rank=4, alpha=8.0) if lora else None)
    loss = LOSSES[job.get("loss", "mpo")](**job.get("loss_fields", {}))
    sets = TokenSets(job.get("sets", 24), answers_alone=bool(job.get("answers_alone")))
    dtype = torch.bfloat16 if config.precision is Precision.bf16 else torch.float32
    policy = tiny_policy(lora, config.settled.activation_checkpointing, dtype, bool(job.get("rows")), config.compile)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    init_process_group()
    policy.to(join_group())
    if "noise" in job:
        add_noise(policy, job["noise"])

    def reference_of(sets: TokenSets, folder: Path) -> Reference:
        if rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
        dist.barrier()
        seed = 1 if loss.needs_mismatched_kl else None
        compute_reference(policy, sets, folder, 3, 10**6, rank, world_size, mismatched_seed=seed)
        dist.barrier()
        return Reference.load(folder, sets)

    reference = heldout = None
    if "heldout" in job:
        others = TokenSets(job["heldout"], seed=1)
        of_heldout = reference_of(others, out / "heldout") if loss.needs_reference else None
        heldout = HeldOutSets(others, Marks(others, loss), range(len(others)), of_heldout)
    if loss.needs_reference:
        reference = reference_of(sets, out / "reference")
        shift = np.float32(job.get("shift_reference", 0.0))
        tokens = reference.tokens + shift
        if "break_set" in job:
            first, last = reference.first[job["break_set"]], reference.first[job["break_set"] + 1]
            tokens[reference.starts[first] : reference.starts[last]] = np.nan
        reference = replace(reference, tokens=tokens)
    out.mkdir(parents=True, exist_ok=True)

    def on_step(row: dict[str, Any]) -> None:
        if row["step"] == job.get("stop_at"):
            os.kill(os.getpid(), signal.SIGTERM)
        if row["step"] == job.get("kill_at"):
            while "once" in job and not (out / "checkpoints" / job["once"]).exists():
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)

    def on_warning(line: str) -> None:
        with (out / "warnings.txt").open("a") as file:
            file.write(f"{line}\n")

    indices = list(range(len(sets)))
    marks, state = Marks(sets, loss), Path(job["state"]) if "state" in job else None
    summary = train(
        policy, loss, sets, marks, indices, reference, config, 5, out, on_step, None, on_warning, state, heldout,
        bool(job.get("keep_state")),
    )  # fmt: skip
    if rank == 0:
        (out / "summary.json").write_text(json.dumps(asdict(summary)))
    buffers = {name: str(buffer.dtype) for name, buffer in policy.named_buffers(remove_duplicate=False)}
    (out / "buffers.json").write_text(json.dumps(buffers))
    export_policy(policy, out / "policy", rank, facts={"loss": job.get("loss", "mpo")})
    export_adapter(policy, out / "adapter", rank)


def spawn(jobs: list[dict[str, Any]], world_size: int = 1) -> list[int | None]:
    """Run the jobs one after the other in ``world_size`` real processes; their exit codes (negative: the signal).

    The fork server has imported everything, so that a process costs no imports.
    """
    return run_processes(_worker, jobs, world_size)


def start(jobs: list[dict[str, Any]], world_size: int) -> list[BaseProcess]:
    """Start the processes that :func:`spawn` waits for."""
    return _start_processes(_worker, jobs, world_size)


def spawn_reference(out: Path, world_size: int) -> list[int | None]:
    """Compute the reference of 7 sets in ``world_size`` processes."""
    return run_processes(_reference_worker, out, world_size)


def run_processes(target: Callable[..., None], work: object, world_size: int, machines: int = 1) -> list[int | None]:
    """``target(work, environment)`` in ``world_size`` processes, the environment a launcher's; their exit codes.

    Args:
        machines: as many as the environment has them on, of as many processes each.
    """
    members = _start_processes(target, work, world_size, machines)
    for member in members:
        member.join(timeout=300)
    return [member.exitcode for member in members]


def _start_processes(
    target: Callable[..., None], work: object, world_size: int, machines: int = 1
) -> list[BaseProcess]:
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"} | (
        {} if torch.cuda.is_available() else {"DS_ACCELERATOR": "cpu"}
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    local = world_size // machines
    group = single_process_environment() | {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(local)}
    members: list[BaseProcess] = []
    for rank in range(world_size):
        environment = group | {"RANK": str(rank), "LOCAL_RANK": str(rank % local)}
        members.append(context.Process(target=target, args=(work, environment)))
        members[-1].start()
    return members


def _worker(jobs: list[dict[str, Any]], environment: dict[str, str]) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    for job in jobs:
        try:
            run_job(job)
        except UserError as error:
            Path(job["out"], f"error-{environment['RANK']}.txt").write_text(str(error))
            raise SystemExit(2) from error
    dist.destroy_process_group()


def _reference_worker(out: Path, environment: dict[str, str]) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    init_process_group()
    compute_reference(tiny_policy(), TokenSets(7), out, 2, 10**6, dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()


def curve(out: Path, name: str = "loss") -> list[float]:
    """One metric of every step."""
    return [json.loads(line)[name] for line in (out / "metrics.jsonl").read_text().splitlines()]


def mistake(out: Path, rank: int = 0) -> str:
    """The one-line error that ended a process with status 2."""
    return (out / f"error-{rank}.txt").read_text()


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The exported weights."""
    return load_file(out / "policy" / "model.safetensors")
