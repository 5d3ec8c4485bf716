from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from mpo.data.chat import chat_format, raw_ids, render_prompt, render_response, special_tokens, stop_ids
from mpo.data.fast_render import find_anchor, render_responses
from mpo.errors import ConfigError
from mpo.types import Message, Response, ResponseSet

Make = Callable[[str, str], PreTrainedTokenizerBase]
FAMILIES = [("llama3", "bytes"), ("zephyr", "bytes"), ("zephyr", "words"), ("mistral_inst", "bytes")]
FAMILIES += [("mistral_inst", "words"), ("chatml_qwen", "bytes"), ("mistral_v7", "bytes")]
STOP = {"llama3": "<|eot_id|>", "chatml_qwen": "<|im_end|>"}
STOP |= dict.fromkeys(["zephyr", "mistral_inst", "mistral_v7"], "</s>")
USER = Message("user", "how are you?")
CONVERSATIONS = {
    "one turn": (USER,),
    "system": (Message("system", "You are a helpful assistant."), USER),
    "several turns": (USER, Message("assistant", "I am fine."), Message("user", "Hello there")),
}
ANSWER = "I am fine. def f(x): return x + 1"


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize(("template", "pieces"), FAMILIES)
def test_prompt_and_response_make_the_full_rendering(
    make_tokenizer: Make, template: str, pieces: str, conversation: str
) -> None:
    tokenizer, messages = make_tokenizer(template, pieces), CONVERSATIONS[conversation]
    prompt, response = render_prompt(tokenizer, messages), render_response(tokenizer, messages, ANSWER)
    turns = [{"role": each.role, "content": each.content} for each in (*messages, Message("assistant", ANSWER))]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False)).removesuffix("\n")
    whole = raw_ids(tokenizer, [text])[0]
    if tokenizer.bos_token_id is not None and whole[0] != tokenizer.bos_token_id:
        whole = [tokenizer.bos_token_id, *whole]
    assert prompt + response == whole
    assert 0 < len(prompt) < len(whole)
    assert whole.count(tokenizer.bos_token_id) == (0 if template == "chatml_qwen" else 1)
    assert response[-1] == special_tokens(tokenizer)[STOP[template]]
    assert tokenizer.decode(whole).endswith(ANSWER + STOP[template])


@pytest.mark.parametrize("text", ["\n\nstarts with lines", "  ", "", "ends with spaces  ", "\nHello"])
@pytest.mark.parametrize(("template", "pieces"), FAMILIES)
def test_awkward_responses_leave_the_prompt_alone(make_tokenizer: Make, template: str, pieces: str, text: str) -> None:
    tokenizer = make_tokenizer(template, pieces)
    response = render_response(tokenizer, [USER], text)
    assert response[-1] == special_tokens(tokenizer)[STOP[template]]
    assert tokenizer.bos_token_id not in response
    decoded = tokenizer.decode(response[:-1])
    if template == "llama3":
        assert decoded == text.strip()
    elif pieces == "bytes":
        assert decoded == text
    else:
        assert decoded.strip() == text.strip()


def test_a_merge_across_the_boundary_is_undone(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer("chatml_qwen", "bytes")
    prompt = render_prompt(tokenizer, [USER])
    text = tokenizer.decode(prompt) + "\nHello"
    assert raw_ids(tokenizer, [text])[0][: len(prompt)] != prompt  # joint tokenisation does merge here
    assert tokenizer.decode(prompt + render_response(tokenizer, [USER], "\nHello")) == text + "<|im_end|>"


def test_system_turns(make_tokenizer: Make) -> None:
    with_system, without = CONVERSATIONS["system"], CONVERSATIONS["one turn"]
    expected = {
        "llama3": ("<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful", "<|start_header_id|>user"),
        "zephyr": ("<s><|system|>\nYou are a helpful", "<s><|system|>\n</s>\n<|user|>\nhow"),
        "mistral_inst": ("[INST] You are a helpful assistant.\n\nhow", "<s>[INST] how are you? [/INST]"),
        "mistral_v7": (
            "<s>[SYSTEM_PROMPT]You are a helpful assistant.[/SYSTEM_PROMPT][INST]how are you?[/INST]",
            "<s>[INST]how are you?[/INST]",
        ),
        "chatml_qwen": ("system\nYou are a helpful", "system\nYou are Qwen, created by Alibaba Cloud."),
    }
    for template, (with_text, without_text) in expected.items():
        tokenizer = make_tokenizer(template, "bytes")
        assert with_text in tokenizer.decode(render_prompt(tokenizer, with_system))
        assert without_text in tokenizer.decode(render_prompt(tokenizer, without))


def test_stop_ids_name_end_of_turn_and_eos(make_tokenizer: Make) -> None:
    llama = make_tokenizer("llama3", "bytes")
    tokens = special_tokens(llama)
    assert stop_ids(llama) == (tokens["<|end_of_text|>"], tokens["<|eot_id|>"])
    qwen = make_tokenizer("chatml_qwen", "bytes")
    assert stop_ids(qwen) == (special_tokens(qwen)["<|im_end|>"],)


@pytest.mark.parametrize(("template", "pieces"), FAMILIES)
def test_quick_way_is_taken_and_equals_the_full_way(make_tokenizer: Make, template: str, pieces: str) -> None:
    tokenizer = make_tokenizer(template, pieces)
    assert chat_format(tokenizer).strips == ((True, True) if template == "llama3" else (False, False))
    anchor = find_anchor(tokenizer)
    assert anchor is not None and anchor.end_ids
    texts = [ANSWER, "\n\nlines", "", " space", "東京 🙂", "</s> as text", "[INST] <|user|>"]
    sets = [
        ResponseSet(name, messages, tuple(Response(text) for text in texts)) for name, messages in CONVERSATIONS.items()
    ]
    prompts = [render_prompt(tokenizer, one.prompt) for one in sets]
    full = [[render_response(tokenizer, one.prompt, text) for text in texts] for one in sets]
    assert render_responses(tokenizer, sets, prompts) == full


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(family=st.sampled_from(FAMILIES), user=st.text(min_size=1, max_size=20), answer=st.text(max_size=20))
def test_any_text_keeps_prefix_and_quick_equals_full(
    make_tokenizer: Make, family: tuple[str, str], user: str, answer: str
) -> None:
    tokenizer = make_tokenizer(*family)
    fixed = ResponseSet("fixed", (USER,), (Response(ANSWER),))
    drawn = ResponseSet("drawn", (Message("user", user),), (Response(answer),))
    sets = [fixed, fixed, drawn]  # the drawn one is past the sample that is compared anyway
    rendered = render_responses(tokenizer, sets, [render_prompt(tokenizer, one.prompt) for one in sets])
    assert rendered[2] == [render_response(tokenizer, drawn.prompt, answer)]


def test_a_template_that_rewrites_responses_takes_the_full_way(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer("chatml_qwen", "bytes")
    plain = tokenizer.chat_template
    try:
        tokenizer.chat_template = plain.replace("message['content']", "message['content'].replace('secret', '')")
        one = ResponseSet("a", (USER,), (Response("a secret thing"),))
        (rows,) = render_responses(tokenizer, [one], [render_prompt(tokenizer, one.prompt)])
        assert tokenizer.decode(rows[0]) == "a  thing<|im_end|>"
    finally:
        tokenizer.chat_template = plain


def test_unusable_templates_are_config_errors(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer("chatml_qwen", "bytes")
    plain = tokenizer.chat_template
    try:
        says_nothing = (
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
        )
        for template, message in [
            (None, "no chat template"),
            ("{{ raise_exception('never') }}", "never"),
            ("{{ 1 / 0 }}", "ZeroDivisionError"),
            ("", "leaves out what the user says"),
            (says_nothing, "leaves out what the assistant says"),
        ]:
            tokenizer.chat_template = template
            with pytest.raises(ConfigError, match=message):
                render_prompt(tokenizer, [USER])
    finally:
        tokenizer.chat_template = plain


EMPTY_THOUGHT = """{%- for m in messages -%}
    {{- '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n<|thought|><|/thought|>' -}}
{%- endif -%}"""


def test_a_turn_ends_where_the_template_ends_it_though_prompts_have_more_than_it_renders(make_tokenizer: Make) -> None:
    """Gemma 4 asks for a response after an empty thought, and renders responses without one."""
    tokenizer = copy.deepcopy(make_tokenizer("chatml_qwen", "bytes"))
    tokenizer.chat_template, tokenizer.eos_token = EMPTY_THOUGHT, "<|endoftext|>"
    ids = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert chat_format(tokenizer).end_id == ids[0] and stop_ids(tokenizer) == tuple(sorted(ids))
    assert tokenizer.decode(render_response(tokenizer, [USER], ANSWER)) == ANSWER + "<|im_end|>"
    prompt = render_prompt(tokenizer, [USER])
    (rows,) = render_responses(tokenizer, [ResponseSet("0", (USER,), (Response(ANSWER),))], [prompt])
    assert rows == [render_response(tokenizer, [USER], ANSWER)]
