"""Blocks of types that nobody registered: proven with numbers and augmented around their own forward, or refused."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest
import timm
import torch
from timm.models.vision_transformer import Block
from torch import nn

import effkit.notes
from augshortcut.config import AugmentConfig, preset
from augshortcut.injection import asked
from augshortcut.injection.asked import augmented_blocks
from augshortcut.injection.augment import augment, remove_paths
from augshortcut.injection.fold import fold
from augshortcut.injection.rules import path_parameters
from effkit.errors import UserError

DIM = 24


class Mix(nn.Module):
    """Mixes tokens a little, as attention would; with a bias of its own if given one."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(DIM, DIM)

    def forward(self, y, shift=0.0):
        return self.proj(y + y.mean(dim=1, keepdim=True)) + shift


class Mine(nn.Module):
    """A pre-norm block of a type that nobody knows, with an argument of its own and a helper that reads a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attn, self.mlp = Mix(), nn.Sequential(nn.Linear(DIM, DIM), nn.GELU())
        self.gamma = nn.Parameter(torch.full((DIM,), 0.5))

    def forward(self, x, shift=0.0, *, twice=False):
        x = x + self.gamma * self.attn(self.norm1(x), shift=shift)
        return x + (2 if twice else 1) * self._mlp(x)

    def _mlp(self, x):
        return self.mlp(self.norm2(x))


class Torchvision(Mine):
    """Other names, and a tuple as output, as Hugging Face's layers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = self.norm1, self.norm2
        del self.norm1, self.norm2

    def forward(self, hidden, extra=None):
        hidden = self.gamma * self.attn(self.ln_1(hidden)) + hidden
        return (self.mlp(self.ln_2(hidden)) + hidden, extra)


class Needs(Mine):
    """Cannot do without its argument."""

    def forward(self, x, shift):
        x = x + self.gamma * self.attn(self.norm1(x), shift=shift)
        return x + self._mlp(x)


class Net(nn.Module):
    def __init__(self, kind=Mine, depth=2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(kind() for _ in range(depth))
        self.head = nn.Linear(DIM, 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x, 0.25) if isinstance(block, Needs) else block(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.head(x.mean(dim=1))


@pytest.fixture
def x():
    return torch.randn(2, 7, DIM, generator=torch.Generator().manual_seed(3))


def _formula(block, x, shift=0.0, factor=1):
    """What an augmented block computes, written out."""
    config, first, second = block.aug_config, *(getattr(block, name) for name in block.norms)
    s, raw = config.residual_scale, config.tap == "input"
    y = first(x)
    paths = 0 if block.aug_attn is None else block.aug_attn(x if raw else y)
    z = (s if block.aug_attn is not None else 1) * (x + block.gamma * block.attn(y, shift=shift) + paths)
    y = second(z)
    paths = 0 if block.aug_mlp is None else block.aug_mlp(z if raw else y)
    return (s if block.aug_mlp is not None else 1) * (z + factor * block.mlp(y) + paths)


@pytest.mark.parametrize("kind", [Mine, Torchvision])
@pytest.mark.parametrize(
    "fields",
    [{}, {"residual_scale": 0.75}, {"tap": "input"}, {"location": "mlp", "residual_scale": 0.75}, {"location": "attn"}],
    ids=str,
)
def test_a_proven_block_is_the_formula(kind, fields, x):
    model = augment(Net(kind).double(), AugmentConfig(**fields))
    block, x = model.blocks[0], x.double()
    out = block(x)
    torch.testing.assert_close(out[0] if kind is Torchvision else out, _formula(block, x), rtol=0, atol=1e-13)


def test_it_computes_what_the_registered_class_does(x):
    class Subclass(Block):
        """The same forward under another class, so that it has to be proven."""

    model = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=48, num_heads=3, img_size=32, num_classes=10)
    twin = copy.deepcopy(model)
    for block in twin.blocks:
        block.__class__ = Subclass
    torch.manual_seed(1)
    augment(model.eval(), "official")
    torch.manual_seed(1)
    augment(twin.eval(), "official")
    assert isinstance(twin.blocks[0], Subclass)
    assert type(twin.blocks[0]).__name__ == "AugmentedSubclass"
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(twin(pictures), model(pictures), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(fold(twin)(pictures), model(pictures), rtol=1e-5, atol=1e-6)


def test_a_retrofit_changes_nothing_and_learns(x, caplog):
    model = Net()
    expected, names, kinds = model(x), set(model.state_dict()), [type(m) for m in model.modules()]
    effkit.notes._said.clear()
    with caplog.at_level(logging.INFO):
        augment(model, "retrofit")
        augment(Net(), "retrofit")
    said = [r.message for r in caplog.records if "of no known type" in r.message]
    assert said == [
        "blocks.0, blocks.1 (test_generic.Mine) is of no known type: its residuals were tried and add up, so its own "
        "forward runs with the paths around it"
    ]
    assert torch.equal(model(x), expected)
    assert names < set(model.state_dict())
    with torch.no_grad():
        for _, block in augmented_blocks(model):
            block.aug_attn.gate.fill_(1.0), block.aug_mlp.gate.fill_(1.0)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in path_parameters(model).values())
    remove_paths(model)
    assert torch.equal(model(x), expected)
    assert [type(m) for m in model.modules()] == kinds


def test_further_arguments_pass_through(x):
    block = augment(Net().double(), "paper").blocks[0]
    torch.testing.assert_close(
        block(x.double(), 0.5, twice=True), _formula(block, x.double(), 0.5, 2), rtol=0, atol=1e-13
    )
    torch.testing.assert_close(block(x=x.double(), shift=0.5), _formula(block, x.double(), 0.5), rtol=0, atol=1e-13)


def test_needed_arguments_come_from_an_example(x):
    with pytest.raises(UserError, match=r"blocks\.0 .*needs shift: give augment\(\.\.\., example=INPUT\)"):
        augment(Net(Needs), "paper")
    model = Net(Needs).train()
    before = model(x)
    augment(model, "retrofit", example=x)
    assert model.training
    assert all(m.training for m in model.modules())
    assert torch.equal(model(x), before)


def test_copies_pickles_checkpointing_and_compile(x):
    model = augment(Net(), "paper")
    expected = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), expected)
        assert type(twin.blocks[0]) is type(model.blocks[0]) is type(model.blocks[1])
        assert twin.blocks[0] is not model.blocks[0]
    recomputed = torch.utils.checkpoint.checkpoint(model.blocks[0], x.requires_grad_(), use_reentrant=False)
    recomputed.square().sum().backward()
    again = x.grad.clone()
    x.grad = None
    model.blocks[0](x).square().sum().backward()
    torch.testing.assert_close(again, x.grad)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)


class Parallel(Mine):
    def forward(self, x):
        return x + self.attn(self.norm1(x)) + self.mlp(self.norm2(x))


class PostNorm(Mine):
    def forward(self, x):
        x = x + self.norm1(self.attn(x))
        return x + self.norm2(self.mlp(x))


class Shrinks(Mine):
    def forward(self, x):
        x = 0.9 * x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Rescales(Mine):
    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return 0.9 * x + self.mlp(self.norm2(x))


class Gates(Mine):
    def forward(self, x):
        x = x + self.attn(self.norm1(x)) * x.sigmoid()
        return x + self.mlp(self.norm2(x))


class Silent(Mine):
    """ReZero at its start: attention adds nothing yet, so nobody can tell where it stands."""

    def forward(self, x):
        x = x + 0.0 * self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class InPlace(Mine):
    def forward(self, x):
        x += self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Twice(Mine):
    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(self.norm2(x)))


class Random(Mine):
    def forward(self, x):
        x = x + self.attn(self.norm1(x)) * torch.rand(())
        return x + self.mlp(self.norm2(x))


class Halves(Mine):
    def forward(self, x):
        return (x + self.attn(self.norm1(x)) + self.mlp(self.norm2(x)))[:, ::2]


class Three(Mine):
    def __init__(self) -> None:
        super().__init__()
        self.norm3 = nn.LayerNorm(DIM)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Parallel, "side by side"),
        (PostNorm, "norm1 does not read the block's input"),
        (Shrinks, "what norm2 reads is not the input plus"),
        (Rescales, "the output is not what norm2 reads plus"),
        (Gates, "what norm2 reads is not the input plus"),
        (Silent, "does not depend on norm1"),
        (InPlace, "writes over its input"),
        (Twice, "not each once"),
        (Random, "two passes over the same tokens differ"),
        (Halves, "no tensor of its input's shape"),
        (Three, "has 3 norms"),
    ],
)
def test_what_cannot_be_proven_is_refused_before_anything_changed(kind, said):
    model = Net(kind)
    kinds, state = [type(m) for m in model.modules()], list(model.state_dict())
    with pytest.raises(UserError) as caught:
        augment(model, "paper")
    message = str(caught.value)
    assert all(word in message for word in (f"blocks.0 (test_generic.{kind.__name__})", said, "known are")), message
    assert [type(m) for m in model.modules()] == kinds
    assert list(model.state_dict()) == state


def test_branches_scaled_to_a_millionth_still_show():
    model = Net()
    with torch.no_grad():
        for block in model.blocks:
            block.gamma.fill_(1e-6)
    assert len(augmented_blocks(augment(model, "paper"))) == 2


def test_dropping_paths_needs_a_known_block():
    with pytest.raises(UserError, match="drop_path_paths"):
        augment(Net(), AugmentConfig(drop_path_paths=True))


def test_the_probe_leaves_modes_and_random_numbers_alone():
    model = Net().train()
    state = torch.get_rng_state()
    asked.find_blocks(model, preset("paper"))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(m.training for m in model.modules())


def test_torchvisions_own_transformer():
    models = pytest.importorskip("torchvision.models")
    model = models.VisionTransformer(32, 8, 2, 3, 48, 96, num_classes=10).eval()
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        nn.init.normal_(model.heads.head.weight)
        before = model(pictures)
        augment(model, "retrofit")
        assert len(augmented_blocks(model)) == 2
        assert torch.equal(model(pictures), before)
        model.encoder.layers[0].aug_attn.gate.fill_(1.0)
        assert not torch.equal(model(pictures), before)
