"""Forms of a product: the fastest is taken, remembered, or decided by the user; and all give the same product."""

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference
from esa_attention.config import CPU_FORMS, ESAConfig
from esa_attention.ops import decode_cpu, selection_cpu
from esa_attention.ops.forms import PRODUCTS, Product, Size
from esa_attention.ops.index_products import decode_scores, decode_scores_int8
from esa_attention.ops.index_rows import quantised
from esa_attention.ops.selection_cpu import select
from esa_attention.ops.selection_torch import dilate, select_topk

ROWS = torch.ones(4, 3)
SIZE = Size(torch.float32, 4, 3, 3, threads=2)


class Machine:
    """A clock that stands still but for forms, each of which takes its time, and counts them."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def clock(self):
        return self.now

    def form(self, name, seconds, error=None, result=2.0):
        def run(rows):
            self.calls.append(name)
            self.now += seconds
            if error is not None:
                raise error
            return rows * result

        return run

    def product(self, **seconds):
        named = {name: self.form(name, *(s if isinstance(s, tuple) else (s,))) for name, s in seconds.items()}
        return Product("demo", named, lambda dtype: 1e-3, clock=self.clock)


@pytest.fixture
def machine():
    return Machine()


def test_the_fastest_form_is_taken_and_remembered(machine):
    product = machine.product(guess=3.0, fast=1.0, plain=2.0)
    assert torch.equal(product("auto", SIZE, ROWS), 2 * ROWS)
    (race,) = product.remembered.values()
    assert (race.form, race.seconds) == ("fast", {"guess": 3.0, "fast": 1.0, "plain": 2.0})
    machine.calls.clear()
    product("auto", SIZE, ROWS)
    assert machine.calls == ["fast"]
    times = "fast 1e+03 ms, plain 2e+03 ms, guess 3e+03 ms"
    assert product.describe() == [f"demo (float32, below 2^4 numbers, rows of 3, 2 threads): fast, of {times}"]


def test_another_size_type_or_number_of_threads_is_measured_anew(machine, monkeypatch):
    product = machine.product(guess=3.0, plain=2.0)
    sizes = [Size.of(rows) for rows in (ROWS, torch.ones(8, 3), torch.ones(4, 3).double(), torch.ones(4, 6)[:, :3])]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    sizes += [Size.of(ROWS)]
    for size in sizes:
        product("auto", size, ROWS)
    assert list(product.remembered) == [(size, True) for size in sizes]
    assert "rows of 3 that begin 6 apart" in product.describe()[3]


def test_little_does_not_decide_against_the_first_form(machine):
    product = machine.product(guess=1.0, fast=0.97, plain=0.99)
    product("auto", SIZE, ROWS)
    assert next(iter(product.remembered.values())).form == "guess"


def test_slow_forms_are_timed_once(machine):
    product = machine.product(guess=1.0, slow=9.0, plain=1.2)
    product("auto", SIZE, ROWS)
    assert machine.calls.count("slow") == 2  # to see what it gives, and how long it takes
    assert machine.calls.count("plain") > 3


def test_first_measures_nothing(machine):
    product = machine.product(absent=(0.5, RuntimeError("no such thing")), guess=3.0, fast=1.0, plain=2.0)
    product("first", SIZE, ROWS)
    assert "fast" not in machine.calls
    product("auto", SIZE, ROWS)
    machine.calls.clear()
    product("first", SIZE, ROWS)
    product("auto", SIZE, ROWS)
    assert machine.calls == ["guess", "fast"]


def test_a_form_that_cannot_or_gives_other_numbers_is_left_out(machine):
    product = machine.product(
        absent=(0.1, NotImplementedError("not built in")),
        wrong=(0.1, None, 2.1),
        lost=(0.1, None, float("nan")),
        plain=2.0,
    )
    assert torch.equal(product("auto", SIZE, ROWS), 2 * ROWS)
    race = next(iter(product.remembered.values()))
    other = "gives other numbers here"
    assert race.form == "plain"
    assert race.failed == {"absent": "not built in", "wrong": other, "lost": other}
    assert product.describe()[0].endswith(f"plain (not absent: not built in; not wrong: {other}; not lost: {other})")


def test_numbers_that_are_none_decide_nothing(machine):
    product = machine.product(guess=1.0, plain=2.0)
    assert product("auto", SIZE, ROWS * torch.nan).isnan().all()
    assert product.remembered == {}


def test_a_form_asked_for_by_name_is_taken(machine):
    product = machine.product(absent=(0.1, RuntimeError("not built in")), fast=1.0, plain=2.0)
    product({"demo": "plain", "other": "x"}, SIZE, ROWS)
    assert machine.calls == ["plain"]
    product({"other": "x"}, SIZE, ROWS)
    assert next(iter(product.remembered.values())).form == "fast"
    with pytest.raises(UserError, match=r"cpu_forms.demo='absent' cannot be used here \(not built in\).*fast, plain"):
        product({"demo": "absent"}, SIZE, ROWS)
    with pytest.raises(UserError, match=r"cpu_forms.demo='fsat' is not known.*did you mean 'fast'"):
        product({"demo": "fsat"}, SIZE, ROWS)


def test_the_configuration_knows_the_forms():
    assert {name: tuple(product.forms) for name, product in PRODUCTS.items()} == CPU_FORMS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("fastest", "cpu_forms='fastest' is not known, choose one of auto, first"),
        (3, "cpu_forms=3 must be 'auto', 'first' or a form by product"),
        ({"score": "mv"}, "product in cpu_forms='score' is not known.*did you mean 'scores'"),
        ({"scores": "mw"}, "cpu_forms.scores='mw' is not known.*did you mean 'mv'"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(UserError, match=message):
        ESAConfig(cpu_forms=given)


# ---- the forms of the products


def _index(dtype, seed=0, count=4500, rank=64):
    """More numbers than are worth a choice of form, in a number of rows that is no whole multiple of anything."""
    generator = torch.Generator().manual_seed(seed)
    query, keys = torch.randn(rank, generator=generator), torch.randn(count, 2 * rank, generator=generator)
    return query, keys.to(dtype)


def _by_form(product, call):
    """What each form gives that runs here; those that do not say so in one line."""
    found = {}
    for name in CPU_FORMS[product]:
        try:
            found[name] = call({product: name})
        except UserError as error:
            if "cannot be used here" not in str(error):
                raise
    return found


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scores_in_every_form(dtype, together):
    query, keys = _index(dtype)
    keys = keys[:, :64].contiguous() if together else keys[:, 64:]
    plain = torch.mv(keys, query.to(dtype)).float()
    exact = keys.double() @ query.to(dtype).double()
    eps = float(exact.abs().max()) * torch.finfo(dtype).eps
    found = _by_form("scores", lambda forms: decode_scores(query, keys, forms))
    assert {"columns", "rows", "mv"} <= set(found)
    assert ("blocks" in found) == (dtype != torch.float32)
    for name, scores in {
        **found,
        "auto": decode_scores(query, keys),
        "first": decode_scores(query, keys, "first"),
    }.items():
        assert_close_to_reference(scores, plain, exact, eps=eps, what=name)


def test_int8_scores_in_every_form():
    query, wide = _index(torch.float32)
    keys, scale = quantised(wide[:, :64])
    exact = keys.double() @ query.double() * scale
    # Two digits of the query: an error of half of 2^-15 of its largest entry in each product.
    bound = 64 * float(query.abs().max()) / 127 / 254 / 2 * float((keys.float().abs().amax(1) * scale).max())
    found = _by_form("scores_int8", lambda forms: decode_scores_int8(query, keys, scale, forms))
    assert "blocks" in found
    for name, scores in {**found, "auto": decode_scores_int8(query, keys, scale)}.items():
        assert scores.dtype == torch.float32
        assert float((scores - exact).abs().max()) < bound, name
    nothing = decode_scores_int8(torch.zeros(64), keys, scale)
    assert torch.equal(nothing, torch.zeros(4500))


# ---- the choice among scores


@pytest.mark.parametrize("kind", ["distinct", "ties", "clustered", "all alike", "not a number"])
@pytest.mark.parametrize(("proximity", "k"), [(0, 40), (1, 64), (3, 200), (12, 500)])
def test_few_candidates_hold_the_best(kind, proximity, k, monkeypatch):
    generator = torch.Generator().manual_seed(proximity)
    own = torch.randn(9001, generator=generator)
    own = {
        "distinct": own,
        "ties": own.mul(4).round(),
        "clustered": own + 9 * torch.linspace(-1, 1, 9001).pow(9),  # the best stand at one border
        "all alike": torch.zeros(9001),
        "not a number": own.index_fill(0, torch.arange(0, 9001, 7), torch.nan),
    }[kind]
    chosen = select(own, proximity, k, {"select": "numpy"})
    if kind == "not a number":  # nonsense in, and out: only that it ends
        assert chosen.shape[0] <= k
        return
    assert torch.equal(chosen, select_topk(dilate(own, proximity), k, own))
    if kind == "distinct":
        monkeypatch.setattr(selection_cpu, "dilate", None)  # which only looking at all scores needs
        assert torch.equal(select(own, proximity, k), chosen)


@pytest.mark.parametrize("kind", ["distinct", "all alike", "not a number"])
def test_every_form_chooses_the_same(kind):
    own = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    own = torch.zeros_like(own) if kind == "all alike" else own
    if kind == "not a number":
        own[5] = torch.nan
    found = _by_form("select", lambda forms: select(own, 3, 500, forms))
    assert {"numpy", "plain"} <= set(found)
    due = select_topk(dilate(own, 3), 500, own)
    for name, chosen in {**found, "auto": select(own, 3, 500)}.items():
        if kind == "not a number":  # nonsense in, and out: only that it ends
            assert chosen.shape[0] <= 500, name
        else:
            assert torch.equal(chosen, due), name


# ---- attention of one token


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_attention_in_every_form(dtype):
    """Pieces that are not filled, several of near and of far tokens, heads in groups."""
    heads, kv_heads, dim, length = 6, 2, 64, 1300
    generator = torch.Generator().manual_seed(0)
    store = torch.randn(3000, 2, kv_heads, dim, generator=generator).to(dtype)
    queries = torch.randn(2, heads, 1, dim, generator=generator).to(dtype)
    keys, values = torch.randn(2, kv_heads, 1500, dim, generator=generator).to(dtype)[:, :, 100 : 100 + length]
    far = torch.randperm(3000, generator=generator)[:1200].sort().values
    scratch = lambda name, shape, dtype, device: torch.full(shape, torch.nan, dtype=dtype, device=device)

    def due(kind):
        every = []
        for query, k, v in ((queries[0], *store[far].permute(1, 2, 0, 3)), (queries[1], keys, values)):
            rows = query.view(kv_heads, -1, dim).to(kind)
            every.append((rows @ k.to(kind).transpose(1, 2) * 0.2, v.to(kind)))
        weights = torch.cat([scores for scores, _ in every], dim=2).softmax(dim=2)
        return (weights @ torch.cat([v for _, v in every], dim=1)).view(heads, 1, dim)

    arguments = (queries[0], store, far, queries[1], keys, values, 0.2, scratch)
    found = _by_form("attend", lambda forms: decode_cpu.attend_decode(*arguments, forms))
    assert set(found) == {"pieces", "flash"} | ({"native"} if dtype != torch.float16 else set())
    for name, out in {**found, "auto": decode_cpu.attend_decode(*arguments)}.items():
        assert_close_to_reference(out, due(dtype), due(torch.float64), what=name)
