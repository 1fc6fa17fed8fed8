"""Params and MACs: closed forms, torch's own counter as a second opinion, and what users write instead of nn.Linear."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from effkit.cost import Cost, count_params, measure, measure_image, on_meta, register_macs
from effkit.errors import UserError


def tnt_macs(depth: int, c: int, d: int, m: int = 16, n: int = 196, classes: int = 1000) -> int:
    """Closed form for Transformer in Transformer: inner blocks, projections, outer blocks, stem, head."""
    per_block = 12 * n * m * c**2 + 2 * n * m**2 * c + n * m * c * d + 12 * (n + 1) * d**2 + 2 * (n + 1) ** 2 * d
    return depth * per_block + 147 * n * m * c + n * m * c * d + d * classes


def vit_macs(depth: int, d: int, n: int = 196, patch: int = 16, classes: int = 1000) -> int:
    per_block = 12 * (n + 1) * d**2 + 2 * (n + 1) ** 2 * d
    return depth * per_block + 3 * patch**2 * d * n + d * classes


def network(name: str) -> nn.Module:
    return on_meta(lambda: timm.create_model(name))


class ComputesWidths(nn.Linear):
    """As RegNet in timm before 1.0.30: with an operator that meta tensors lack."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        if self.weight.is_meta:
            raise NotImplementedError


def test_a_network_is_built_without_memory_where_it_can_be() -> None:
    assert {p.device.type for p in on_meta(lambda: nn.Linear(4, 3)).parameters()} == {"meta"}
    cost = measure(on_meta(ComputesWidths), torch.zeros(1, 4))
    assert (cost.params, cost.macs) == (15, 12)
    assert torch.empty(1).device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("tnt_s_patch16_224", 23_768_584, 5_216_875_008),
        ("tnt_s_legacy_patch16_224", 23_755_336, 5_216_875_008),
        ("tnt_b_patch16_224", 65_428_680, 14_049_082_880),
        ("deit_small_patch16_224", 22_050_664, 4_598_882_304),
        ("vit_tiny_patch16_224", 5_717_416, 1_253_683_200),
        ("resnet18", 11_689_512, 1_814_073_344),
        ("mobilenetv3_small_100", 2_542_856, 56_510_400),
    ],
)
def test_known_models(name: str, params: int, macs: int) -> None:
    model = network(name)
    cost = measure_image(model, 224)
    assert (cost.params, cost.macs) == (params, macs)
    assert cost.uncounted == ()
    with FlopCounterMode(display=False) as torch_counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, 224, 224, device="meta"))
    assert torch_counter.get_total_flops() == 2 * cost.macs


def test_closed_forms() -> None:
    assert measure_image(network("tnt_s_patch16_224"), 224).macs == tnt_macs(12, 24, 384)
    assert measure_image(network("tnt_b_patch16_224"), 224).macs == tnt_macs(12, 40, 640)
    assert measure_image(network("deit_small_patch16_224"), 224).macs == vit_macs(12, 384)


def test_layers_add_up_and_are_named() -> None:
    cost = measure_image(network("tnt_s_patch16_224"), 224)
    assert sum(layer.params for layer in cost.layers) == cost.params
    assert sum(layer.macs for layer in cost.layers) == cost.macs
    layers = {layer.name: layer for layer in cost.layers}
    assert layers["head"].macs == 384_000
    assert layers["head"].shape == (1, 1000)
    assert layers["pixel_embed.proj"].macs == 147 * 196 * 16 * 24
    # The products of queries, keys and values are the attention's own: it has no child that makes them.
    assert layers["blocks.3.attn_out"].macs == 2 * 197**2 * 384


def test_table_sums_at_any_depth() -> None:
    cost = measure_image(network("tnt_s_patch16_224"), 224)
    for depth in range(5):
        table = cost.table(depth)
        *rows, total = table.rows
        assert total[3:5] == [cost.params, cost.macs]
        assert depth == 0 or sum(row[3] for row in rows) == cost.params
        assert depth == 0 or sum(row[4] for row in rows) == cost.macs
    names = [row[0] for row in cost.table(1).rows]
    assert names == ["(model)", "pixel_embed", "norm1_proj", "proj", "norm2_proj", "blocks", "norm", "head", "total"]
    assert cost.table(0).rows == [["total", "", "", cost.params, cost.macs, 100.0]]
    with pytest.raises(UserError, match="depth must be 0 or more, got -1"):
        cost.table(-1)


class Functional(nn.Module):
    """One call of a function on a (2, 4, 6, 8) tensor and a weight."""

    def __init__(self, call, *shape: int) -> None:
        super().__init__()
        self.call = call
        self.weight = nn.Parameter(torch.ones(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, self.weight)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("guard", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    ("call", "shape", "macs"),
    [
        (lambda x, w: F.linear(x, w), (5, 8), 48 * 8 * 5),
        (lambda x, w: F.linear(x, w, torch.ones_like(w[:, 0])), (5, 8), 48 * 8 * 5),
        (lambda x, w: F.linear(x[0, 0, 0], w), (5, 8), 8 * 5),
        (lambda x, w: x @ w, (8, 5), 48 * 8 * 5),
        (lambda x, w: x @ w, (8,), 48 * 8),
        (lambda x, w: x[0, 0, 0] @ w, (8,), 8),
        (lambda x, w: torch.addmv(x[0, 0, :, 0], x[0, 0], w), (8,), 6 * 8),
        (lambda x, w: x @ x.mT, (1,), 8 * 6 * 8 * 6),
        (lambda x, w: torch.einsum("bhnd,hde->bhne", x, w), (4, 8, 3), 2 * 4 * 6 * 8 * 3),
        (lambda x, w: torch.baddbmm(w, x.flatten(0, 1), x.flatten(0, 1).mT), (1,), 8 * 6 * 8 * 6),
        (lambda x, w: torch.addbmm(w, x.flatten(0, 1), x.flatten(0, 1).mT), (1,), 8 * 6 * 8 * 6),
        (lambda x, w: F.conv2d(x, w, padding=1), (10, 4, 3, 3), 2 * 10 * 6 * 8 * 4 * 9),
        (lambda x, w: F.conv2d(x, w, stride=2, groups=4), (4, 1, 3, 3), 2 * 4 * 2 * 3 * 9),
        (lambda x, w: F.conv_transpose2d(x, w, stride=2), (4, 5, 3, 3), 2 * 4 * 6 * 8 * 5 * 9),
        (lambda x, w: F.conv1d(x.flatten(0, 1), w), (3, 6, 2), 8 * 3 * 7 * 6 * 2),
        (lambda x, w: F.scaled_dot_product_attention(x, x, x), (1,), 2 * 8 * 6 * 6 * 8),
        (lambda x, w: F.scaled_dot_product_attention(x, x, x, is_causal=True), (1,), 2 * 8 * 6 * 6 * 8),
        (lambda x, w: F.scaled_dot_product_attention(x, x[..., :3, :], x[..., :3, :5]), (1,), 8 * 6 * 3 * (8 + 5)),
        (lambda x, w: F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True), (1,), 2 * 8 * 6 * 6 * 8),
        (lambda x, w: F.gelu(F.layer_norm(x * w + 1, (8,))).softmax(-1).mean(2), (8,), 0),
    ],
)
def test_however_it_is_written(call, shape, macs, guard, device) -> None:
    with torch.device(device):
        module = Functional(call, *shape)
    with guard():
        cost = measure(module, torch.ones(2, 4, 6, 8))
    assert cost.macs == macs
    assert cost.uncounted == ()


@pytest.mark.parametrize("kind", ["bmm", "flash", "efficient"])
def test_fused_attention_counts_as_its_products(kind: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # The module insists on a backend; on CPU only the flash one exists, elsewhere the mathematical form answers.
    backend = {"bmm": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}

    def call(x: Tensor, _: Tensor) -> Tensor:
        with sdpa_kernel([backend[kind], SDPBackend.MATH]):
            return F.scaled_dot_product_attention(x, x[..., :5, :], x[..., :5, :])

    assert measure(Functional(call, 1), torch.ones(2, 4, 6, 8)).macs == 2 * 4 * 6 * 5 * (8 + 8)


def test_encoder_fast_path_does_not_hide_its_layers() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True).eval()
    cost = measure(layer, torch.zeros(3, 5, 16))
    assert cost.macs == 3 * 5 * (4 * 16**2 + 2 * 16 * 32) + 3 * 2 * 5**2 * 16
    assert torch.backends.mha.get_fastpath_enabled()


def test_recurrent_layers_are_named_not_passed_over() -> None:
    cost = measure(nn.LSTM(4, 3), torch.zeros(5, 1, 4))
    expected = 5 * 4 * 3 * (4 + 3)
    assert cost.macs == expected or (cost.uncounted and "formula" in cost.table().note)


def test_results_written_to_memory_of_the_callers() -> None:
    class Written(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out = x.new_empty(2, 3, 3)
            torch.bmm(x, x.transpose(1, 2), out=out)
            torch.mm(x[0], x[1].t(), out=out[0])
            return out

    with torch.no_grad():
        assert measure(Written(), torch.zeros(2, 3, 5)).macs == 2 * 45 + 45


def test_custom_operator() -> None:
    @torch.library.custom_op("effkit_test::double_linear", mutates_args=())
    def double_linear(x: Tensor, weight: Tensor, times: int) -> Tensor:
        return times * (x @ weight.mT)

    @double_linear.register_fake
    def _(x: Tensor, weight: Tensor, times: int) -> Tensor:
        return x.new_empty(*x.shape[:-1], weight.shape[0])

    x = torch.ones(2, 4, 6, 8)
    on_cpu = Functional(lambda x, w: double_linear(x, w, 2), 5, 8)
    bare = Functional(on_cpu.call, 5, 8).to("meta")
    for module in (on_cpu, bare):
        unknown = measure(module, x)
        assert (unknown.macs, unknown.uncounted) == (0, ("effkit_test.double_linear",))
        assert "no formula known: effkit_test.double_linear" in unknown.table().note
    register_macs("effkit_test::double_linear", lambda x, w, times, *, out: times * out.numel() * w.shape[1])
    for module in (on_cpu, bare):
        known = measure(module, x)
        assert (known.macs, known.uncounted) == (2 * 48 * 5 * 8, ())
    register_macs(double_linear, lambda x, w, times, *, out: 7)
    assert measure(on_cpu, x).macs == 7
    with pytest.raises(UserError, match="effkit_test::absent"):
        register_macs("effkit_test::absent", lambda out: 0)
    with pytest.raises(UserError, match="not a torch operator"):
        register_macs(lambda: 0, lambda out: 0)


def test_shared_and_frozen_parameters_and_buffers() -> None:
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    tied[1].weight = tied[0].weight
    tied[2].bias.requires_grad_(False)
    assert count_params(tied) == 16 + 8
    assert count_params(tied, trainable_only=True) == 16 + 4
    assert count_params(tied, include_buffers=True) == 16 + 8 + 9
    cost = measure(tied, torch.zeros(3, 4))
    assert [(c.name, c.params, c.macs) for c in cost.layers if c.name] == [("0", 16, 48), ("1", 0, 48), ("2", 8, 0)]


def test_module_called_twice_counts_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    cost = measure(Twice(), torch.zeros(1, 4))
    assert (cost.params, cost.macs, cost.layers[1].macs) == (20, 32, 32)


def test_module_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    model[1].eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    measure_image(model, 8)
    assert [m.training for m in model] == [True, False, True]
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(RuntimeError, match="channels"):
        measure_image(model, 8, in_chans=5)
    assert [m.training for m in model] == [True, False, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_rectangles_dtypes_and_bad_sizes() -> None:
    conv = nn.Conv2d(1, 2, 3, padding=1).to(torch.bfloat16)
    assert measure_image(conv, (5, 7), in_chans=1) == measure(conv, torch.zeros(1, 1, 5, 7, dtype=torch.bfloat16))
    assert measure_image(conv, (5, 7), in_chans=1).macs == 2 * 9 * 35
    with pytest.raises(UserError, match="img_size=0"):
        measure_image(conv, 0)
    with pytest.raises(UserError, match=r"torch\.nn\.Module, got function"):
        measure(tnt_macs, torch.zeros(1))  # type: ignore[arg-type]


def test_cost_without_macs_has_a_table() -> None:
    assert Cost(0, 0).table().rows == [["total", "", "", 0, 0, 0.0]]
