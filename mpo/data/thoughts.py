"""A drawn response parted into the thought that a model writes first and its answer. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpo.data.chat import raw_ids
from mpo.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

USUAL_END = "</think>"
"""What ends a thought of most models that think: in responses that nothing parts it is worth a warning."""
TAIL = 64
"""Last tokens of a prompt that a mark with white space behind it is looked for in."""
CONTEXT = 16
"""Tokens before others that these are decoded with."""


@dataclass(frozen=True, slots=True)
class Parted:
    """A response. ``thought``: None where it has none; ``ended``: False for a thought without an end, and so without an
    answer."""

    answer: str
    thought: str | None = None
    ended: bool = True


class Thoughts:
    """Parts responses at the marks ``start`` and ``end``.

    A response has a thought where it begins with the opening mark, or its prompt ends with that, as chat templates may
    have it; or where it has a closing mark, unless its prompt ends with one. The first closing mark ends the thought. A
    mark that begins and ends with added tokens of the tokenizer is found by its ids alone, any other in the text, where
    its first and last tokens may be parts of what stands beside it.

    Raises:
        ConfigError: the tokenizer has no tokens for a mark.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, start: str, end: str) -> None:
        self._tokenizer = tokenizer
        self._start, self._end = start, end
        self._start_ids = _ids_of_mark(tokenizer, self._start, "model.thinking.start")
        self._end_ids = _ids_of_mark(tokenizer, self._end, "model.thinking.end")
        self.mark_ids = frozenset((*self._start_ids, *self._end_ids))
        """Ids that both marks are found by; none of marks that are found in the text."""

    def parted(self, ids: Sequence[int], prompt_ids: Sequence[int]) -> Parted:
        """The response ``ids``, without its stop token, to the rendered prompt."""
        begin, ended = self._thinks(ids, prompt_ids)
        if begin is None:
            return Parted(self._text(ids))
        before, _, after = self._at_end(ids, begin)
        return Parted(after.lstrip() if ended else "", self._thought(before), ended)

    def tokens(self, ids: Sequence[int], prompt_ids: Sequence[int]) -> int:
        """How many tokens of the response ``ids`` are its thought, the closing mark included; all of them where the
        thought does not end, none where there is no thought."""
        begin, ended = self._thinks(ids, prompt_ids)
        if begin is None:
            return 0
        if not ended:
            return len(ids)
        if self._end_ids:
            at = _find(ids, self._end_ids, begin)
            assert at is not None
            return at + len(self._end_ids)
        few, many = begin, len(ids)  # the fewest tokens whose text has the mark: more of them have it too
        while few < many:
            middle = (few + many) // 2
            few, many = (few, middle) if self._end in self._text(ids[:middle], begin) else (middle + 1, many)
        return few

    def _thinks(self, ids: Sequence[int], prompt_ids: Sequence[int]) -> tuple[int | None, bool]:
        """After how many tokens a thought begins, None where there is none; and whether it ends."""
        begin = self._begin(ids)
        ended = self._at_end(ids, begin or 0)[1]
        opened = begin is not None or (not self.closed(prompt_ids) if ended else self._ends(prompt_ids, self._start))
        return (begin or 0) if opened else None, ended

    def closed(self, prompt_ids: Sequence[int]) -> bool:
        """Whether the rendered prompt ends with the closing mark, as templates have it where thinking is turned off."""
        return self._ends(prompt_ids, self._end)

    def _ends(self, prompt_ids: Sequence[int], mark: str) -> bool:
        return self._tokenizer.decode(list(prompt_ids[-TAIL:]), skip_special_tokens=False).rstrip().endswith(mark)

    def _begin(self, ids: Sequence[int]) -> int | None:
        """After how many tokens a thought begins, none for a mark that is found in the text; None for a response that
        does not begin with the opening mark."""
        if not self._start_ids:
            return 0 if self._text(ids).lstrip().startswith(self._start) else None
        at = _find(ids, self._start_ids)
        return None if at is None or self._text(ids[:at]).strip() else at + len(self._start_ids)

    def _at_end(self, ids: Sequence[int], begin: int) -> tuple[str, bool, str]:
        """The texts from ``begin`` to the first closing mark and after that, and whether there is one."""
        if not self._end_ids:
            before, mark, after = self._text(ids, begin).partition(self._end)
            return before, bool(mark), after
        at = _find(ids, self._end_ids, begin)
        if at is None:
            return self._text(ids, begin), False, ""
        return self._text(ids[:at], begin), True, self._text(ids, at + len(self._end_ids))

    def _thought(self, text: str) -> str | None:
        return text.strip().removeprefix(self._start).strip() or None

    def _text(self, ids: Sequence[int], begin: int = 0) -> str:
        """The text without special tokens, from ``begin`` on. What stands before decides how a token is decoded: some
        decoders drop the blanks of the first one."""
        ids, before = ids[max(0, begin - CONTEXT) :], ids[max(0, begin - CONTEXT) : begin]
        whole, head = (self._tokenizer.decode(list(each), skip_special_tokens=True) for each in (ids, before))
        if whole.startswith(head):
            return str(whole[len(head) :])
        return str(self._tokenizer.decode(list(ids[len(before) :]), skip_special_tokens=True))


def _ids_of_mark(tokenizer: PreTrainedTokenizerBase, mark: str, key: str) -> list[int]:
    """Ids that a mark always has; none where its tokens may merge with others beside it."""
    if mark in tokenizer.added_tokens_encoder:
        return [tokenizer.added_tokens_encoder[mark]]
    (ids,) = raw_ids(tokenizer, [mark])
    if not ids or tokenizer.unk_token_id in ids:
        remedy = "give the mark that the model writes"
        raise ConfigError(f"the tokenizer has no tokens for '{mark}'", key, remedy)
    added = tokenizer.added_tokens_decoder
    return ids if ids[0] in added and ids[-1] in added else []


def _find(ids: Sequence[int], wanted: Sequence[int], begin: int = 0) -> int | None:
    """Where ``wanted`` is in ``ids`` the first time, from ``begin`` on; None where it is not."""
    first, size = wanted[0], len(wanted)
    places = (at for at in range(begin, len(ids)) if ids[at] == first)
    return next((at for at in places if list(ids[at : at + size]) == list(wanted)), None)
