"""Weights on another grid, from several sets, for another number of channels: the right values, or a refusal."""

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models._manipulate import adapt_input_conv
from torch.nn import functional as F

import tnt_vit
from effkit.checkpoints import read_metadata
from tnt_vit.commands.convert import convert_checkpoint

ARGS = {"patch_size": 16, "embed_dim": 24, "inner_dim": 6, "depth": 2, "num_heads": 3, "inner_num_heads": 2}
TOLD = {"num_heads": 3, "inner_num_heads": 2, "patch_size": 16}


def small(img_size=64, **kwargs) -> tnt_vit.TNT:
    torch.manual_seed(0)
    return tnt_vit.TNT(**{**ARGS, "img_size": img_size, "num_classes": 5, **kwargs}).eval()


def naive(table: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """The definition: the sentences' rows as a picture of the old grid, bicubic, read out row by row."""
    picture = torch.stack([table[0, 1 + r * old[1] : 1 + (r + 1) * old[1]] for r in range(old[0])])
    found = F.interpolate(picture.permute(2, 0, 1)[None], size=new, mode="bicubic", antialias=True)[0]
    rows = [found[:, r, c] for r in range(new[0]) for c in range(new[1])]
    return torch.cat([table[:, :1], torch.stack(rows)[None]], dim=1)


@pytest.mark.parametrize("new", [(192, 256), (224, 224), (64, 96), (256, 192)], ids=str)
def test_a_table_that_is_no_square_comes_from_its_own_grid(tmp_path, new):
    model = small((256, 192))
    path = tnt_vit.save_checkpoint(model, tmp_path / "w.safetensors")
    assert read_metadata(path)["tnt_vit.grid"] == "16x12"
    other = small(new)
    tnt_vit.load_checkpoint(other, path)
    wanted = naive(model.patch_pos.detach(), (16, 12), other.grid_size)
    torch.testing.assert_close(other.patch_pos.detach(), wanted, rtol=0, atol=1e-6)
    model.set_input_size(new)
    x = torch.randn(1, 3, *new)
    torch.testing.assert_close(other(x), model(x), rtol=0, atol=1e-6)


def test_files_of_others_need_the_size_of_a_table_that_is_no_square(tmp_path):
    model = small((256, 192))
    path = tnt_vit.save_checkpoint(model, tmp_path / "w.pth")  # a torch file has no metadata
    for size in ((192, 256), (256, 192), (224, 224)):
        with pytest.raises(ValueError, match=r"192 sentences, which is no square grid.*img_size=") as error:
            tnt_vit.load_checkpoint(small(size), path)
        assert "\n" not in str(error.value)
    other = small((192, 256))
    tnt_vit.load_checkpoint(other, path, img_size=(256, 192))
    wanted = naive(model.patch_pos.detach(), (16, 12), (12, 16))
    torch.testing.assert_close(other.patch_pos.detach(), wanted, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="192 sentences, not 16 x 16"):
        tnt_vit.load_checkpoint(other, path, img_size=256)
    with pytest.raises(ValueError, match="multiple of patch_size"):
        tnt_vit.load_checkpoint(other, path, img_size=(250, 192))
    # Converted once, the file says it.
    report = convert_checkpoint(path, tmp_path / "told.safetensors", img_size=(256, 192), **TOLD)
    assert report.exit_code == 0
    again = small((192, 256))
    tnt_vit.load_checkpoint(again, tmp_path / "told.safetensors")
    assert torch.equal(again.patch_pos, other.patch_pos)
    report = convert_checkpoint(tmp_path / "told.safetensors", tmp_path / "turned.pth", img_size=(192, 256), **TOLD)
    assert report.exit_code == 0
    turned = torch.load(tmp_path / "turned.pth", weights_only=True)["patch_pos"]
    torch.testing.assert_close(turned, wanted, rtol=0, atol=1e-6)


def test_equal_counts_are_not_equal_grids(tmp_path):
    square = small(64)
    path = tnt_vit.save_checkpoint(square, tmp_path / "w.pth")
    wide = small((32, 128))
    tnt_vit.load_checkpoint(wide, path)
    wanted = naive(square.patch_pos.detach(), (4, 4), (2, 8))
    torch.testing.assert_close(wide.patch_pos.detach(), wanted, rtol=0, atol=1e-6)
    as_timm = resample_abs_pos_embed(square.patch_pos.detach(), new_size=[2, 8], old_size=[4, 4])
    assert torch.equal(wide.patch_pos.detach(), as_timm)
    # And back: a 2x8 table of ours is not taken for a 4x4 one.
    back = small(64)
    tnt_vit.load_checkpoint(back, tnt_vit.save_checkpoint(wide, tmp_path / "wide.safetensors"))
    torch.testing.assert_close(back.patch_pos.detach(), naive(wanted, (2, 8), (4, 4)), rtol=0, atol=1e-6)
    report = convert_checkpoint(path, tmp_path / "wide.pth", img_size=(32, 128), **TOLD)
    assert report.exit_code == 0
    torch.testing.assert_close(
        torch.load(tmp_path / "wide.pth", weights_only=True)["patch_pos"], wanted, rtol=0, atol=1e-6
    )


def test_equal_counts_through_timm(tmp_path):
    """`timm.create_model(..., img_size=(112, 448))` of a 224 checkpoint: 7x28 sentences, as many as 14x14."""
    torch.manual_seed(0)
    model = tnt_vit.create_model("tnt_ti_patch16_224", depth=1)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    overlay = {"file": str(tmp_path / "w.pth"), "hf_hub_id": None, "url": ""}
    wide = timm.create_model(
        "tnt_ti_patch16_224", pretrained=True, pretrained_cfg_overlay=overlay, depth=1, img_size=(112, 448)
    )
    assert wide.grid_size == (7, 28)
    wanted = naive(model.patch_pos.detach(), (14, 14), (7, 28))
    torch.testing.assert_close(wide.patch_pos.detach(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("first", "second"), [((2, 8), (4, 4)), ((4, 4), (2, 8)), ((4, 4), (3, 5))], ids=str)
def test_sizes_that_change_while_running(first, second):
    model = small((16 * first[0], 16 * first[1]), dynamic_img_size=True)
    x = torch.randn(2, 3, 16 * second[0], 16 * second[1])
    fixed = small((16 * second[0], 16 * second[1]))
    state = {**model.state_dict(), "patch_pos": naive(model.patch_pos.detach(), first, second)}
    fixed.load_state_dict(state)
    torch.testing.assert_close(model(x), fixed(x), rtol=0, atol=1e-5)


def test_resampling_keeps_the_gradient_and_the_type():
    model = small(64, dynamic_img_size=True).double()
    model(torch.randn(1, 3, 32, 128, dtype=torch.float64)).sum().backward()
    assert model.patch_pos.grad is not None
    assert model.patch_pos.grad.dtype == torch.float64
    assert float(model.patch_pos.grad[:, 1:].abs().sum()) > 0


def test_its_own_size_leaves_the_table_to_its_optimizer():
    model = small(64)
    table = model.patch_pos
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.set_input_size(64)
    assert model.patch_pos is table
    before = table.detach().clone()
    model(torch.randn(1, 3, 64, 64)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.patch_pos, before)


@pytest.mark.parametrize("rows", [0, 1, 8], ids=str)
def test_a_table_whose_rows_are_no_grid_is_one_line(tmp_path, rows):
    state = small(64).state_dict()
    state["patch_pos"] = torch.zeros(1, rows, 24)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"position table has {rows - 1} sentences") as error:
        tnt_vit.load_checkpoint(small(64), tmp_path / "w.pth")
    assert "\n" not in str(error.value)


def test_a_table_of_another_shape_is_one_line(tmp_path):
    state = {**small(64).state_dict(), "patch_pos": torch.zeros(17, 24)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"patch_pos is \(17, 24\)"):
        tnt_vit.load_checkpoint(small(64), tmp_path / "w.pth")


@pytest.fixture
def both(tmp_path):
    """A training checkpoint as timm writes it: the weights, and their moving average."""
    model = small(64)
    state = model.state_dict()
    average = {k: v + 0.5 if v.is_floating_point() else v for k, v in state.items()}
    torch.save({"model": state, "model_ema": average, "epoch": 3}, tmp_path / "both.pth")
    return tmp_path / "both.pth", state, average


def test_the_average_is_taken_unless_told_otherwise(both, caplog):
    path, state, average = both
    model = small(64)
    with caplog.at_level("INFO"):
        tnt_vit.load_checkpoint(model, path)
    assert torch.equal(model.head.bias, average["head.bias"])
    assert "took model_ema (averaged weights); the file also has model" in caplog.text
    for ema, wanted in ((False, state), (True, average), ("auto", average)):
        tnt_vit.load_checkpoint(model, path, ema=ema)
        assert torch.equal(model.head.bias, wanted["head.bias"])
    with pytest.raises(ValueError, match=r"ema='maybe'.*auto"):
        tnt_vit.load_checkpoint(model, path, ema="maybe")


def test_an_average_that_is_not_there_is_refused(tmp_path):
    path = tnt_vit.save_checkpoint(small(64), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="ema=true, but"):
        tnt_vit.load_checkpoint(small(64), path, ema=True)


def test_convert_and_create_model_choose_too(both, tmp_path):
    path, state, average = both
    for ema, wanted in (("auto", average), (False, state)):
        report = convert_checkpoint(path, tmp_path / "out.pth", ema=ema, **TOLD)
        assert report.exit_code == 0
        assert torch.equal(torch.load(tmp_path / "out.pth", weights_only=True)["head.bias"], wanted["head.bias"])
        assert report.lines[0].startswith(f"took model{'_ema' if ema == 'auto' else ''} (")
    args = {**ARGS, "img_size": 64}
    made = tnt_vit.create_model("tnt_s", pretrained=path, ema=False, num_classes=5, **args)
    assert torch.equal(made.head.bias, state["head.bias"])


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_weights_for_colours_are_fitted_to_other_channels_as_timm_does(tmp_path, channels, caplog):
    model = small(64)
    path = tnt_vit.save_checkpoint(model, tmp_path / "w.pth")
    other = small(64, in_chans=channels)
    with caplog.at_level("INFO"):
        tnt_vit.load_checkpoint(other, path)
    stem = model.pixel_embed.proj.weight.detach()
    assert torch.equal(other.pixel_embed.proj.weight.detach(), adapt_input_conv(channels, stem))
    assert f"first convolution fitted from 3 to {channels} channels" in caplog.text
    # What it means: a grey picture in one channel is that picture in three; in 6 channels, twice in halves.
    grey = torch.randn(1, 1, 64, 64)
    if channels in (1, 6):
        torch.testing.assert_close(other(grey.expand(-1, channels, -1, -1)), model(grey.expand(-1, 3, -1, -1)))


def test_weights_of_other_channels_than_three_are_not_guessed(tmp_path):
    path = tnt_vit.save_checkpoint(small(64, in_chans=1), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"pixel_embed\.proj\.weight is \(6, 1, 7, 7\)"):
        tnt_vit.load_checkpoint(small(64), path)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("call", ["forward", "forward_intermediates"])
def test_checkpointing_computes_again_and_changes_nothing(train, call):
    model = small(64).train(train)
    x = torch.randn(2, 3, 64, 64)

    def run(enable: bool) -> tuple[torch.Tensor, int]:
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        calls = []
        handle = model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
        found = model(x) if call == "forward" else model.forward_intermediates(x, intermediates_only=True)[-1]
        found.square().sum().backward()
        handle.remove()
        return model.blocks[0].attn_out.proj.weight.grad.clone(), len(calls)

    plain, once = run(False)
    again, twice = run(True)
    assert (once, twice) == (1, 2)
    torch.testing.assert_close(again, plain, rtol=0, atol=1e-6)
    with torch.no_grad():  # nothing to save where there is no backward pass
        model(x)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((10, "max"), "max"),
        ((10, "map"), "map"),
        ((10, "AVG"), "AVG"),
        ((-1,), "-1"),
        ((2.5,), "2.5"),
        ((True,), "True"),
    ],
    ids=str,
)
def test_reset_classifier_refuses_what_the_constructor_refuses(args, said):
    model = small(64)
    head = model.head
    with pytest.raises(ValueError, match=said):
        model.reset_classifier(*args)
    assert model.head is head
    assert (model.num_classes, model.global_pool) == (5, "token")
