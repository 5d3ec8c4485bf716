"""How often a function may be compiled anew."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import Tensor

from mpo.policy import compiled
from mpo.policy.compiled import KINDS


def test_as_many_kinds_in_the_thread_in_which_autograd_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "compile", partial(torch.compile, backend="eager"))

    def times(tensor: Tensor, word: str) -> Tensor:  # a word that is not the last one is a reason to compile anew
        return tensor * len(word)

    function = compiled.compiled(times)
    words = ["a" * number for number in range(1, KINDS)]
    with ThreadPoolExecutor(1) as other:
        found = other.submit(lambda: [float(function(torch.ones(()), word)) for word in words]).result()
    assert found == [float(len(word)) for word in words]
