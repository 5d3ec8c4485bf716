from __future__ import annotations

from pathlib import Path

import pytest

from mpo.data.chat import render_prompt, render_response, stop_ids
from mpo.data.tokenizer import load_template, load_tokenizer, template_names, train_tokenizer
from mpo.errors import ConfigError, DataError
from mpo.types import Message

TEXTS = ["write 3 sentences about garden ; use : rose , slowly", "naïve café — 東京 🙂"] * 20


def test_a_trained_tokenizer_loads_and_is_the_same_every_time(tmp_path: Path) -> None:
    train_tokenizer(TEXTS, 320, tmp_path / "a")
    train_tokenizer(iter(TEXTS), 320, tmp_path / "b")
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
    tokenizer = load_tokenizer(str(tmp_path / "a"))
    assert len(tokenizer) <= 320 and tokenizer.pad_token_id != tokenizer.eos_token_id
    prompt = [Message("user", "東京 about\n roses?")]
    ids = render_prompt(tokenizer, prompt) + render_response(tokenizer, prompt, " yes\n")
    assert (
        tokenizer.decode(ids)
        == "<|im_start|>user\n東京 about\n roses?<|im_end|>\n<|im_start|>assistant\n yes\n<|im_end|>"
    )
    assert stop_ids(tokenizer) == (tokenizer.eos_token_id,)


def test_a_named_template_replaces_the_tokenizers_own(tmp_path: Path) -> None:
    train_tokenizer(TEXTS, 320, tmp_path / "a")
    tokenizer = load_tokenizer(str(tmp_path / "a"), load_template("chatml_qwen"))
    assert "created by Alibaba Cloud" in tokenizer.decode(render_prompt(tokenizer, [Message("user", "hi")]))
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}{{ m['content'] }}|{% endfor %}\n")
    tokenizer = load_tokenizer(str(tmp_path / "a"), load_template(str(own)))
    prompt = [Message("user", "hi")]
    assert tokenizer.decode(render_prompt(tokenizer, prompt)) == "hi|"
    assert tokenizer.decode(render_response(tokenizer, prompt, "yes")) == "yes<|im_end|>"  # EOS where it writes none


def test_a_mistral_models_tokenizer_is_the_one_with_a_chat_template(tmp_path: Path) -> None:
    """With mistral-common, which vLLM brings along, transformers takes its own where there is a tekken.json."""
    train_tokenizer(TEXTS, 320, tmp_path / "a")
    (tmp_path / "a/config.json").write_text('{"model_type": "mistral"}')
    (tmp_path / "a/tekken.json").write_text("{}")
    tokenizer = load_tokenizer(str(tmp_path / "a"))
    assert render_prompt(tokenizer, [Message("user", "hi")])[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")


def test_errors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'llama3'"):
        load_template("lama3")
    with pytest.raises(ConfigError, match="cannot read .*none.jinja"):
        load_template(str(tmp_path / "none.jinja"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/tokenizer.json").write_text("{")
    for name, message in [
        (str(tmp_path), "no readable tokenizer in this folder"),
        (str(tmp_path / "bad"), "no readable tokenizer in this folder"),
        (str(tmp_path / "missing/folder"), "no tokenizer of this name"),
    ]:
        with pytest.raises(ConfigError, match=message) as caught:
            load_tokenizer(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="give at least 259"):
        train_tokenizer(TEXTS, 100, tmp_path / "t")
    with pytest.raises(DataError, match="no text"):
        train_tokenizer([], 320, tmp_path / "t")


def test_all_templates_are_there() -> None:
    assert template_names() == ("chatml", "chatml_qwen", "llama3", "mistral_inst", "mistral_v7", "zephyr")
