"""Scripts that import modules by older names."""

from __future__ import annotations

import importlib
import sys

import pytest

from mpo.moved import MOVED, keep_old_names


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_module_itself_and_warns(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    new = importlib.import_module(MOVED[old])
    spec = new.__spec__
    monkeypatch.delitem(sys.modules, old, raising=False)
    keep_old_names()
    with pytest.warns(DeprecationWarning, match=f"{old} is {MOVED[old]} now"):
        assert importlib.import_module(old) is new
    assert new.__spec__ is spec and new.__name__ == MOVED[old]
    monkeypatch.delitem(sys.modules, old)


def test_no_old_name_has_a_file_again() -> None:
    for old in MOVED:
        parent = importlib.import_module(old.rpartition(".")[0])
        if parent.__name__ == old.rpartition(".")[0]:
            assert importlib.machinery.PathFinder.find_spec(old, parent.__path__) is None
