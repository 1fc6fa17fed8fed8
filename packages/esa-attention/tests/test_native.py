"""The compiled forms: right for every shape they take, refused for the others, and compiled once."""

import os
import shutil
import stat
import threading
from functools import cache

import pytest
import torch

from effkit.testing import assert_close_to_reference
from esa_attention.ops.decode_cpu import attend_decode
from esa_attention.ops.forms import PRODUCTS
from esa_attention.ops.index_rows import quantised
from esa_attention.ops.native import build
from esa_attention.ops.native.decode import attend_native, scores_native
from esa_attention.ops.native.select import select_native
from esa_attention.ops.selection_torch import dilate, select_topk

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def _scratch(name, shape, dtype, device):
    return torch.full(shape, torch.nan, dtype=dtype, device=device)


def _tokens(far, near, group, dim, dtype, kv_heads=3, seed=0):
    """Queries, a store with scattered far tokens, and a window that begins somewhere in its memory."""
    generator = torch.Generator().manual_seed(seed)
    store = torch.randn(500, 2, kv_heads, dim, generator=generator).to(dtype)
    queries = torch.randn(2, kv_heads * group, 1, dim, generator=generator).to(dtype)
    window = torch.randn(2, kv_heads, near + 11, dim, generator=generator).to(dtype)[:, :, 5 : 5 + near]
    chosen = torch.randperm(500, generator=generator)[:far].sort().values
    return queries[0], store, chosen, queries[1], window[0], window[1], 0.2


def _attention(kind, far_query, store, far, near_query, keys, values, scaling):
    """One softmax over both parts, in the type asked for."""
    kv_heads, _, dim = keys.shape
    scores, all_values = [], []
    for query, k, v in ((far_query, *store[far].permute(1, 2, 0, 3)), (near_query, keys, values)):
        scores.append(query.view(kv_heads, -1, dim).to(kind) @ k.to(kind).transpose(1, 2) * scaling)
        all_values.append(v.to(kind))
    return (torch.cat(scores, dim=2).softmax(dim=2) @ torch.cat(all_values, dim=1)).view(far_query.shape)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("far", "near", "group", "dim"),
    [(1, 0, 1, 32), (0, 1, 2, 64), (33, 31, 3, 96), (64, 64, 4, 128), (200, 97, 5, 64), (7, 300, 8, 32)],
)
def test_attention_is_right_for_every_number_of_tokens_queries_and_threads(
    far, near, group, dim, dtype, threads, monkeypatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    arguments = _tokens(far, near, group, dim, dtype)
    out = attend_native(*arguments)
    assert out.dtype == dtype
    assert_close_to_reference(out, _attention(dtype, *arguments), _attention(torch.float64, *arguments))
    assert torch.equal(out, attend_native(*arguments))  # the same bits every time


def test_values_may_stay_in_the_store():
    far_query, store, far, near_query, keys, _, scaling = _tokens(40, 60, 2, 64, torch.float32)
    values = store[100:160, 1].transpose(0, 1)
    arguments = (far_query, store, far, near_query, keys, values, scaling)
    exact = _attention(torch.float64, *arguments)
    assert_close_to_reference(attend_native(*arguments), _attention(torch.float32, *arguments), exact)


@pytest.mark.parametrize("scale", [30.0, 3000.0])
def test_scores_of_any_size_overflow_nothing(scale):
    """The largest score comes first or last; what lies far below it weighs nothing."""
    arguments = list(_tokens(70, 70, 4, 64, torch.float32))
    arguments[-1] = scale
    for turn in (False, True):
        arguments[2] = arguments[2].flip(0) if turn else arguments[2]
        exact = _attention(torch.float64, *arguments)
        assert_close_to_reference(attend_native(*arguments), _attention(torch.float32, *arguments), exact)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["query", "far key", "near key", "far value", "near value"])
def test_what_is_no_number_is_seen(bad, where):
    far_query, store, far, near_query, keys, values, scaling = _tokens(70, 70, 4, 64, torch.float32)
    keys, values = keys.clone(), values.clone()
    if where == "query":
        far_query[0, 0, 0] = bad
    elif where == "far key":
        store[far[40], 0, 0, 0] = bad
        far_query[0, 0, 0] = abs(far_query[0, 0, 0])
    elif where == "near key":
        keys[0, 69, 0] = bad
        near_query[0, 0, 0] = abs(near_query[0, 0, 0])
    elif where == "far value":
        store[far[0], 1, 0, 0] = bad
    else:
        values[0, 0, 0] = bad
    arguments = (far_query, store, far, near_query, keys, values, scaling)
    due, out = _attention(torch.float64, *arguments), attend_native(*arguments)
    assert not due[0].isfinite().all()
    # Wherever plain attention gives no number none is given here, and the heads of other keys stay what they are.
    assert not (out[~due.isfinite()].isfinite()).any()
    assert torch.allclose(out[4:].double(), due[4:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("width", [64, 128, 192])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_of_strided_rows(dtype, width, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    generator = torch.Generator().manual_seed(width)
    keys = torch.randn(77, 2 * width, generator=generator).to(dtype)[:, width:]
    query = torch.randn(width, generator=generator).to(dtype)
    exact = keys.double() @ query.double()
    eps = float(exact.abs().max()) * torch.finfo(torch.float32).eps
    assert_close_to_reference(scores_native(query, keys), keys.float() @ query.float(), exact, eps=eps)


def test_8_bit_scores_round_the_keys_only():
    generator = torch.Generator().manual_seed(0)
    keys, scale = quantised(torch.randn(77, 128, generator=generator))
    keys[0, :4] = torch.tensor([-128, 127, -1, 0])
    query = torch.randn(128, generator=generator)
    exact = keys.double() @ query.double() * scale.double()
    plain = (keys.float() @ query) * scale
    eps = float(exact.abs().max()) * torch.finfo(torch.float32).eps
    assert_close_to_reference(scores_native(query, keys, scale), plain, exact, eps=eps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: [t.half() if torch.is_tensor(t) and t.is_floating_point() else t for t in a],
            "not written for float16",
        ),
        (lambda a: [*a[:4], a[4].double(), *a[5:]], "must be of one type"),
        (
            lambda a: [a[0][..., :48], a[1][..., :48].contiguous(), a[2], *(t[..., :48] for t in a[3:6]), a[6]],
            "multiple",
        ),
        (lambda a: [a[0], a[1][:, :, ::2], *a[2:]], "in one piece"),
        (lambda a: [*a[:4], a[4].transpose(1, 2).contiguous().transpose(1, 2), *a[5:]], "lie together"),
    ],
)
def test_what_is_not_written_for_is_refused(change, message):
    with pytest.raises(NotImplementedError, match=message):
        attend_native(*change(_tokens(5, 9, 2, 64, torch.float32)))


@pytest.mark.parametrize("index", [-1, 500])
def test_memory_outside_of_the_store_is_never_read(index):
    arguments = list(_tokens(5, 9, 2, 64, torch.float32))
    arguments[2] = torch.tensor([0, index])
    with pytest.raises(IndexError, match="of the 500 that the store holds"):
        attend_native(*arguments)


# ---- the choice among scores


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("levels", [None, 1000, 50])
@pytest.mark.parametrize(("count", "proximity", "k"), [(9001, 0, 40), (9001, 1, 64), (20000, 3, 600), (5000, 12, 300)])
def test_the_choice_is_that_of_all_scores(count, proximity, k, levels, seed):
    """Also among scores of few levels, where ties decide."""
    own = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    if levels:
        own = (own * levels / 6).round()
    own[:3], own[-3:] = 9e3, 9e3  # at the borders
    chosen = select_native(own, proximity, k)
    if levels != 50:  # so few that too many are alike: then it says so
        assert chosen is not None
    if chosen is not None:
        assert torch.equal(chosen, select_topk(dilate(own, proximity), k, own))


def test_zeros_infinities_and_a_strided_row():
    own = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))[:, 0]
    own = own.masked_fill(own < 0, -torch.inf)
    own[::7], own[1::7], own[100] = 0.0, -0.0, torch.inf
    chosen = select_native(own, 2, 100)
    assert chosen is not None
    assert torch.equal(chosen, select_topk(dilate(own, 2), 100, own))


def test_scores_that_are_too_few_alike_or_no_numbers_are_left_to_others():
    own = torch.randn(9000, generator=torch.Generator().manual_seed(0))
    for strange in (own[:100], torch.zeros(9000), own.clone().index_fill_(0, torch.tensor([8999]), torch.nan)):
        assert select_native(strange, 3, 90) is None
    with pytest.raises(NotImplementedError, match="float32"):
        select_native(own.double(), 3, 90)


# ---- compiling


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Nothing compiled yet, and a folder for what will be."""
    monkeypatch.setattr(build, "library", cache(build.library.__wrapped__))
    monkeypatch.setattr(build, "_outcome", cache(build._outcome.__wrapped__))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "esa-attention"


def _count(monkeypatch):
    """The compiler's runs from now on."""
    ran, run = [], build._run
    monkeypatch.setattr(build, "_run", lambda command: (ran.append(command), run(command)))
    return ran


def test_it_is_compiled_once_and_found_again(fresh, monkeypatch):
    ran = _count(monkeypatch)
    build.library("decode", 4)
    (file,) = fresh.iterdir()  # and nothing else is left there
    assert len(ran) == 2
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    build._outcome.cache_clear()
    build._load("decode", 4)
    assert len(ran) == 2
    assert file.name == f"decode-{build._key(build._compiler(), 'decode', 4)}.so"


def test_a_broken_file_is_compiled_anew(fresh, monkeypatch):
    ran = _count(monkeypatch)
    fresh.mkdir(mode=0o700)
    (fresh / f"decode-{build._key(build._compiler(), 'decode', 4)}.so").write_bytes(b"no library")
    build.library("decode", 4)
    assert (len(ran), len(list(fresh.iterdir()))) == (2, 1)


def test_many_threads_may_ask_for_it_at_once(fresh):
    found, errors = [], []

    def ask():
        try:
            found.append(build._load("decode", 4))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), errors, len(list(fresh.iterdir()))) == (4, [], 1)


def test_a_folder_that_others_may_write_to_is_not_trusted(fresh, monkeypatch):
    fresh.mkdir(mode=0o700)
    os.chmod(fresh, 0o777)
    ran = _count(monkeypatch)
    build._load("decode", 4)
    build._load("decode", 4)
    assert len(ran) == 4  # for this process only, each time
    assert list(fresh.iterdir()) == []


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("", "CC is empty: no compiler is wanted"),
        ("cc 'x", "No closing quotation"),
        ("no-such-compiler", "the compiler that CC names, no-such-compiler, is not there"),
        ("false", "false failed: status 1"),
    ],
)
def test_without_a_compiler_the_other_forms_are_taken_and_it_is_said(fresh, monkeypatch, compiler, message):
    monkeypatch.setenv("CC", compiler)
    product = PRODUCTS["attend"]
    monkeypatch.setattr(product, "remembered", {})
    monkeypatch.setattr("esa_attention.ops.decode_cpu._LEAST", 0)
    monkeypatch.setattr("esa_attention.ops.native.decode.library", build.library)
    arguments = _tokens(30, 70, 4, 64, torch.float32)
    out = attend_decode(*arguments, _scratch)
    (race,) = product.remembered.values()
    assert race.form in ("pieces", "flash")
    assert race.failed == {"native": message}
    exact = _attention(torch.float64, *arguments)
    assert_close_to_reference(out, _attention(torch.float32, *arguments), exact)


def test_the_source_does_not_compile(fresh, monkeypatch, tmp_path):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "decode.c").write_text("int broken(\n")
    monkeypatch.setattr(build, "_SOURCES", sources)
    with pytest.raises(NotImplementedError, match=r"failed: .*decode.c.*error"):
        build.library("decode", 1)
    assert list(fresh.iterdir()) == []


@pytest.mark.parametrize(("name", "per_word"), [("decode", 1), ("decode", 2), ("decode", 4), ("select", 1)])
def test_the_source_warns_of_nothing(name, per_word, tmp_path):
    assert COMPILER is not None
    flags = ("-Wall", "-Wextra", "-Werror", f"-DPER_WORD={per_word}")
    source = build._SOURCES / f"{name}.c"
    build._run([COMPILER, *build._FLAGS, *flags, "-c", str(source), "-o", str(tmp_path / "made.o")])
