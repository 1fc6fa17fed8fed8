"""Growth preserves the function in float64, in both modes; what it cannot preserve it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from effkit.errors import UserError
from greedy_enlarge.families import base
from greedy_enlarge.growth.copying import ghost_map
from greedy_enlarge.growth.grow import grow, grow_optimizer
from greedy_enlarge.networks.build import build
from greedy_enlarge.spec import ArchSpec

SHARED = {"classes": 5, "resolution": 33}
STARTS = {
    "efficientnet": base("efficientnet_b0", widths=(8, 16, 24, 32, 40, 48, 56), stem=12, head=32, **SHARED),
    "ghostnet_large": base("ghostnet_large", depths=(1, 1, 2, 2, 1, 2), widths=(8, 12, 16, 24, 28, 32), **SHARED),
    "ghost odd": base("ghostnet_large", depths=(1, 1, 1, 1, 1, 1), widths=(8, 11, 13, 15, 17, 19), **SHARED),
    "basic": base("resnet18", widths=(64, 16, 24, 32), **SHARED),
    "bottleneck": base("resnet50", depths=(1, 2, 1, 1), widths=(32, 48, 64, 80), **SHARED),
    "regnet_y": base("regnety_004", depths=(1, 1, 2, 1), widths=(16, 24, 32, 40), **SHARED),
    "regnet_x": base("regnetx_002", depths=(1, 1, 2, 1), widths=(16, 24, 32, 40), **SHARED),
    "custom": ArchSpec(
        "custom", (1, 2, 1, 2, 2), (8, 12, 16, 20, 24), 33, 10, 24, 5,
        template=("ds_r1_k3_s1_e1_c8_se0.25", "er_r1_k3_s2_e3_c8", "ir_r1_k5_s2_e2.5_c8_se0.25", "ir_r1_k3_s1_e1_c8",
                  "cn_r1_k3_s1_c8_skip"),
    ),
}  # fmt: skip


def lively(model: nn.Module) -> nn.Module:
    """Give norms and biases values of a trained network: fresh ones hide mistakes."""
    generator = torch.Generator().manual_seed(1)

    def draw(tensor, low, high):
        tensor.data = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) * (high - low) + low

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            draw(module.weight, 0.5, 1.5), draw(module.bias, -0.5, 0.5)
            draw(module.running_mean, -0.5, 0.5), draw(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            draw(module.bias, -0.3, 0.3)
    return model


def built(spec):
    torch.manual_seed(0)
    return lively(build(spec, dtype=torch.float64))


def pictures(spec, number=3):
    return torch.randn(number, 3, spec.resolution, spec.resolution, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(2))  # fmt: skip


def wider(spec, stage, by):
    widths = list(spec.widths)
    widths[stage] += by
    return spec.replace(widths=widths)


def deeper(spec, stage, by=1):
    depths = list(spec.depths)
    depths[stage] += by
    return spec.replace(depths=depths)


def same_function(model, larger, x):
    for training in (False, True):
        model.train(training), larger.train(training)
        with torch.no_grad():
            torch.testing.assert_close(larger(x), model(x), rtol=1e-12, atol=1e-12)


def moves(name):
    spec = STARTS[name]
    by = 16 if spec.family == "regnet" else 40  # never as wide as the next stage
    found = {f"depth {i + 1}": deeper(spec, i, 2) for i in range(spec.stages)}
    first = 1 if name == "basic" else 0  # a basic first stage of another width than the stem gets a projection
    found |= {f"width {i + 1}": wider(spec, i, by + 96 if i == spec.stages - 1 else by + 8 * i) for i in
              range(first, spec.stages)}  # fmt: skip
    return found


@pytest.mark.parametrize("name", STARTS)
def test_every_single_move_preserves_the_function(name):
    spec = STARTS[name]
    model, x = built(spec), pictures(spec)
    changed = []
    for move, target in moves(name).items():
        larger, report = grow(model, target)
        if not report.preserved:
            changed.append((move, report.reason))
            continue
        assert report.added > 0
        assert report.added + report.copied == sum(p.numel() for p in larger.parameters())
        same_function(model, larger, x)
    assert [m for m, reason in changed if "skip connection" not in reason] == []
    assert len(changed) <= 1, changed


@pytest.mark.parametrize("name", STARTS)
def test_all_coordinates_at_once(name):
    spec = STARTS[name]
    widths = [spec.widths[0] if name == "basic" else spec.widths[0] + 16]
    widths += [w + 16 for w in spec.widths[1:]] if spec.family != "custom" else [28, 36, 44, 52]
    if name == "ghost odd":
        widths = [12, 20, 22, 24, 26, 28]
    more = {"head": spec.head + 8, "stem": spec.stem + 8} if spec.family in ("efficientnet", "custom") else {}
    target = spec.replace(depths=[d + 1 for d in spec.depths], widths=widths, **more)
    model = built(spec)
    larger, report = grow(model, target)
    assert report.preserved, report.reason
    same_function(model, larger, pictures(spec))


def test_a_naive_copy_of_the_leading_block_would_be_wrong():
    """The order of a ghost module's channels matters: old cheap channels move behind the new primary ones."""
    assert ghost_map(4, 8).tolist() == [0, 1, 4, 5]
    assert ghost_map(5, 8).tolist() == [0, 1, 2, 4, 5]
    assert ghost_map(6, 6).tolist() == list(range(6))


@pytest.mark.parametrize(
    ("spec", "target", "said"),
    [
        (base("efficientnet_b0"), wider(base("efficientnet_b0"), 3, 32), "appears in block 1 of stage 5"),
        (STARTS["ghostnet_large"], wider(STARTS["ghostnet_large"], 3, 4), "appears in block 1 of stage 5"),
        (STARTS["basic"], wider(STARTS["basic"], 0, 8), "vanishes in the first block of stage 1"),
        (STARTS["custom"], deeper(STARTS["custom"].replace(template=(
            *STARTS["custom"].template[:3], "ir_r1_k3_s1_e1_c8_noskip", "cn_r1_k3_s1_c8")), 3), "no skip connection"),
        (STARTS["regnet_y"], STARTS["regnet_y"].replace(resolution=40), "picture side changes from 33 to 40"),
    ],
)  # fmt: skip
def test_what_is_not_preserved_is_said(spec, target, said, caplog):
    spec = spec.replace(template=target.template)
    model = build(spec)
    larger, report = grow(model, target)
    assert not report.preserved
    assert said in report.reason
    assert said in caplog.text
    assert larger.arch_spec == target
    if "skip" in said and "picture" not in said:
        with pytest.raises(UserError, match="changes the function"):
            grow(model, target, forbid_skip_change=True)


def test_a_skip_change_shows_in_the_outputs():
    """The report is not overcautious: B0 with 112 channels in stage 4 is another function."""
    spec = STARTS["efficientnet"]
    target = wider(spec, 3, spec.widths[4] - spec.widths[3])
    model, x = built(spec).eval(), pictures(spec)
    larger, report = grow(model, target)
    assert not report.preserved
    with torch.no_grad():
        assert (larger(x) - model(x)).abs().max() > 1e-3 * model(x).abs().max()


@pytest.mark.parametrize("name", ["efficientnet", "ghostnet_large", "bottleneck", "regnet_y"])
def test_every_new_tensor_learns_within_two_steps(name):
    spec = STARTS[name]
    target = spec.replace(depths=[d + 1 for d in spec.depths], widths=[w + 16 for w in spec.widths])
    model = built(spec)
    larger, report = grow(model, target)
    assert report.preserved, report.reason
    larger.train()
    optimizer = torch.optim.SGD(larger.parameters(), lr=0.05)
    reached = set()
    x, labels = pictures(spec, 8), torch.arange(8) % 5
    # A new ghost block is silent in both its halves, and the cheap one sees the primary one: one step more.
    for _ in range(3 if name == "ghostnet_large" else 2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(larger(x), labels).backward()
        reached |= {n for n, p in larger.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    assert set(dict(larger.named_parameters())) - reached == set()


def test_momenta_go_where_their_weights_went():
    spec = STARTS["ghostnet_large"]
    model = built(spec)
    target = wider(deeper(spec, 2), 1, 8)
    x, labels = pictures(spec), torch.tensor([0, 1, 2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    nn.functional.cross_entropy(model.train()(x), labels).backward()
    optimizer.step()
    larger, report = grow(model, target)
    fresh = torch.optim.AdamW(larger.parameters(), lr=1e-3)
    carried = grow_optimizer(optimizer, fresh, model, larger, report)
    assert carried == len(list(model.parameters()))
    old, new = dict(model.named_parameters()), dict(larger.named_parameters())
    for name, (source, maps) in report.plan.items():
        if source not in old:
            continue
        before, after = optimizer.state[old[source]]["exp_avg"], fresh.state[new[name]]["exp_avg"]
        index = [torch.arange(n) if m is None else m for m, n in zip(maps, before.shape, strict=True)]
        assert torch.equal(after[torch.meshgrid(*index, indexing="ij")], before)
        torch.testing.assert_close(after.abs().sum(), before.abs().sum())
        assert fresh.state[new[name]]["step"] == 1
    with pytest.raises(UserError, match="of one kind"):
        grow_optimizer(optimizer, torch.optim.SGD(larger.parameters(), lr=1.0), model, larger, report)


def test_what_is_no_momentum_of_each_weight_is_refused():
    """Adafactor keeps sums of rows and columns, which have no place for new ones."""
    spec = STARTS["custom"]
    model = build(spec)
    optimizer = torch.optim.Adafactor(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    larger, report = grow(model, wider(spec, 1, 8))
    with pytest.raises(UserError, match=r"Adafactor keeps \w+ of shape .* cannot be carried over"):
        grow_optimizer(optimizer, torch.optim.Adafactor(larger.parameters()), model, larger, report)


def test_growing_by_nothing_is_a_copy():
    model = built(STARTS["regnet_y"])
    again, report = grow(model, STARTS["regnet_y"])
    assert report.preserved
    assert report.added == 0
    state = again.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())


def hooked():
    model = build(STARTS["custom"])
    model.bn1.register_forward_hook(lambda *_: None)
    return model


def adapted():
    model = build(STARTS["custom"])
    nn.utils.parametrizations.weight_norm(model.classifier)
    return model


def other_head():
    model = build(STARTS["custom"])
    model.reset_classifier(7)
    return model


REFUSED = {
    "foreign": (lambda: nn.Linear(1, 1), STARTS["custom"], "does not say its architecture"),
    "hooks": (hooked, STARTS["custom"], "bn1 has hooks"),
    "adapter": (adapted, STARTS["custom"], "is not as it was built (classifier"),
    "head": (other_head, STARTS["custom"], "is not as it was built (classifier"),
    "smaller": (lambda: build(STARTS["custom"]), STARTS["custom"].replace(depths=(1, 1, 1, 2, 2)), "got 2 -> 1"),
    "family": (lambda: build(STARTS["custom"]), STARTS["basic"], "spec.family='resnet' must be the network's own"),
    "classes": (lambda: build(STARTS["custom"]), STARTS["custom"].replace(classes=6), "spec.classes=6"),
    "stem": (lambda: build(STARTS["custom"]), STARTS["custom"].replace(stem=4), "spec.stem=4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_lost_is_refused(case):
    make, target, said = REFUSED[case]
    with pytest.raises(UserError) as error:
        grow(make(), target)
    assert said in str(error.value)


def _other_activations(model):
    for module in model.modules():
        if isinstance(getattr(module, "act", None), nn.SiLU):
            module.act = nn.ReLU()


def _other_norms(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-2


def _forward_of_a_block(model):
    block = model.blocks[0][0]
    before = block.forward
    block.forward = lambda x: 2 * before(x)


def _pooled_otherwise(model):
    model.global_pool.pool = nn.AdaptiveMaxPool2d(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_activations, r"bn1\.act is ReLU\(\), and was built as SiLU\(\)"),
        (_other_norms, r"bn1 is BatchNormAct2d\(12, eps=0\.01.* built as BatchNormAct2d\(12, eps=1e-05"),
        (nn.SyncBatchNorm.convert_sync_batchnorm, "bn1 is SyncBatchNorm"),
        (_forward_of_a_block, r"blocks\.0\.0 has a forward of its own"),
        (_pooled_otherwise, r"global_pool\.pool is AdaptiveMaxPool2d"),
        (lambda m: m.register_full_backward_hook(lambda *_: None), "the network has hooks"),
    ],
)
def test_a_network_that_was_changed_since_it_was_built_is_refused(change, said):
    """Its state is that of an unchanged one, and growth would compute something else without a word."""
    spec = STARTS["efficientnet"]
    model = build(spec)
    changed = change(model)
    model = changed if isinstance(changed, nn.Module) else model
    with pytest.raises(UserError, match=said):
        grow(model, wider(spec, 1, 8))


@pytest.mark.parametrize("name", ["efficientnet", "ghostnet_large", "basic", "regnet_y"])
def test_norms_that_stand_still_and_frozen_parameters_stay_so(name):
    spec = STARTS[name]
    model = built(spec).train()
    model.set_grad_checkpointing(True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    first = next(iter(model.parameters())).requires_grad_(False)
    larger, report = grow(model, wider(spec, 1, 8))
    x = pictures(spec)
    assert report.preserved
    torch.testing.assert_close(larger(x), model(x), rtol=1e-12, atol=1e-12)
    frozen = [p for p in larger.parameters() if not p.requires_grad]
    assert [p.shape for p in frozen] == [first.shape]
    on = [m.grad_checkpointing for m in larger.modules() if hasattr(m, "grad_checkpointing")]
    assert on
    assert all(on)
