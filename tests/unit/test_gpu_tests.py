"""The tests for a card, as far as they can be looked at without one."""

from __future__ import annotations

import subprocess
import sys

from tests.end_to_end.runs import ROOT

PLANNED = """
import sys
import pytest

class NothingSkipped:
    def pytest_collection_modifyitems(self, items):
        for item in items:
            for node in item.listchain():
                node.own_markers = [mark for mark in node.own_markers if mark.name != "skipif"]

sys.exit(pytest.main(["tests/gpu", "-m", "gpu", "-q", "--setup-plan", "-p", "no:xdist"], [NothingSkipped()]))
"""


def test_every_fixture_of_theirs_is_found() -> None:
    """Without a card they are skipped before anyone looks for one."""
    done = subprocess.run([sys.executable, "-c", PLANNED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "SETUP    S first_run" in done.stdout  # the whole run's, which comes from another folder
