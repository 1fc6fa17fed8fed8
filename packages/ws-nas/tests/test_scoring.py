"""Statistics re-estimated for each sub-network, and scores by three ways that agree."""

import pytest
import torch

from effkit.errors import UserError
from ws_nas.evaluation.prefixes import walk_prefixes
from ws_nas.evaluation.reference import reference_exact, reference_pooled, reference_score
from ws_nas.evaluation.scoring import score
from ws_nas.spaces.registry import get_space
from ws_nas.supernets.norm import Applying, BatchNorm, Collecting

SMALL = ["digits_chain", "nb201_tiny", "darts_tiny", "ofa_tiny"]


def _shape(space):
    return space.layout.in_channels, space.layout.resolution, space.layout.resolution


def _data(space, *counts, seed=0):
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *_shape(space), generator=source) for n in counts]


def _supernet(name, **options):
    space = get_space(name)
    torch.manual_seed(0)
    return space, space.supernet(**options)


@pytest.mark.parametrize("mode", ["exact", "batch"])
@pytest.mark.parametrize("name", SMALL)
def test_statistics_are_those_of_the_naive_way(name, mode):
    space, supernet = _supernet(name)
    supernet.double()
    batches = [x.double() for x in _data(space, 8, 8, 5)]
    genotype = space.sample(3)
    network = supernet.export(genotype)
    supernet.recalibrate_bn(batches, genotype, mode)
    (reference_exact if mode == "exact" else reference_pooled)(network, network, batches)
    found = supernet.export(genotype)
    for (key, value), other in zip(found.state_dict().items(), network.state_dict().values(), strict=True):
        if "running" in key:
            torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-10, msg=key)


def test_two_batches_with_means_0_and_2():
    """The variance of the means counts: 1 + 1 = 2, then N / (N - 1)."""
    layer = BatchNorm(1).double()
    base = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64).view(4, 1, 1, 1)
    with Collecting() as session:
        layer(base)
        layer(base + 2)
    mean, var = session.moments()[layer]
    assert mean.item() == pytest.approx(1.0, abs=1e-12)
    assert var.item() == pytest.approx(2.0 * 8 / 7, abs=1e-12)


def test_first_layer_is_the_same_in_both_modes_and_later_ones_are_not():
    space, supernet = _supernet("digits_chain")
    batches, genotype = _data(space, 8, 8), (1, 1, 1, 1)
    exact, pooled = (supernet.bn_statistics(batches, genotype, mode) for mode in ("exact", "batch"))
    layers = list(exact)
    torch.testing.assert_close(exact[layers[0]].mean, pooled[layers[0]].mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(exact[layers[0]].var, pooled[layers[0]].var, rtol=1e-6, atol=1e-7)
    assert any(not torch.allclose(exact[x].mean, pooled[x].mean, rtol=1e-3) for x in layers[2:])


def test_exact_statistics_know_no_batches_and_no_order():
    space, supernet = _supernet("nb201_tiny")
    (pictures,) = _data(space, 24)
    genotype = space.parse("333333")
    first = supernet.bn_statistics(pictures.split(24), genotype)
    shuffled = pictures[torch.randperm(24, generator=torch.Generator().manual_seed(1))]
    for batches, tolerance in ((pictures.split(5), 0.0), (shuffled.split(7), 1e-5)):
        other = supernet.bn_statistics(batches, genotype)
        for layer, moments in first.items():
            torch.testing.assert_close(moments.mean, other[layer].mean, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(moments.var, other[layer].var, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", ["exact", "batch"])
def test_statistics_are_independent_of_what_was_before(mode):
    space, supernet = _supernet("digits_chain")
    batches, (a, b) = _data(space, 8, 8), space.sample_many(2, 5)
    first = {k: (m.clone(), v.clone()) for k, (m, v) in supernet.recalibrate_bn(batches, a, mode).items()}
    for module in supernet.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.fill_(7.0)
            module.running_var.fill_(9.0)
    supernet.recalibrate_bn([x + 3 for x in batches], b, mode)
    again = supernet.recalibrate_bn(batches, a, mode)
    assert all(torch.equal(again[k].mean, m) and torch.equal(again[k].var, v) for k, (m, v) in first.items())
    off = {m for m in supernet.modules() if isinstance(m, BatchNorm)} - set(again)
    assert any(bool((layer.running_mean == 7).all()) for layer in off)  # layers off both paths stay


def test_estimating_changes_nothing_unless_asked():
    space, supernet = _supernet("digits_chain")
    supernet.train()
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    batches = _data(space, 8)
    supernet.bn_statistics(batches, (1, 2, 0, 1))
    score(supernet, [(1, 2, 0, 1)], [(batches[0], torch.zeros(8, dtype=torch.long))], batches)
    assert supernet.training
    assert all(torch.equal(value, before[key]) for key, value in supernet.state_dict().items())


def test_applied_statistics_are_those_of_eval():
    space, supernet = _supernet("ofa_tiny")
    batches, genotype = _data(space, 8, 8), space.sample(1)
    moments = supernet.bn_statistics(batches, genotype)
    supernet.eval()
    with torch.no_grad(), supernet.with_statistics(moments):
        given = supernet(batches[0], genotype)
    supernet.recalibrate_bn(batches, genotype)
    with torch.no_grad():
        assert torch.equal(given, supernet(batches[0], genotype))


@pytest.mark.parametrize(("name", "methods"), [
    ("digits_chain", ["batched", "prefix", "auto"]), ("nb201_tiny", ["batched", "auto"]),
    ("ofa_tiny", ["prefix", "auto"]), ("darts_tiny", ["auto"]),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["exact", "batch", None])
def test_all_ways_give_the_same_scores(name, methods, mode):
    space, supernet = _supernet(name)
    x1, x2, c1, c2 = _data(space, 12, 7, 16, 9)
    batches = [(x1, torch.arange(12) % 10), (x2, torch.arange(7) % 10)]
    calibration = None if mode is None else [c1, c2]
    genotypes = space.sample_many(12, 0)
    how = {"mode": mode or "exact"}
    loop = score(supernet, genotypes, batches, calibration, method="loop", **how)
    for method in methods:
        for at_once in (None, 1, 5) if method == "batched" else (None,):
            found = score(supernet, genotypes, batches, calibration, method=method, paths_at_once=at_once, **how)
            torch.testing.assert_close(found.loss, loop.loss, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(found.accuracy, loop.accuracy, rtol=0, atol=0)
    shuffled = genotypes[::-1]
    again = score(supernet, shuffled, batches, calibration, **how)
    torch.testing.assert_close(again.loss.flip(0), loop.loss, rtol=1e-5, atol=1e-5)


def test_scores_are_those_of_the_exported_network():
    space, supernet = _supernet("digits_chain")
    x, c = _data(space, 20, 30)
    labels = torch.arange(20) % 10
    genotypes = space.sample_many(3, 0)
    found = score(supernet, genotypes, [(x, labels)], [c])
    for i, genotype in enumerate(genotypes):
        network = supernet.export(genotype)
        reference_exact(network, network, [c])
        accuracy, loss = reference_score(network, [(x, labels)])
        assert float(found.accuracy[i]) == accuracy
        assert float(found.loss[i]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("stacked_bytes", [0, 1 << 30])
def test_prefixes_run_once(stacked_bytes):
    """81 chains of four layers: pictures pass 3 + 9 + 27 + 81 layers instead of 4 x 81, in whichever order."""
    space, supernet = _supernet("digits_chain")
    x, c = _data(space, 4, 4)
    pictures = {"layers": 0, "stem": 0}
    calls = []

    def count(key):
        def hook(module, args, output):
            pictures[key] += len(output)
            calls.append(key)

        return hook

    for options in supernet.layers:
        for option in options:
            option.register_forward_hook(count("layers"))
    supernet.stem.register_forward_hook(count("stem"))
    ends: list[int] = []

    def arrived(paths, logits):
        assert logits[0].shape == (len(paths), 4, 10)
        ends.extend(i for some in paths for i in some)

    supernet.eval()
    with torch.no_grad():
        walk_prefixes([supernet.chain(g) for g in space], [c], [x], arrived, stacked_bytes)
    assert pictures == {"layers": 4 * 2 * (3 + 9 + 27 + 81), "stem": 4 * 2}
    assert calls.count("layers") == 2 * (3 + 9 + 27 + 81 if stacked_bytes == 0 else 4 * 3)
    assert sorted(ends) == list(range(81))


def test_each_operation_runs_once_for_all_paths():
    space, supernet = _supernet("nb201_tiny")
    x, c = _data(space, 4, 4)
    calls = []
    for cell in supernet.cells:
        for edge in cell:
            for operation in edge.values():
                operation.register_forward_hook(lambda *_: calls.append(1))
    score(supernet, space.sample_many(40, 0), [(x, torch.zeros(4, dtype=torch.long))], [c], method="batched",
          paths_at_once=40)  # fmt: skip
    assert len(calls) <= 2 * 2 * 6 * len(supernet.cells)


def test_bad_input_is_one_line():
    space, supernet = _supernet("digits_chain")
    x, genotype = _data(space, 4)[0], (0, 1, 2, 0)
    batches = [(x, torch.zeros(4, dtype=torch.long))]
    with pytest.raises(UserError, match="batches is empty"):
        supernet.recalibrate_bn([], genotype)
    with pytest.raises(UserError, match="calibration is empty"):
        score(supernet, [genotype], batches, [])
    with pytest.raises(UserError, match="batches is empty"):
        score(supernet, [genotype], [])
    with pytest.raises(UserError, match="mode='exakt'"):
        supernet.recalibrate_bn([x], genotype, "exakt")
    with pytest.raises(UserError, match="method='fast'"):
        score(supernet, [genotype], batches, method="fast")
    with pytest.raises(UserError, match="none of this supernet's space digits_chain"):
        score(supernet, [(0, 1)], batches)
    with pytest.raises(UserError, match="needs a chain"):
        score(_supernet("nb201_tiny")[1], [(0,) * 6], batches, method="prefix")
    with pytest.raises(UserError, match="no batched forward"):
        score(_supernet("ofa_tiny")[1], [get_space("ofa_tiny").sample(0)], batches, method="batched")
    with pytest.raises(UserError, match="track_running_stats=false"):
        space.supernet(track_running_stats=False).recalibrate_bn([x], genotype)
    with pytest.raises(UserError, match="at least 2 pictures"), Collecting():
        BatchNorm(3)(torch.zeros(1, 3, 1, 1))
    with pytest.raises(UserError, match="no statistics"), Applying({}):
        BatchNorm(3)(torch.zeros(2, 3, 1, 1))
    with torch.no_grad():
        supernet.head.classifier.bias.fill_(float("nan"))
    with pytest.raises(UserError, match=r"genotype=\(0, 1, 2, 0\) has a loss of nan"):
        score(supernet, [genotype], batches)


def test_nothing_to_score_is_no_score():
    _, supernet = _supernet("digits_chain")
    found = score(supernet, [], [(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.long))])
    assert found.accuracy.shape == found.loss.shape == (0,)


@pytest.mark.gpu
def test_on_a_gpu_all_ways_give_the_same_scores():
    for name in ("digits_chain", "nb201_tiny"):
        space, supernet = _supernet(name)
        supernet.cuda()
        x, c = (part.cuda() for part in _data(space, 12, 16))
        batches = [(x, torch.arange(12, device="cuda") % 10)]
        genotypes = space.sample_many(12, 0)
        loop = score(supernet, genotypes, batches, [c], method="loop")
        for method in ("batched", "auto"):
            found = score(supernet, genotypes, batches, [c], method=method)
            torch.testing.assert_close(found.loss, loop.loss, rtol=1e-4, atol=1e-4)
