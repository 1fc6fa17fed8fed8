"""Decoding steps that are replayed, with a stand-in for CUDA graphs that records and replays the list of operators."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from effkit.errors import UserError
from esa_attention.attention.cache.fixed import FixedState
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.engine.step_fixed import attend_fixed, decode_step
from esa_attention.attention.rope import RopeTables
from esa_attention.calibration.calibrate import calibrate
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.integration.apply import apply_esa
from esa_attention.integration.cache_argument import cache_argument

FEW = ESAConfig(num_initial=3, num_selected=7, num_local=10, chunk_size=6, proximity=1, dense_until=0)
WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Recording(TorchDispatchMode):
    """Every operator below autograd, with the tensors it was given and gave."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not WAITS & set(func.tags), f"{func} waits for the device, which cannot be recorded"
        assert func is not torch.ops.aten.lift_fresh.default, "a tensor of the host's values cannot be recorded"
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class RecordedGraph:
    """A CUDA graph as far as a CPU can have one: the same operators, on the same memory, and nothing of Python."""

    def capture(self, run):
        with Recording() as recording:
            out = run()
        self.calls, self.fresh = recording.calls, True
        return out

    def replay(self):
        if self.fresh:  # a CUDA graph does nothing while it is recorded
            self.fresh = False
            return
        for func, args, kwargs, out in self.calls:
            new = func(*args, **kwargs)
            for held, fresh in zip(tree_leaves(out), tree_leaves(new), strict=True):
                if isinstance(held, torch.Tensor) and held.data_ptr() != fresh.data_ptr():
                    held.copy_(fresh)


# ---- the operator


def _randn(*size, seed=0, dtype=torch.float64):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _maps(kind):
    if kind == "exact":
        return QKCompressor.exact(2, 16)
    if kind == "folded":
        return QKCompressor(2, 16, _randn(8, 32), _randn(8, 32, seed=1))
    return QKCompressor(2, 16, _randn(8, 64), _randn(8, 32, seed=1), _randn(8), _randn(8, seed=1))


@pytest.mark.parametrize("index_dtype", ["auto", "int8"])
@pytest.mark.parametrize("kind", ["exact", "folded", "all_heads"])
def test_a_step_of_fixed_shape_is_the_step(kind, index_dtype):
    config = FEW.replace(index_dtype=index_dtype)
    q, k, v = _randn(2, 4, 45, 16), _randn(2, 2, 45, 16, seed=1), _randn(2, 2, 45, 16, seed=2)
    starts, state = [0, 9], FixedState(2, q.device)

    def layer():
        made = ESALayer(config, _maps(kind), RopeTables.standard(16), reserve=64)
        made.update(k[:, :, :18], v[:, :, :18])
        made.store.data[:, 18:] = torch.nan  # what nobody has written may be anything
        return made

    plain, fixed = layer(), layer()
    for t in range(18, 30):  # more is chosen from than is selected after the third
        new = [x[:, :, t : t + 1] for x in (q, k, v)]
        plain.update(*new[1:])
        expected = attend_layer(plain, new[0], 0.25, [min(s, t + 1) for s in starts])
        state.agree(t, starts)
        state.length.add_(1)
        state.advance()
        out = attend_fixed(fixed, *new, 0.25, state)
        fixed.advance(1)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-7)
    assert torch.equal(plain.store.rows, fixed.store.rows)
    if plain.index is not None:
        assert torch.equal(plain.index.keys.rows, fixed.index.keys.rows)


def test_the_operator_is_what_torch_expects_of_one():
    kv, index = _randn(1, 64, 2, 2, 16, dtype=torch.float32), _randn(1, 64, 8, dtype=torch.float32)
    maps = [_randn(8, 32, seed=i, dtype=torch.float32) for i in range(2)]
    tables = RopeTables.standard(16).tables(11, kv.device)
    tensors = [_randn(1, heads, 1, 16, seed=heads, dtype=torch.float32) for heads in (4, 2, 2)]
    begin, length = torch.zeros(1, dtype=torch.int64), torch.full((1,), 40)
    arguments = (*tensors, kv, index, None, *maps, None, None, begin, length, *(t[:, :8].contiguous() for t in tables))
    rest = (3, 7, 10, 1, 10, 1.0, 0.25, False)
    torch.library.opcheck(decode_step, (*arguments, *rest), test_utils=("test_schema", "test_faketensor"))


# ---- a model


def _generated(model, ids, config, maps=None, graph=None, reserve=256, **options):
    with apply_esa(model, config, maps, verify=False) as handle:
        if graph is not None:
            handle.replay(graph)
        cache = {cache_argument(model): handle.new_cache(reserve=reserve)}
        out = model.generate(ids, do_sample=False, **cache, **options)
    return out, handle.graphs


def _same(model, ids, config, maps=None, **options):
    """The tokens alone: equal tokens have equal keys, and which of two such is chosen is left to rounding."""
    tokens, _ = _generated(model, ids, config, maps, **options)
    ours, graphs = _generated(model, ids, config, maps, RecordedGraph, **options)
    assert torch.equal(ours, tokens)
    return graphs


@pytest.mark.parametrize("selection", ["paper", "strict_causal"])
def test_generation_by_replaying_gives_the_same_tokens(tiny, tokens, selection):
    model, ids = tiny(), tokens(2, 40)
    mask = torch.ones_like(ids)
    mask[1, :11] = 0
    maps = calibrate(model, tokens(1, 100, seed=5)[0], rank=8, far_position=FEW.w)
    graphs = _same(model, ids, FEW.replace(selection=selection), maps, attention_mask=mask, max_new_tokens=14)
    assert (graphs.captures, graphs.replays) == (1, 11)  # the first tokens: the prompt's, plain, and one to warm up


def test_growing_past_the_reserve_is_recorded_anew(tiny, tokens):
    graphs = _same(tiny(), tokens(1, 60), FEW, max_new_tokens=14, reserve=66)
    assert graphs.captures == 2
    assert graphs.replays < 11


def test_short_sequences_are_dense_and_then_replayed(tiny, tokens):
    graphs = _same(tiny(), tokens(1, 30), FEW.replace(dense_until=36), max_new_tokens=12)
    assert graphs.captures == 1
    assert graphs.replays == 3


def test_beams_and_baselines_are_computed_as_without(tiny, tokens):
    model, ids = tiny(), tokens(1, 30)
    assert _same(model, ids, FEW, max_new_tokens=6, num_beams=3).replays == 0
    assert _same(model, ids, FEW.replace(method="sinks_local"), max_new_tokens=6).captures == 0


def test_a_cache_is_cropped_and_the_model_changed_between_replays(tiny, tokens):
    model, ids = tiny(), tokens(1, 60)
    name = cache_argument(model)

    def read(graph):
        found = []
        with torch.no_grad(), apply_esa(model, FEW) as handle:
            if graph:
                handle.replay(graph)
            cache = handle.new_cache(reserve=128)
            model(ids[:, :40], **{name: cache})
            found += [model(ids[:, t : t + 1], **{name: cache}).logits for t in range(40, 50)]
            cache.crop(-7)
            found += [model(ids[:, t : t + 1], **{name: cache}).logits for t in range(43, 50)]
            seen = []
            with handle.watch(lambda *what: seen.append(what)):
                found.append(model(ids[:, 50:51], **{name: cache}).logits)
            assert seen
            hook = model.model.layers[0].mlp.register_forward_hook(lambda module, given, out: 0.5 * out)
            found += [model(ids[:, t : t + 1], **{name: cache}).logits for t in range(51, 56)]
            hook.remove()
            cache.reconfigure(num_selected=4)
            found += [model(ids[:, t : t + 1], **{name: cache}).logits for t in range(56, 60)]
            return torch.cat(found), handle.graphs

    expected, _ = read(None)
    ours, graphs = read(RecordedGraph)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert graphs.captures == 3
    assert "forward" not in model.model.__dict__  # given back


def test_graphs_need_a_gpu(tiny):
    with pytest.raises(UserError, match="cuda_graphs=True needs a model on one CUDA device, this one is on cpu"):
        apply_esa(tiny(), FEW, cuda_graphs=True)


# ---- compiled whole


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_model_decodes_in_one_graph(tiny, tokens, backend):
    model, ids = tiny(dtype=torch.float64), tokens(2, 60)
    name, starts = cache_argument(model), [0, 5]
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    options = {"fullgraph": True, "backend": backend}
    with torch.no_grad(), apply_esa(model, FEW, verify=False) as handle:
        plain, whole = handle.new_cache(reserve=64), handle.new_cache(reserve=64)
        for cache in (plain, whole):
            model(ids[:, :40], attention_mask=mask[:, :40], **{name: cache})
        parts = [(ids[:, t : t + 1], mask[:, : t + 1]) for t in range(40, 48)]
        expected = [model(part, attention_mask=seen, **{name: plain}).logits for part, seen in parts]
        compiled = torch.compile(model, **options)
        with handle.decoding(whole, starts):
            ours = [compiled(part, **{name: whole}).logits for part, _ in parts]
        # Llama's norms compute in float32 whatever the model, and inductor sums them in another order.
        bound = 1e-11 if backend == "eager" else 1e-5
        torch.testing.assert_close(torch.cat(ours), torch.cat(expected), rtol=0, atol=bound)
        assert whole.get_seq_length() == 48
        after = [model(ids[:, 48:49], attention_mask=mask[:, :49], **{name: cache}).logits for cache in (plain, whole)]
        torch.testing.assert_close(*after, rtol=0, atol=bound)


def test_what_cannot_be_decoded_in_fixed_steps_is_refused(tiny, tokens):
    model, ids = tiny(), tokens(1, 60)
    name = cache_argument(model)
    with torch.no_grad(), apply_esa(model, FEW, verify=False) as handle:
        with pytest.raises(UserError, match="cache is empty"), handle.decoding(handle.new_cache()):
            pass
        cache = handle.new_cache()
        model(ids, **{name: cache})
        cache.reconfigure(dense_until=60)
        with handle.decoding(cache):  # the next token is the 61st
            with pytest.raises(UserError, match="compiled with fullgraph=True alone"):
                model(ids[:, :1], **{name: cache})
            with pytest.raises(Exception, match="every call is given that cache"):
                torch.compile(model, fullgraph=True, backend="eager")(ids[:, :1])
        assert cache.get_seq_length() == 60
        for changes, words in (({"dense_until": 61}, "dense_until=61"), ({"selection": "reuse"}, "'reuse'")):
            cache.reconfigure(**changes)
            with pytest.raises(UserError, match=words), handle.decoding(cache):
                pass


@pytest.mark.gpu
def test_a_cuda_graph_gives_the_same_tokens(tiny, tokens):
    model, ids = tiny(dtype=torch.float32).cuda(), tokens(2, 40).cuda()
    mask = torch.ones_like(ids)
    mask[1, :11] = 0
    maps = calibrate(model, tokens(1, 100, seed=5)[0], rank=8, far_position=FEW.w)
    options = {"attention_mask": mask, "max_new_tokens": 24, "do_sample": False}
    with apply_esa(model, FEW, maps) as handle:
        expected = model.generate(ids, **options)
    with apply_esa(model, FEW, maps, cuda_graphs=True) as handle:
        out = model.generate(ids, **options)
        assert handle.graphs.replays > 10
    assert torch.equal(out, expected)
