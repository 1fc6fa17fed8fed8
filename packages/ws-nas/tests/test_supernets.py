"""Super-networks: inherited weights to the bit, paths of their own in every thread, gradients where a path ran."""

import threading

import pytest
import torch

from effkit.errors import UserError
from ws_nas.evaluation.exporting import export_files
from ws_nas.spaces.registry import get_space

SMALL = ["digits_chain", "nb201_tiny", "darts_tiny", "ofa_tiny"]


@pytest.fixture(scope="module", params=SMALL)
def trained(request):
    """A space, and a supernet whose statistics are not those of the start."""
    space = get_space(request.param)
    torch.manual_seed(0)
    supernet = space.supernet()
    with torch.no_grad():
        for genotype in space.sample_many(6, 0):
            supernet(torch.randn(8, *_shape(space)), genotype)
        for parameter in supernet.parameters():  # also away from identity matrices
            parameter.add_(0.02 * torch.randn_like(parameter))
    return space, supernet.eval()


def _shape(space):
    return space.layout.in_channels, space.layout.resolution, space.layout.resolution


def _pictures(space, count=3, seed=1):
    return torch.randn(count, *_shape(space), generator=torch.Generator().manual_seed(seed))


def test_exported_networks_are_the_paths_bit_for_bit(trained):
    space, supernet = trained
    x = _pictures(space)
    with torch.no_grad():
        for genotype in space.sample_many(20, 7):
            network = supernet.export(genotype)
            assert not network.training
            assert torch.equal(network(x), supernet(x, genotype)), space.str(genotype)
            assert sum(p.numel() for p in network.parameters()) <= sum(p.numel() for p in supernet.parameters())


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("name", SMALL)
def test_export_with_other_norms(name, options):
    space = get_space(name)
    torch.manual_seed(0)
    supernet = space.supernet(**options).eval()
    x = _pictures(space)
    with torch.no_grad():
        for genotype in space.sample_many(3, 0):
            assert torch.equal(supernet.export(genotype)(x), supernet(x, genotype))


def test_export_shares_no_memory(trained):
    space, supernet = trained
    x, genotype = _pictures(space), space.sample(0)
    network = supernet.export(genotype)
    before = supernet(x, genotype)
    for parameter in network.parameters():
        parameter.data.zero_()
    assert torch.equal(supernet(x, genotype), before)


def test_gradients_are_of_the_path_alone(trained):
    space, supernet = trained
    genotype = space.sample(2)
    supernet.zero_grad(set_to_none=True)
    supernet(_pictures(space), genotype).sum().backward()
    used = {id(p) for p in supernet.active_parameters(genotype)}
    for name, parameter in supernet.named_parameters():
        if id(parameter) not in used:
            assert parameter.grad is None, name
    assert any(p.grad is not None and bool(p.grad.any()) for p in supernet.active_parameters(genotype))
    assert len(used) == len(supernet.active_parameters(genotype))


def test_paths_of_threads_do_not_meet(trained):
    space, supernet = trained
    x = _pictures(space)
    genotypes = space.sample_many(2, 3)
    with torch.no_grad():
        expected = [supernet(x, g) for g in genotypes]
    barrier, found = threading.Barrier(2), [None, None]

    def work(number):
        with torch.no_grad(), supernet.set_active(genotypes[number]):
            barrier.wait()
            found[number] = supernet(x)
            barrier.wait()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_active_paths_nest(trained):
    space, supernet = trained
    a, b = space.sample_many(2, 3)
    with supernet.set_active(a):
        with supernet.set_active(b):
            assert supernet.active() == b
        assert supernet.active() == a
    with pytest.raises(UserError, match="genotype is not set"):
        supernet(_pictures(space))


def test_genotypes_of_other_spaces_are_refused(trained):
    space, supernet = trained
    for wrong in ((0,), tuple(space.choices), (-1,) * len(space.choices)):
        with pytest.raises(UserError, match=space.name):
            supernet(_pictures(space), wrong)


def test_many_paths_at_once_train_as_one_after_another():
    """Outputs and gradients, each path normalised by its own batch."""
    for name in ("digits_chain", "nb201_tiny"):
        space = get_space(name)
        torch.manual_seed(0)
        supernet = space.supernet(track_running_stats=False).double().train()
        x, genotypes = _pictures(space, 6).double(), space.sample_many(5, 0)
        loop = torch.stack([supernet(x, g) for g in genotypes])
        loop.square().sum().backward()
        expected = {n: p.grad.clone() for n, p in supernet.named_parameters() if p.grad is not None}
        supernet.zero_grad(set_to_none=True)
        many = supernet.run_many(x, genotypes)
        many.square().sum().backward()
        torch.testing.assert_close(many, loop)
        found = {n: p.grad for n, p in supernet.named_parameters() if p.grad is not None}
        assert found.keys() == expected.keys()
        for key, grad in found.items():
            torch.testing.assert_close(grad, expected[key], rtol=1e-6, atol=1e-8)


def test_smaller_kernels_are_centres_at_the_start():
    space = get_space("ofa_tiny")
    torch.manual_seed(0)
    block = space.supernet().stages[0][0]
    large = block.filter.weight
    small = block.filter.kernel_weight(3, large.shape[0], large.shape[0])
    assert torch.equal(small, large[:, :, 1:4, 1:4])
    with torch.no_grad():
        block.filter.matrices["5to3"].mul_(2)
    torch.testing.assert_close(block.filter.kernel_weight(3, 4, 4), 2 * large[:4, :, 1:4, 1:4])
    assert torch.equal(block.filter.kernel_weight(5, 4, 4), large[:4])


def test_kernels_go_down_one_size_at_a_time():
    from ws_nas.supernets.elastic import ElasticConv2d

    torch.manual_seed(0)
    conv = ElasticConv2d(2, 2, [3, 5, 7], depthwise=True)
    with torch.no_grad():
        conv.matrices["7to5"].copy_(3 * torch.eye(25))
        conv.matrices["5to3"].copy_(5 * torch.eye(9))
    torch.testing.assert_close(conv.kernel_weight(5, 2, 2), 3 * conv.weight[:, :, 1:6, 1:6])
    torch.testing.assert_close(conv.kernel_weight(3, 2, 2), 15 * conv.weight[:, :, 2:5, 2:5])


def test_sorted_channels_change_the_largest_network_by_nothing():
    space = get_space("ofa_tiny")
    torch.manual_seed(0)
    supernet = space.supernet().eval()
    for module in supernet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 2)
            module.running_var.uniform_(0.5, 2)
    x, largest, smallest = _pictures(space), space.named["max"], space.parse("k5e2-k5e2_k5e2-k5e2")
    with torch.no_grad():
        before, small = supernet(x, largest), supernet(x, smallest)
        supernet.sort_channels()
        torch.testing.assert_close(supernet(x, largest), before, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(supernet(x, smallest), small, rtol=0, atol=1e-6)
    block = supernet.stages[1][0]
    importance = block.project.weight.abs().sum((0, 2, 3))
    assert torch.equal(importance, importance.sort(descending=True).values)


def test_in_place_operations_do_not_reach_siblings():
    """What an edge does to its input must not be seen by the next one."""
    space = get_space("nb201_tiny")
    supernet = space.supernet().eval()
    x = _pictures(space)
    kept = x.clone()
    supernet(x, space.parse("333333"))
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", SMALL)
def test_exported_files_need_only_torch(name, tmp_path):
    space = get_space(name)
    torch.manual_seed(0)
    network = space.supernet().export(space.sample(1)).eval()
    source, weights = export_files(network, space.layout, tmp_path / "found.py", "A network.")
    text = source.read_text()
    assert [line for line in text.splitlines() if line.startswith(("import", "from"))] == [
        "import operator", "from pathlib import Path", "import torch", "from torch import nn",
        "from torch.nn import functional",
    ]  # fmt: skip
    loaded = {"__file__": str(source)}
    exec(compile(text, str(source), "exec"), loaded)
    x = _pictures(space, 5)
    with torch.no_grad():
        assert torch.equal(loaded["load"]()(x), network(x))
    assert weights.suffix == ".pt"


def test_auxiliary_head_and_drop_path_are_of_training_only():
    space = get_space("darts", channels=4, layers=3, auxiliary=True)
    torch.manual_seed(0)
    network = space.build(space.named["DARTS_V2"])
    x = torch.randn(2, 3, 32, 32)
    logits, second = network.with_auxiliary(x)
    assert logits.shape == second.shape == (2, 10)
    network.eval()
    assert network.with_auxiliary(x)[1] is None
    still = network(x)
    network.set_drop_path(0.9)
    assert torch.equal(network(x), still)
    network.train()
    assert not torch.equal(network(x), network(x))
