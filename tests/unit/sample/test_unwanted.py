"""Empty, cut and equal responses: kept, dropped or drawn again, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mpo.config.schema import SampleConfig, Unwanted
from mpo.sample import Drawn, Request
from mpo.sample.unwanted import Wanted, as_drawn, draw_wanted
from mpo.types import Response

WORDS = ["a", "b", "a", "", "c …", "d", "e", "", "f", "g"]
"""What seed n of the first prompt draws; one that ends with an ellipsis is cut off."""
ASKED: list[list[tuple[int, ...]]] = []


def text(one: Drawn) -> str:
    return "".join(map(chr, one.token_ids))


def response(one: Drawn, prompt_ids: Sequence[int]) -> Response:
    """What stands before a colon is a thought."""
    assert tuple(prompt_ids) in ((0,), (1,))
    thought, colon, answer = text(one).rpartition(":")
    return Response(answer, reasoning=thought if colon else None)


def one_draw(word: str) -> Drawn:
    return Drawn([ord(letter) for letter in word], not word.endswith("…"))


def draw(requests: Sequence[Request]) -> list[list[Drawn]]:
    """Prompt (0,) draws as WORDS says, any other the letter of its seed."""
    ASKED.append([tuple(request.seeds) for request in requests])
    return [
        [one_draw(WORDS[seed] if request.prompt_ids == (0,) else chr(97 + seed)) for seed in request.seeds]
        for request in requests
    ]


def drawn(n: int = 5, **how: Any) -> tuple[list[str], dict[str, int]]:
    """Texts of the first of two prompts, and the counts."""
    ASKED.clear()
    config = SampleConfig(n=n, **{key: Unwanted(value) if key != "redraws" else value for key, value in how.items()})
    kept, counts = draw_wanted(
        draw, [Wanted((0,), lambda number: number), Wanted((1,), lambda number: number)], config, response
    )
    assert len(kept[1]) == n
    return [text(one) for one in kept[0]], dict(counts)


def test_by_default_all_are_kept() -> None:
    assert drawn() == (["a", "b", "a", "", "c …"], {})
    assert ASKED == [[(0, 1, 2, 3, 4), (0, 1, 2, 3, 4)]]


@pytest.mark.parametrize(
    ("choice", "kept", "reason"),
    [
        ("empty", ["a", "b", "a", "c …"], "empty"),
        ("cut", ["a", "b", "a", ""], "cut off"),
        ("duplicates", ["a", "b", "", "c …"], "equal to another of its set"),
    ],
)
def test_each_fault_has_its_choice(choice: str, kept: list[str], reason: str) -> None:
    assert drawn(**{choice: "drop"}) == (kept, {f"{reason}, dropped": 1})
    again, counts = drawn(**{choice: "redraw"})
    assert again == [*kept, "d"] and counts == {f"{reason}, drawn again": 1}
    assert ASKED == [[(0, 1, 2, 3, 4), (0, 1, 2, 3, 4)], [(5,)]]  # the next seed, and nothing of other prompts


def test_what_is_unwanted_after_all_new_draws_is_dropped() -> None:
    everything = {"empty": "redraw", "cut": "redraw", "duplicates": "redraw"}
    kept, counts = drawn(redraws=1, **everything)
    assert kept == ["a", "b", "d", "e"]  # seeds 5, 6, 7 are drawn for three, and 7 is empty
    assert counts == {
        "empty, drawn again": 1, "cut off, drawn again": 1, "equal to another of its set, drawn again": 1,
        "empty, dropped": 1,
    }  # fmt: skip
    kept, _ = drawn(redraws=2, **everything)
    assert kept == ["a", "b", "d", "e", "f"]
    assert drawn(redraws=0, **everything)[0] == ["a", "b"]


def test_of_several_faults_the_first_that_is_not_kept_counts() -> None:
    assert drawn(n=8, empty="keep", duplicates="drop")[1] == {"equal to another of its set, dropped": 2}
    assert drawn(n=8, empty="drop", duplicates="drop")[1] == {
        "empty, dropped": 2, "equal to another of its set, dropped": 1
    }  # fmt: skip


def test_a_thought_is_no_answer_and_tells_equal_answers_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "WORDS", ["x:a", "y:a", "x:", "x:a", "a", "z:", "w:b"])
    assert drawn(n=5, empty="drop", duplicates="drop") == (
        ["x:a", "y:a", "a"], {"empty, dropped": 1, "equal to another of its set, dropped": 1}
    )  # fmt: skip
    assert drawn(n=5, empty="redraw")[0] == ["x:a", "y:a", "x:a", "a", "w:b"]


def test_for_measures_nothing_is_chosen() -> None:
    how = SampleConfig(n=3, empty=Unwanted.drop, cut=Unwanted.redraw, duplicates=Unwanted.drop, temperature=0.3)
    assert as_drawn(how) == SampleConfig(n=3, temperature=0.3)
