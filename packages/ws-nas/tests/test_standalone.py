"""Stand-alone trainings: many at once end where one after another do; data in three parts; values out of range."""

import pytest
import torch

from effkit.errors import UserError
from ws_nas.evaluation.splits import Splits, digits_splits
from ws_nas.evaluation.standalone import Recipe, _cut_out, train_standalone
from ws_nas.ops.stacked import out_side, stacked_conv, stacked_norm
from ws_nas.spaces.registry import get_space

CHAIN = get_space("digits_chain")
GENOTYPES = [CHAIN.parse(text) for text in ("0000", "1212", "2021")]


@pytest.fixture(scope="module")
def few():
    """A part of the digits, in float64 so that rounding stays small."""
    train, val, test = digits_splits()
    return Splits(*((x[:n].double(), y[:n]) for (x, y), n in ((train, 128), (val, 64), (test, 64))))


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize(("side", "kernel", "stride", "groups"), [
    (8, 1, 1, 1), (8, 1, 2, 1), (8, 3, 1, 6), (8, 5, 2, 6), (4, 5, 1, 6), (2, 3, 2, 6), (5, 3, 2, 6), (8, 3, 1, 1),
    (12, 5, 2, 6), (12, 3, 1, 1),
])  # fmt: skip
def test_stacked_convolutions_are_those_of_each_network(side, kernel, stride, groups):
    source = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 6, side, side, generator=source, dtype=torch.float64)  # 3 networks, 2 pictures
    target = 6 if groups == 6 else 5
    weight = torch.randn(3, target, 6 // groups, kernel, kernel, generator=source, dtype=torch.float64)
    expected = torch.stack([
        torch.nn.functional.conv2d(x[k], weight[k], None, stride, kernel // 2, 1, groups) for k in range(3)
    ])  # fmt: skip
    found = stacked_conv(x.flatten(3).transpose(1, 2).contiguous(), weight, side, stride, groups)
    after = out_side(side, stride)
    torch.testing.assert_close(found.transpose(1, 2).unflatten(3, (after, after)), expected)


def test_stacked_norms_are_those_of_each_network():
    torch.manual_seed(0)
    x, norms = torch.randn(3, 4, 5, 9), [torch.nn.BatchNorm2d(4) for _ in range(3)]
    for norm in norms:
        norm.weight.data.uniform_(0.5, 2)
    weight, bias = torch.stack([n.weight for n in norms]), torch.stack([n.bias for n in norms])
    mean, var = torch.zeros(3, 4), torch.ones(3, 4)
    for training in (True, False):
        found = stacked_norm(x, mean, var, weight, bias, training=training, momentum=0.1, eps=1e-5)
        for k, norm in enumerate(norms):
            norm.train(training)
            expected = norm(x[k].transpose(0, 1).unflatten(2, (3, 3)))
            torch.testing.assert_close(found[k].transpose(0, 1).unflatten(2, (3, 3)), expected)
            torch.testing.assert_close(mean[k], norm.running_mean)
            torch.testing.assert_close(var[k], norm.running_var)


def test_at_once_is_one_after_another(few, double):
    """Every weight and statistic after an epoch, whatever was trained beside it."""
    recipe = Recipe(epochs=1, batch_size=32)
    one, many, pairs = (
        train_standalone(CHAIN, GENOTYPES, [0, 1], few, recipe, method=method, at_once=at_once, keep=True)
        for method, at_once in (("sequential", 1), ("stacked", 6), ("stacked", 4))
    )
    for found in (many, pairs):
        torch.testing.assert_close(found.val_loss, one.val_loss, rtol=1e-9, atol=1e-10)
        assert torch.equal(found.test_accuracy, one.test_accuracy)
        for row, expected in zip(found.networks, one.networks, strict=True):
            for network, other in zip(row, expected, strict=True):
                for key, value in network.state_dict().items():
                    torch.testing.assert_close(value, other.state_dict()[key], rtol=1e-8, atol=1e-9)
    assert not torch.equal(one.val_loss[:, 0], one.val_loss[:, 1])  # seeds differ


def test_in_float32_too(few):
    data = Splits(*((x.float(), y) for x, y in few))
    recipe = Recipe(epochs=1, batch_size=32, lr=0.01)
    one, many = (train_standalone(CHAIN, GENOTYPES, [0], data, recipe, method=m) for m in ("sequential", "stacked"))
    torch.testing.assert_close(many.val_loss, one.val_loss, rtol=1e-4, atol=1e-4)


def test_a_chain_learns(few):
    data = Splits(*((x.float(), y) for x, y in few))
    found = train_standalone(CHAIN, [CHAIN.parse("1111")], [0], data, Recipe(epochs=12, batch_size=16))
    assert float(found.test_accuracy) > 0.6  # chance is 0.1


def test_other_spaces_one_after_another(few):
    data = Splits(*((x[:40].float(), y[:40]) for x, y in few))
    space = get_space("nb201_tiny")
    found = train_standalone(space, space.sample_many(2, 0), [0], data, Recipe(epochs=1, batch_size=20))
    assert found.val_loss.shape == (2, 1)
    with pytest.raises(UserError, match="method=stacked"):
        train_standalone(space, space.sample_many(2, 0), [0], data, Recipe(batch_size=20), method="stacked")


def test_evaluation_stage_of_cells():
    """Auxiliary head, drop-path and cutout, of training only; the same seed ends at the same figures."""
    source = torch.Generator().manual_seed(0)
    part = (torch.randn(8, 3, 32, 32, generator=source), torch.arange(8) % 10)
    data, space = Splits(part, part, part), get_space("darts", channels=2, layers=3, auxiliary=True)
    recipe = Recipe(epochs=2, batch_size=4, lr=0.01, auxiliary=0.4, drop_path=0.5, cutout=16)
    found, again, plain = (
        train_standalone(space, [space.named["DARTS_V2"]], [0], data, how, keep=True)
        for how in (recipe, recipe, Recipe(epochs=2, batch_size=4, lr=0.01))
    )
    assert torch.equal(found.val_loss, again.val_loss)
    assert not torch.equal(found.val_loss, plain.val_loss)
    head, untrained = found.networks[0][0].auxiliary, plain.networks[0][0].auxiliary
    assert not torch.equal(head.classifier.weight, untrained.classifier.weight)


def test_cutout_is_a_square_inside_the_picture():
    ones = torch.ones(2, 50, 1, 8, 8)
    sources = {3: torch.Generator().manual_seed(3)}
    cut = _cut_out(ones, 4, sources, [3, 3])
    assert torch.equal(cut[0], cut[1])
    holes = (cut[0, :, 0] == 0).sum((1, 2))
    assert int(holes.max()) == 16
    assert int(holes.min()) >= 4  # around a corner
    for picture in cut[0, :, 0]:
        rows, columns = (picture == 0).any(1).sum(), (picture == 0).any(0).sum()
        assert int(rows * columns) == int((picture == 0).sum())


def test_cutout_at_once_is_one_after_another(few, double):
    recipe = Recipe(epochs=1, batch_size=64, cutout=3)
    one, many = (train_standalone(CHAIN, GENOTYPES, [0, 1], few, recipe, method=m) for m in ("sequential", "stacked"))
    torch.testing.assert_close(many.val_loss, one.val_loss, rtol=1e-9, atol=1e-10)


def test_parts_of_the_digits_are_disjoint_and_hold_all_classes():
    parts = digits_splits()
    assert [len(y) for _, y in parts] == [899, 449, 449]
    assert all(len(y.unique()) == 10 for _, y in parts)
    rows = torch.cat([x.flatten(1) for x, _ in parts])
    assert len(rows.unique(dim=0)) == len(rows) == 1797
    assert torch.equal(digits_splits().val[0], parts.val[0])
    assert not torch.equal(digits_splits(1).val[1], parts.val[1])


def test_bad_input_is_one_line(few):
    data = Splits(*((x.float(), y) for x, y in few))
    for values, words in (
        ({"epochs": 0}, "recipe.epochs=0"),
        ({"lr": float("nan")}, "recipe.lr=nan"),
        ({"momentum": 1.0}, "recipe.momentum=1.0"),
        ({"drop_path": 1.0}, "recipe.drop_path=1.0"),
        ({"cutout": -1}, "recipe.cutout=-1"),
        ({"batch_size": True}, "recipe.batch_size=True"),
    ):
        with pytest.raises(UserError, match=words):
            Recipe(**values)
    with pytest.raises(UserError, match="none of space=digits_chain"):
        train_standalone(CHAIN, [(0, 0)], [0], data)
    with pytest.raises(UserError, match="batch_size=4096 is more than the 128"):
        train_standalone(CHAIN, GENOTYPES, [0], data, Recipe(batch_size=4096))
    with pytest.raises(UserError, match=r"recipe\.drop_path=0\.1 is of cells of DARTS"):
        train_standalone(CHAIN, GENOTYPES, [0], data, Recipe(drop_path=0.1))
    with pytest.raises(UserError, match=r"recipe\.auxiliary=0\.4 needs an auxiliary head"):
        train_standalone(CHAIN, GENOTYPES, [0], data, Recipe(auxiliary=0.4))
    with pytest.raises(UserError, match="must not be empty"):
        train_standalone(CHAIN, [], [0], data)
    wild = Splits(*((x * float("inf"), y) for x, y in data))
    with pytest.raises(UserError, match="genotype=1212 with seed 0 diverged"):
        train_standalone(CHAIN, [GENOTYPES[1]], [0], wild, Recipe(epochs=1, batch_size=32))
