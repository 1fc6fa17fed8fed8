"""Maps for dense tasks: strides, and detectors of transformers and torchvision that learn a few steps with them."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import avg_pool2d
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from transformers import DetrConfig, DetrForObjectDetection, TimmBackboneConfig

import tnt_vit
from tnt_vit.paper.trained import DETR_PARAMS

TNT = {"img_size": 64, "embed_dim": 48, "inner_dim": 12, "depth": 4, "num_heads": 3, "inner_num_heads": 2}
PYRAMID = {
    "img_size": 64,
    "embed_dims": (16, 24, 32, 32),
    "inner_dims": (4, 6, 8, 8),
    "num_heads": (2, 2, 4, 4),
    "inner_num_heads": (1, 2, 2, 4),
    "depths": (1, 1, 1, 1),
}


def networks(**kwargs) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "tnt": tnt_vit.TNT(**TNT, num_classes=5, **kwargs).eval(),
        "pyramid": tnt_vit.PyramidTNT(**PYRAMID, num_classes=5, **kwargs).eval(),
    }


def squares(count: int = 4, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey noise with one bright square in each picture, and the squares' corners in pixels."""
    generator = torch.Generator().manual_seed(3)
    images = 0.1 * torch.rand(count, 3, size, size, generator=generator)
    boxes = []
    for image in images:
        x, y = torch.randint(0, size - 32, (2,), generator=generator).tolist()
        image[:, y : y + 32, x : x + 32] += 0.8
        boxes.append([x, y, x + 32, y + 32])
    return images, torch.tensor(boxes, dtype=torch.float32)


def train(model: nn.Module, step, steps: int = 12, lr: float = 2e-3) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(steps):
        loss = step()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


# --- the neck ---


def test_strides_from_one_depth_and_from_several() -> None:
    one = tnt_vit.FeaturePyramid([48], [16], out_chans=8)
    several = tnt_vit.FeaturePyramid([48] * 4, [16] * 4, out_chans=8)
    map16 = torch.randn(2, 48, 4, 6)
    wanted = [(2, 8, 16, 24), (2, 8, 8, 12), (2, 8, 4, 6), (2, 8, 2, 3)]
    assert [tuple(m.shape) for m in one([map16])] == wanted
    assert [tuple(m.shape) for m in several([map16 + i for i in range(4)])] == wanted
    assert (one.sources, several.sources) == ([0, 0, 0, 0], [0, 1, 2, 3])


def test_the_nearest_map_feeds_a_stride() -> None:
    neck = tnt_vit.FeaturePyramid([16, 24, 32], [8, 16, 32], out_chans=8)
    assert neck.sources == [0, 0, 1, 2]
    maps = [torch.randn(1, c, 64 // r, 96 // r) for c, r in ((16, 8), (24, 16), (32, 32))]
    assert [tuple(m.shape[2:]) for m in neck(maps)] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_coarse_maps_reach_fine_ones_and_not_back() -> None:
    neck = tnt_vit.FeaturePyramid([48] * 4, [16] * 4, out_chans=8)
    maps = [torch.randn(1, 48, 4, 4) for _ in range(4)]
    with torch.no_grad():
        before, after = neck(maps), neck([*maps[:1], maps[1] + 1, *maps[2:]])
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert moved == [True, True, False, False]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([48], [16, 16]), "in_chans=[48] and reductions=[16, 16]"),
        (([48], [12]), "12 is no power of two from 4"),
        (([48], [16], (4, 16)), "strides=[4, 16] must double"),
        (([], []), "in_chans=[] must hold whole numbers"),
        (([48], [16], (4, 8), 0), "out_chans=0"),
    ],
)
def test_impossible_pyramids_are_refused(args: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        tnt_vit.FeaturePyramid(*args)


def test_a_wrong_number_of_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="made for 1 maps, got 2"):
        tnt_vit.FeaturePyramid([4], [16])([torch.zeros(1, 4, 2, 2)] * 2)


# --- the backbone ---


@pytest.mark.parametrize("kind", ["tnt", "pyramid"])
def test_backbone_takes_any_size(kind: str) -> None:
    model = networks()[kind]
    backbone = tnt_vit.DenseBackbone(model, out_channels=8)
    maps = backbone(torch.randn(1, 3, 50, 90))  # padded to 64 x 96
    assert {k: tuple(m.shape[2:]) for k, m in maps.items()} == {"0": (16, 24), "1": (8, 12), "2": (4, 6), "3": (2, 3)}
    assert backbone.indices == ([0, 1, 2, 3] if kind == "tnt" else [0, 1, 2])
    assert model.num_classes == 5  # the network itself is left alone


def test_backbone_looks_at_the_blocks_of_the_paper() -> None:
    """Blocks 3, 6, 9 and 12 of twelve, and what they hold is what the network computes there."""
    torch.manual_seed(0)
    model = tnt_vit.TNT(**{**TNT, "depth": 12}, num_classes=0).eval()
    backbone = tnt_vit.DenseBackbone(model, out_channels=8).eval()
    assert [i + 1 for i in backbone.indices] == [3, 6, 9, 12]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = model.forward_intermediates(x, indices=[2, 5, 8, 11], intermediates_only=True)
        ours, direct = list(backbone(x).values()), backbone.neck(maps)
    assert all(torch.equal(a, b) for a, b in zip(ours, direct, strict=True))


def test_backbone_keeps_the_statistics_of_the_stem() -> None:
    model = networks()["pyramid"].train()
    x = torch.randn(2, 3, 64, 64)
    frozen = tnt_vit.DenseBackbone(model, out_channels=8).train()
    before = {k: v.clone() for k, v in frozen.state_dict().items() if "running" in k}
    frozen(x)
    assert before
    assert all(torch.equal(v, frozen.state_dict()[k]) for k, v in before.items())
    free = tnt_vit.DenseBackbone(model, out_channels=8, freeze_batch_norm=False).train()
    free(x)
    assert any(not torch.equal(v, free.state_dict()[k]) for k, v in before.items())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"indices": [4]}, "in 0..3, got 4"), ({"indices": [2, 1]}, "must rise"), ({"indices": []}, "must rise")],
)
def test_impossible_indices_are_refused(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        tnt_vit.DenseBackbone(networks()["tnt"], **kwargs)
    with pytest.raises(ValueError, match="got Linear"):
        tnt_vit.DenseBackbone(nn.Linear(1, 1))


# --- the paper's stride 32 ---


def test_stride_32_is_a_mean_of_four_sentences() -> None:
    name, args = "tnt_ti_patch16_224", {"depth": 2, "features_only": True, "out_indices": (1,)}
    torch.manual_seed(0)
    plain = timm.create_model(name, dynamic_img_size=True, **args).eval()
    torch.manual_seed(0)
    pooled = timm.create_model(name, output_stride=32, **args).eval()
    assert (plain.feature_info.reduction(), pooled.feature_info.reduction()) == ([16], [32])
    assert pooled.feature_info.channels() == [192]
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(pooled(x)[0], avg_pool2d(plain(x)[0], 2))
        padded = torch.zeros(1, 3, 64, 96)
        padded[..., :50, :70] = x[..., :50, :70]
        assert torch.equal(pooled(x[..., :50, :70])[0], pooled(padded)[0])


def test_strides_that_cannot_be_had_are_refused() -> None:
    with pytest.raises(ValueError, match=r"output_stride=8 must be a multiple of 16"):
        timm.create_model("tnt_ti_patch16_224", depth=1, features_only=True, out_indices=(0,), output_stride=8)
    with pytest.raises(ValueError, match=r"give features_only=True"):
        timm.create_model("tnt_ti_patch16_224", depth=1, output_stride=32)
    with pytest.raises(ValueError, match=r"output_stride=32 must be a multiple of 64.*out_indices"):
        timm.create_model("pyramid_tnt_ti", features_only=True, output_stride=32)
    with pytest.raises(ValueError, match=r"would pool maps of strides \[8, 16\]"):
        timm.create_model("pyramid_tnt_ti", features_only=True, out_indices=(0, 1), output_stride=32)


# --- detectors ---


def test_detr_of_transformers_learns() -> None:
    timm_backbone = TimmBackboneConfig(backbone="tnt_ti_patch16_224", out_indices=[-1], output_stride=32)
    small = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 4, "num_labels": 1}
    torch.manual_seed(0)
    model = DetrForObjectDetection(DetrConfig(backbone_config=timm_backbone, dropout=0.0, **small, **heads)).train()
    images, corners = squares()
    centred = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1) / 64
    labels = [{"class_labels": torch.zeros(1, dtype=torch.long), "boxes": box[None]} for box in centred]
    losses = train(model, lambda: model(pixel_values=images - 0.5, labels=labels).loss, 15)
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("kind", ["tnt", "pyramid"])
def test_retinanet_of_torchvision_learns(kind: str) -> None:
    backbone = tnt_vit.DenseBackbone(networks()[kind], out_channels=16)
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,)), ((1.0,),) * 4)
    torch.manual_seed(0)
    model = RetinaNet(backbone, num_classes=2, min_size=64, max_size=64, anchor_generator=anchors).train()
    images, boxes = squares()
    targets = [{"boxes": box[None], "labels": torch.ones(1, dtype=torch.long)} for box in boxes]
    losses = train(model, lambda: sum(model(list(images), targets).values()))
    assert min(losses) < 0.9 * losses[0]
    found = model.eval()(list(images[:1]))
    assert set(found[0]) == {"boxes", "scores", "labels"}


def test_mask_rcnn_of_torchvision_learns() -> None:
    backbone = tnt_vit.DenseBackbone(networks()["pyramid"], out_channels=16)
    torch.manual_seed(0)
    model = MaskRCNN(
        backbone,
        min_size=64,
        max_size=64,
        rpn_anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,)), ((1.0,),) * 4),
        box_batch_size_per_image=16,
        box_roi_pool=MultiScaleRoIAlign(list("0123"), 4, 2),
        box_head=TwoMLPHead(16 * 16, 32),
        box_predictor=FastRCNNPredictor(32, 2),
        mask_roi_pool=MultiScaleRoIAlign(list("0123"), 8, 2),
        mask_head=MaskRCNNHeads(16, (16,), 1),
        mask_predictor=MaskRCNNPredictor(16, 16, 2),
    ).train()
    images, boxes = squares()
    masks = (images.mean(1) > 0.5).to(torch.uint8)
    ones = torch.ones(1, dtype=torch.long)
    targets = [{"boxes": b[None], "labels": ones, "masks": m[None]} for b, m in zip(boxes, masks, strict=True)]
    losses = train(model, lambda: sum(model(list(images), targets).values()), lr=4e-3)
    assert min(losses) < 0.8 * losses[0]


def test_the_reason_for_the_detr_row_is_true() -> None:
    timm_backbone = TimmBackboneConfig(backbone="effkit_tnt_s_patch16_224", out_indices=[-1], output_stride=32)
    with torch.device("meta"):
        model = DetrForObjectDetection(DetrConfig(backbone_config=timm_backbone, num_labels=91))
    params = sum(p.numel() for p in model.parameters())
    assert params == 41_026_688
    assert f"{params / 1e6:.1f} M" in DETR_PARAMS
