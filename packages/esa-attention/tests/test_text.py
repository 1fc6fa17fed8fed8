"""The bundled text: enough of it, the same every time, and a split without leaks."""

import pytest
import torch

from effkit.errors import UserError
from esa_attention.evaluation.models import text
from esa_attention.evaluation.models.text import (
    Document,
    decode_bytes,
    documents,
    encode_bytes,
    haystack_bytes,
    read_split,
)


def paragraphs(raw: bytes) -> set[str]:
    return {" ".join(p.split()) for p in raw.decode().split("\n\n") if p.strip()}


def test_topics_are_there_in_order():
    found = documents("topics")
    assert sum(len(d.text) for d in found) > 400_000
    assert [d.name for d in found] == sorted(d.name for d in found)
    assert any(d.name == "pydoc/lists" and "list_display" in d.text for d in found)


def test_library_sources_leave_out_installed_packages_and_tests():
    found = documents("stdlib")
    names = [d.name for d in found]
    assert sum(len(d.text) for d in found) > 4_000_000
    assert "stdlib/json/encoder.py" in names
    assert names == sorted(names)
    assert not any("site-packages" in n or "/test/" in n for n in names)


def test_split_is_disjoint_and_balanced():
    train, test = read_split("train"), read_split("test")
    assert 0.08 < len(test) / (len(train) + len(test)) < 0.35
    assert len(train) > 200_000
    assert not paragraphs(train) & paragraphs(test)
    assert read_split("test") == test
    both = read_split("train", ("topics", "stdlib")), read_split("test", ("topics", "stdlib"))
    assert len(both[0]) > 3_000_000
    assert not paragraphs(both[0]) & paragraphs(both[1])


def test_side_depends_on_the_name_alone():
    assert Document("pydoc/numbers", "").split == "test"
    assert Document("pydoc/numbers", "other text").split == "test"
    assert Document("pydoc/lists", "").split == "train"
    names = [d.name for d in documents("stdlib") if d.split == "test"]
    assert 0.05 < len(names) / len(documents("stdlib")) < 0.2


def test_haystack_has_exactly_the_asked_size_and_goes_on_into_the_library():
    assert haystack_bytes(0) == b""
    start = haystack_bytes(1000)
    assert len(start) == 1000
    assert haystack_bytes(400, start=300) == start[300:700]
    topics = sum(len(d.text.encode()) + 2 for d in documents("topics"))
    long = haystack_bytes(topics + 5000)
    assert len(long) == topics + 5000
    assert long[:1000] == start
    assert long[topics - 2 : topics] == b"\n\n"
    assert documents("stdlib")[0].text.encode()[:100] == long[topics : topics + 100]


def test_bytes_round_trip():
    ids = encode_bytes("Zürich\n")
    assert ids.dtype == torch.int64
    assert ids.tolist() == list("Zürich\n".encode())
    assert decode_bytes(ids) == "Zürich\n"
    assert decode_bytes(encode_bytes(b"ab\xff")) == "ab\ufffd"
    assert decode_bytes([]) == ""
    assert encode_bytes("").shape == (0,)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: documents("wiki"), ["source", "wiki", "topics, stdlib"]),
        (lambda: read_split("validation"), ["split", "validation", "train, test"]),
        (lambda: haystack_bytes(-1), ["num_bytes", "-1"]),
        (lambda: haystack_bytes(10**12), ["num_bytes", str(10**12), "at most"]),
        (lambda: decode_bytes([0, 256]), ["0..255", "256"]),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(UserError) as error:
        call()
    assert all(word in str(error.value) for word in words)


def test_a_python_without_the_text_is_told(monkeypatch):
    monkeypatch.setattr(text.importlib, "import_module", _raise_import_error)
    documents.cache_clear()
    try:
        with pytest.raises(UserError, match=r"source='topics' is not there"):
            documents("topics")
    finally:
        documents.cache_clear()


def _raise_import_error(name):
    raise ImportError(name)
