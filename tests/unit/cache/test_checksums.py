"""Damage is noticed: of files, and of records that carry their own checksum."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpo.cache.checksums import Damaged, HashedFile, check_file, file_checksum, read_sealed, sealed, unsealed


def test_a_file_is_checked_by_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with HashedFile(path) as file:
        for part in (b"some", b"", b"thing"):
            file.write(part)
    assert file.checksum == file_checksum(path)
    check_file(path, file.checksum)
    path.write_bytes(b"somethinG")
    with pytest.raises(Damaged, match="weights does not have its checksum"):
        check_file(path, file.checksum)
    path.unlink()
    with pytest.raises(Damaged, match="weights is missing"):
        check_file(path, file.checksum)
    path.mkdir()
    with pytest.raises(Damaged, match=r"weights cannot be read \(Is a directory\)"):
        check_file(path, file.checksum)


RECORDS = st.dictionaries(
    st.text(max_size=9),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(RECORDS)
@settings(max_examples=50)
def test_a_sealed_record_is_read_as_it_was(record: dict[str, object]) -> None:
    record.pop("checksum", None)
    assert unsealed(json.dumps(sealed(record)).encode(), "state.json") == record


def test_keys_that_json_makes_text_are_sealed_as_such(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(sealed({"by_rank": {2: "a", 10: "b"}})))
    assert read_sealed(path) == {"by_rank": {"2": "a", "10": "b"}}


def test_every_flipped_bit_of_a_record_is_noticed_or_without_effect(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    record = {"step": 12, "files": {"a": "0123"}, "share": 0.25}
    content = json.dumps(sealed(record)).encode()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert read_sealed(path) == record, bit
        except Damaged as damage:
            assert str(damage).startswith("state.json ")


@pytest.mark.parametrize("content", [b"", b"[1]", b"null", b"{}", b'{"step": 1}', b"\xff", b'{"step": 1'])
def test_what_is_no_sealed_record_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(Damaged, match=r"state\.json (is not JSON|has no checksum)"):
        read_sealed(tmp_path / "state.json")
