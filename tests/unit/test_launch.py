"""What processes of a stage are started with."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver

import pytest

from mpo.launch import OPENMP, prepare_fork_server


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, OPENMP),
        ({"GOMP_SPINCOUNT": "7"}, OPENMP | {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_a_users_policy_for_waiting_threads_is_kept(
    given: dict[str, str], found: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in OPENMP} | given
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: None)
    monkeypatch.setattr(multiprocessing, "set_forkserver_preload", lambda names: None)
    prepare_fork_server()
    assert {name: environment[name] for name in OPENMP if name in environment} == found
