"""What a chat template leaves out of a set, changes or refuses is told; what it renders is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from mpo.data.chat import render_prompt, render_response
from mpo.data.problems import Problem
from mpo.data.token_rows import Limits, tokenize_rows
from mpo.data.tokens import tokenize_sets
from mpo.errors import DataError
from mpo.types import Message, Response, ResponseSet

CALL = json.dumps([{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}])
TOOLS = json.dumps([{"type": "function", "function": {"name": "weather"}}])
USER = Message("user", "Weather in Oslo?")
KNOWING = """\
{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}{{ ' ' + m.name if m.name else '' }}
{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}
{{- m.content }}
{%- for call in m.tool_calls or [] %}<call>{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}
{{- '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
PLAIN = """\
{% for m in messages %}{% if m.role != 'tool' %}<|im_start|>{{ m.role }}
{{ m.content.split('</think>')[-1] }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + KNOWING
NO_ODD = "{% if 'odd' in messages[-1].content %}{{ raise_exception('no odd words') }}{% endif %}" + KNOWING


@pytest.fixture
def tokenizer(make_tokenizer: Callable[[str, str], PreTrainedTokenizerBase]) -> Iterator[PreTrainedTokenizerBase]:
    made = make_tokenizer("chatml_qwen", "bytes")
    own = made.chat_template
    yield made
    made.chat_template = own


def tokenized(tokenizer: PreTrainedTokenizerBase, template: str, *sets: ResponseSet) -> tuple[list[str], list[Problem]]:
    """The sets' responses as text, prompts before them, and what was found."""
    tokenizer.chat_template = template
    batch, problems = tokenize_rows(sets, tokenizer, Limits(200, 400))
    rows = batch.to_pylist()
    return [tokenizer.decode(row["prompt_ids"] + ids) for row in rows for ids in row["response_ids"]], problems


def found(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(problem.label, problem.severity) for problem in problems]


def test_tools_calls_reasoning_and_tool_turns_are_trained_as_rendered(tokenizer: PreTrainedTokenizerBase) -> None:
    earlier = (
        Message("user", "Rome?"),
        Message("assistant", "", None, CALL),
        Message("tool", "18 C", None, None, "c1"),
    )
    sets = [
        ResponseSet("call", (USER,), (Response("", 1.0, tool_calls=CALL), Response("No.", 0.0)), TOOLS),
        ResponseSet("think", (Message("user", "hi", name="Ann"),), (Response("18", 1.0, reasoning="look"),)),
        ResponseSet("turns", earlier, (Response("18 degrees.", 1.0),)),
    ]
    texts, problems = tokenized(tokenizer, KNOWING, *sets)
    call = '<call>weather {"city": "Oslo"}<|im_end|>'
    assert texts[0].startswith('<|im_start|>system\n{"type": "function"') and texts[0].endswith("assistant\n" + call)
    assert texts[1].endswith("assistant\nNo.<|im_end|>")
    assert texts[2] == "<|im_start|>user Ann\nhi<|im_end|>\n<|im_start|>assistant\n<think>look</think>18<|im_end|>"
    assert f"assistant\n{call}\n<|im_start|>tool\n18 C<|im_end|>\n" in texts[3]
    assert problems == []
    for one in sets:  # in a batch and alone
        ids = render_prompt(tokenizer, one.prompt, one.tools)
        alone = [ids + render_response(tokenizer, one.prompt, each, one.tools) for each in one.responses]
        assert [tokenizer.decode(each) for each in alone] == tokenized(tokenizer, KNOWING, one)[0]


CALLS = ResponseSet("a", (USER,), (Response("", 1.0, tool_calls=CALL), Response("No.", 0.0)))
THINKS = ResponseSet("a", (USER,), (Response("18", 1.0, reasoning="look"),))
LEFT_OUT = [
    (CALLS, [("template_ignores (tool_calls)", "error")]),
    (replace(CALLS, responses=(Response("text", 1.0, tool_calls=CALL),)), [("template_ignores (tool_calls)", "error")]),
    (replace(CALLS, responses=(Response("No."),), tools=TOOLS), [("template_ignores (tools)", "warning")]),
    (THINKS, [("template_ignores (reasoning)", "warning")]),
    (replace(THINKS, responses=(Response("", reasoning="look"),)), [("template_ignores (reasoning)", "error")]),
    (replace(THINKS, responses=(Response("<think>look</think>18"),)), [("template_changes", "warning")]),
    (replace(THINKS, prompt=(USER, Message("assistant", "", None, CALL), Message("tool", "18 C"))),
     [("template_ignores (tool turns)", "error"), ("template_ignores (tool_calls)", "error")]),
    (ResponseSet("a", (replace(USER, name="Ann"),), (Response("18"),)), [("template_ignores (name)", "warning")]),
]  # fmt: skip


@pytest.mark.parametrize(("one", "expected"), LEFT_OUT)
def test_what_a_template_leaves_out_is_refused_or_counted(
    tokenizer: PreTrainedTokenizerBase, one: ResponseSet, expected: list[tuple[str, str]]
) -> None:
    other = ResponseSet("other", (USER,), (Response("fine"),))
    texts, problems = tokenized(tokenizer, PLAIN, other, one, other)
    assert found(problems) == expected
    kept = len(one.responses) if all(severity == "warning" for _, severity in expected) else 0
    assert len(texts) == 2 + kept and texts[0] == texts[-1]


def test_a_system_turn_that_a_template_drops_is_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    dropping = PLAIN.replace("!= 'tool'", "not in ['tool', 'system']")
    one = ResponseSet("a", (Message("system", "Be brief."), USER), (Response("18"),))
    assert found(tokenized(tokenizer, dropping, one)[1]) == [("template_ignores (system turns)", "warning")]
    assert tokenized(tokenizer, PLAIN, one)[1] == []


def test_refusals_are_counted_with_the_templates_words_at_any_place(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    fine = ResponseSet("fine", (USER,), (Response("even"), Response("more")))
    odd = ResponseSet("odd", (USER,), (Response("even"), Response("odd")))
    for sets in ([odd, fine, fine], [fine, fine, odd]):
        texts, problems = tokenized(tokenizer, NO_ODD, *sets)
        assert len(texts) == 4 and found(problems) == [("template_refused", "error")]
        assert str(problems[0]).endswith(
            "set odd: template_refused: the chat template refuses a response: no odd words"
        )
    system = replace(fine, prompt=(Message("system", "Be brief."), USER))
    tokenizer.chat_template = NO_SYSTEM
    words = r"refuses system turns \(put their text before .*\): no system turns \(2 of 2 sets .*template_refused 2\)"
    with pytest.raises(DataError, match=words):
        tokenize_sets(
            [system, system], tokenizer, max_prompt_tokens=99, max_tokens=199, out=tmp_path / "out", processes=1,
            on_problem=lambda problem: None,
        )  # fmt: skip


def test_a_response_that_cannot_be_told_from_its_prompt_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    opening = KNOWING.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")
    texts, problems = tokenized(tokenizer, opening, THINKS, replace(THINKS, responses=(Response("look</think>18"),)))
    assert len(texts) == 1 and texts[0].endswith("<think>\nlook</think>18<|im_end|>")
    assert found(problems) == [("template_refused", "error")] and "rendered otherwise" in problems[0].message


def test_a_call_may_end_with_a_token_of_its_own(tokenizer: PreTrainedTokenizerBase) -> None:
    own_end = KNOWING.replace("'<|im_end|>\n'", "'<|endoftext|>' if m.tool_calls else '<|im_end|>\n'")
    texts, _ = tokenized(tokenizer, own_end, CALLS)
    assert texts[0].endswith("}<|endoftext|>") and texts[1].endswith("No.<|im_end|>")
