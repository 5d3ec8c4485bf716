"""Templates that are proved to insert texts verbatim, and those that are not: tokens don't depend on other rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jinja2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from mpo.data.chat import render_prompt, render_response
from mpo.data.fast_render import render_responses
from mpo.data.opaque import InspectedError, Opaque, compiled
from mpo.data.verbatim import inserts_verbatim
from mpo.types import Message, Response, ResponseSet

Make = Callable[[str, str], PreTrainedTokenizerBase]
ONE, SYSTEM, SEVERAL = ("user",), ("system", "user"), ("user", "assistant", "user")
TURN = "<|im_start|>{{ m.role }}\n%s<|im_end|>\n"
FRAME = "{%% for m in messages %%}%s{%% endfor %%}{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"


def frame(turn: str) -> str:
    return FRAME % turn


def of(content: str, before: str = "") -> str:
    return frame(before + TURN % ("{{ " + content + " }}"))


PROVED = {
    "plain": of("m.content"),
    "trimmed": of("m['content'] | trim"),
    "joined with ~": of("'' ~ m.content ~ ''"),
    "set": of("c", "{% set c = m.content %}"),
    "macro": "{% macro shown(c) %}{% if c is string %}{{ c }}{% endif %}{% endmacro %}" + of("shown(m.content)"),
    "block set": of("c", "{% set c %}{{ m.content }}{% endset %}"),
    "generation tag": frame(TURN % "{% generation %}{{ m.content }}{% endgeneration %}"),
    "checks of type and role": of(
        "m.content if m.content is string or m.content is iterable else m.content | tojson",
        "{% if m.role not in ['system', 'user', 'assistant'] or 'x' in m %}{{ raise_exception('x') }}{% endif %}",
    ),
    "branches that texts alone do not reach": of(
        "m.content", "{% if m.tool_calls %}{% if m.content %}{{ m.content.split('x')[0] }}{% endif %}{% endif %}"
    ),
}
LOOKING = {
    "cut at </think>": of("m.content.split('</think>')[-1]"),
    "if in": of("c", "{% set c = m.content %}{% if '</think>' in c %}{% set c = '' %}{% endif %}"),
    "looked at after a macro": "{% macro t(c) %}{{ c }}{% endmacro %}"
    + of("c", "{% set c = t(m.content) %}{% if '</think>' in c %}{% set c = '' %}{% endif %}"),
    "looked at after ~": of(
        "c", "{% set c = m.content ~ '' %}{% if c.endswith('</think>') %}{% set c = '' %}{% endif %}"
    ),
    "looked at after a block": of(
        "c", "{% set c %}{{ m.content }}{% endset %}{% if c == 'a' %}{% set c = '' %}{% endif %}"
    ),
    "in a string": of("m.content", "{% if m.content in 'abc' %}x{% endif %}"),
    "in a list": of("m.content", "{% if m.content in ['abc'] %}x{% endif %}"),
    "empty": of("m.content", "{% if m.content %}{% endif %}"),
    "length": of("m.content", "{% if m.content | length > 100 %}x{% endif %}"),
    "words": of("m.content", "{% if m.content | wordcount > 100 %}x{% endif %}"),
    "formatted": of("'%s' | format(m.content)"),
    "modulo": of("'%s' % m.content"),
    "replaced": of("'X' | replace('X', m.content)"),
    "as JSON": of("m.content | tojson"),
    "part of JSON": of("m | tojson"),
    "upper": of("m.content | upper"),
    "escaped": of("m.content | e"),
    "number": of("m.content", "{% if m.content | int > 3 %}x{% endif %}"),
    "sorted": of("m.content", "{% if (messages | map(attribute='content') | sort)[0] == 'a' %}x{% endif %}"),
    "compared": of("m.content", "{% if m.content == 'abc' %}x{% endif %}"),
    "as a key": of("m.content", "{% if {'a': 1}[m.content] %}x{% endif %}"),
    "trimmed of letters": of("m.content.strip('x')"),
    "trimmed with others": of("('x ' + m.content).strip()"),
    "method of another": of("m.content", "{% if 'abc'.startswith(m.content) %}x{% endif %}"),
}  # fmt: skip


@pytest.fixture
def tokenizer(make_tokenizer: Make) -> Iterator[PreTrainedTokenizerBase]:
    made = make_tokenizer("chatml_qwen", "bytes")
    own = made.chat_template
    yield made
    made.chat_template = own


@pytest.mark.parametrize("name", ["llama3", "zephyr", "mistral_inst", "mistral_v7", "chatml_qwen"])
def test_the_templates_that_come_with_mpo_are_proved(make_tokenizer: Make, name: str) -> None:
    assert all(inserts_verbatim(make_tokenizer(name, "bytes"), roles) for roles in (ONE, SYSTEM, SEVERAL))


@pytest.mark.parametrize("name", PROVED)
def test_templates_that_only_insert_are_proved(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    tokenizer.chat_template = PROVED[name]
    assert all(inserts_verbatim(tokenizer, roles) for roles in (ONE, SYSTEM, SEVERAL))


@pytest.mark.parametrize("name", LOOKING)
def test_templates_that_look_at_a_text_are_not(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    tokenizer.chat_template = LOOKING[name]
    turns = [{"role": "user", "content": Opaque("a")}]
    with pytest.raises((InspectedError, jinja2.TemplateError)):
        compiled(LOOKING[name]).render(messages=turns, tools=None, add_generation_prompt=True)
    assert not any(inserts_verbatim(tokenizer, roles) for roles in (ONE, SYSTEM, SEVERAL))


def test_a_prompt_that_is_rendered_otherwise_before_a_response_is_not(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = of("m.content", "{% if loop.last and messages[0].role == 'system' %}last{% endif %}")
    assert inserts_verbatim(tokenizer, ONE) and not inserts_verbatim(tokenizer, SYSTEM)


TEXTS = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(["<think>", "</think>", " ", "\n", "a", "</s>", "<|im_end|>", '"']), max_size=6).map(
        "".join
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    template=st.sampled_from([*PROVED.values(), *LOOKING.values()]), rows=st.lists(st.tuples(TEXTS, TEXTS), max_size=5)
)
def test_tokens_are_those_of_the_full_rendering_whatever_the_neighbours(
    tokenizer: PreTrainedTokenizerBase, template: str, rows: list[tuple[str, str]]
) -> None:
    tokenizer.chat_template = template
    sets, prompts, full = [], [], []
    for user, answer in rows:
        prompt = (Message("user", user),)
        try:
            expected = render_response(tokenizer, prompt, answer)
        except jinja2.TemplateError:
            continue
        sets.append(ResponseSet("", prompt, (Response(answer),)))
        prompts.append(render_prompt(tokenizer, prompt))
        full.append([expected])
    assert render_responses(tokenizer, sets, prompts) == full
    assert render_responses(tokenizer, sets[::-1], prompts[::-1]) == full[::-1]
