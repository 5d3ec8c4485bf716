"""What processes of a stage are started with."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver

import pytest

from mpo.launch import ALLOCATOR, OPENMP, prepare_fork_server


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, OPENMP | ALLOCATOR),
        ({"GOMP_SPINCOUNT": "7"}, OPENMP | ALLOCATOR | {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ALLOCATOR | {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"MALLOC_MMAP_THRESHOLD_": "8"}, OPENMP | {"MALLOC_MMAP_THRESHOLD_": "8"}),
    ],
)
def test_a_users_settings_for_threads_and_memory_are_kept(
    given: dict[str, str], found: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = OPENMP | ALLOCATOR
    environment = {name: value for name, value in os.environ.items() if name not in ours} | given
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: None)
    monkeypatch.setattr(multiprocessing, "set_forkserver_preload", lambda names: None)
    prepare_fork_server()
    assert {name: environment[name] for name in ours if name in environment} == found
