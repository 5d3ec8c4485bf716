"""Arguments of a chat template are part of it, for training, sampling and whoever loads the policy afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from mpo.data.chat import prompt_text, render_prompt, writes_date
from mpo.data.tokenizer import load_tokenizer, template_head
from mpo.data.verbatim import inserts_verbatim
from mpo.errors import ConfigError
from mpo.testbed.tokenizer import build_tokenizer
from mpo.types import Message

THINKING = """{%- if enable_thinking is defined and enable_thinking is false %}{{ 'garden ' }}{%- endif %}
{%- if tone is defined %}{{ tone }}{% endif %}
"""
PROMPT = (Message("user", "rose"),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer whose template has two arguments."""
    build_tokenizer(tmp_path)
    file = tmp_path / "chat_template.jinja"
    file.write_text(THINKING + file.read_text())
    return tmp_path


def text(folder: Path, **arguments: Any) -> str:
    tokenizer = load_tokenizer(str(folder), template_arguments=arguments)
    return str(tokenizer.decode(render_prompt(tokenizer, PROMPT)))


def test_they_are_what_apply_chat_template_would_be_given(folder: Path) -> None:
    plain = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "rose"}]
    for arguments in ({}, {"enable_thinking": False}, {"enable_thinking": True}, {"tone": "hello "}):
        tokenizer = load_tokenizer(str(folder), template_arguments=arguments)
        expected = plain.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **arguments)
        assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == expected
    assert text(folder, enable_thinking=False) != text(folder) == text(folder, enable_thinking=True)


def test_a_saved_policy_keeps_them_and_the_next_round_adds_nothing(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(folder), template_arguments={"enable_thinking": False, "tone": "hello "})
    tokenizer.save_pretrained(tmp_path / "policy")
    again = load_tokenizer(str(tmp_path / "policy"), template_arguments={"tone": "hello ", "enable_thinking": False})
    assert again.chat_template == tokenizer.chat_template
    elsewhere = AutoTokenizer.from_pretrained(tmp_path / "policy")
    assert list(render_prompt(elsewhere, PROMPT)) == list(render_prompt(tokenizer, PROMPT))


@pytest.mark.parametrize("value", ['a "quoted" \\ text', "two\nlines", "naïve 🙂", "{{ messages }}", 3, -0.5, True])
def test_values_arrive_as_they_are(value: str | float) -> None:
    from jinja2 import Environment

    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    assert environment.from_string(template_head({"tone": value}) + "\n{{ tone }}").render() == f"\n{value}"


DATED = """{%- if not date_string is defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif %}
{%- set today = strftime_now("%Y-%m-%d") %}{{ date_string + ' ' + today + ' ' }}"""


def test_a_date_is_fixed_for_whoever_loads_the_policy(folder: Path, tmp_path: Path) -> None:
    file = folder / "chat_template.jinja"
    file.write_text(DATED + file.read_text())
    assert writes_date(load_tokenizer(str(folder)))
    assert writes_date(load_tokenizer(str(folder), template_arguments={"date_string": "rose"}))  # the other one is left
    tokenizer = load_tokenizer(str(folder), template_arguments={"strftime_now": "1 Jul"})
    assert not writes_date(tokenizer) and prompt_text(tokenizer, PROMPT).startswith("1 Jul 1 Jul ")
    assert inserts_verbatim(tokenizer, ("user",))  # and is as fast as any other
    tokenizer.save_pretrained(tmp_path / "policy")
    elsewhere = AutoTokenizer.from_pretrained(tmp_path / "policy")
    assert prompt_text(elsewhere, PROMPT) == prompt_text(tokenizer, PROMPT)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"enable_thinkin": False}, "model.template_arguments.enable_thinkin: the chat template does not know it"),
        ({"messages": "x"}, "model.template_arguments.messages: a template cannot be given this"),
        ({"a b": 1}, "model.template_arguments.a b: a template cannot be given this"),
        ({"tone": ["x"]}, "model.template_arguments.tone: ['x'] does not fit"),
        ({"strftime_now": 3}, "model.template_arguments.strftime_now: 3 is no date"),
        ({"strftime_now": "1 Jul"}, "model.template_arguments.strftime_now: the chat template does not know it"),
        ({"tone": None}, "model.template_arguments.tone: None does not fit"),
    ],
)
def test_what_a_template_cannot_take_is_one_line(folder: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(str(folder), template_arguments=arguments)
    assert str(caught.value).startswith(said)
