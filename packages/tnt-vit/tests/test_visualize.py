"""Figures 3 to 7: what is drawn is what the model computed, at the right place; files, captions and refusals."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

import tnt_vit
from effkit.plots import describe, read_description, save_png
from tnt_vit.commands.subject import Subject
from tnt_vit.commands.visualize import FIGURES, visualize_report
from tnt_vit.plots import drawing
from tnt_vit.plots.attention import class_attention, inner_attention, sentence_attention
from tnt_vit.plots.features import feature_maps, word_maps

ARGS = {
    "img_size": 64,
    "patch_size": 16,
    "embed_dim": 24,
    "inner_dim": 6,
    "depth": 3,
    "num_heads": 3,
    "inner_num_heads": 2,
    "num_classes": 5,
}


def small(**kwargs) -> tnt_vit.TNT:
    """A tiny model whose weights are not the initial ones, so that attention is not flat."""
    torch.manual_seed(0)
    model = tnt_vit.TNT(**{**ARGS, **kwargs}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject.of(small(), "chelsea")


def maps_of(fig: Figure) -> list[np.ndarray]:
    """Two-dimensional arrays of a figure in drawing order, without those of the input."""
    images = [image.get_array() for ax in fig.axes for image in ax.images]
    return [np.asarray(a) for a in images if a.ndim == 2]


def caption_of(fig: Figure) -> str:
    return fig.get_supxlabel()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_decodable_png_of_limited_size(subject, tmp_path, name):
    fig = FIGURES[name][1](subject)
    assert f"Figure {FIGURES[name][0]}" in fig.get_suptitle()
    path = save_png(fig, tmp_path / "figure.png", photos=True)
    assert path.stat().st_size < 300 * 1024
    assert subject.name in read_description(path)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 150
    assert pixels.std() > 10
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("name", FIGURES)
def test_random_weights_are_printed_on_every_figure(name):
    torch.manual_seed(0)
    fresh = tnt_vit.TNT(**ARGS)
    assert "RANDOM WEIGHTS" in caption_of(FIGURES[name][1](Subject.of(fresh, "china")))
    trained = caption_of(FIGURES[name][1](Subject.of(small(), "china", pretrained="runs/a/best.ckpt")))
    assert "RANDOM" not in trained
    assert "weights: best.ckpt" in trained


def test_a_words_mean_lands_on_its_pixel(subject):
    drawn = maps_of(word_maps(subject, [1, 3]))
    words = subject.model.word_features(subject.x)
    for image, block in zip(drawn, (0, 2), strict=True):
        assert image.shape == (16, 16)  # 4 sentences a side, 4 words a side of each
        for row, col in ((0, 0), (5, 14), (15, 3)):
            sentence, word = (row // 4) * 4 + col // 4, (row % 4) * 4 + col % 4
            assert image[row, col] == pytest.approx(float(words[block][0, sentence, word].mean()), rel=1e-5)


def test_an_edited_patch_changes_its_words_only(subject):
    edited = Subject(subject.model, subject.x.clone(), subject.pixels, "edited", "")
    edited.x[:, :, 16:32, 48:64] += 0.5  # sentence (1, 3)
    for before, after in zip(maps_of(word_maps(subject)), maps_of(word_maps(edited)), strict=True):
        changed = before != after
        assert changed[4:8, 12:16].all()
        changed[4:8, 12:16] = False
        assert not changed.any()


def test_feature_maps_show_the_same_seeded_channels_of_each_block(subject):
    fig = feature_maps(subject, [1, 2], channels=5, seed=3)
    titles = [ax.get_title() for ax in fig.axes if ax.images][1:]
    channels = [int(t) for t in titles[:5]]
    assert titles[:5] == titles[5:]
    assert channels == sorted(set(channels))
    want = subject.model.forward_intermediates(subject.x, indices=[0, 1], intermediates_only=True)
    drawn = maps_of(fig)
    for i, image in enumerate(drawn):
        np.testing.assert_allclose(image, want[i // 5][0, channels[i % 5]].detach(), rtol=1e-5)
    other = [ax.get_title() for ax in feature_maps(subject, [1], channels=5, seed=4).axes]
    assert other[1:6] != titles[:5]


def test_inner_attention_is_that_of_the_query_word(subject):
    fig = inner_attention(subject, [2], sentence=(1, 2), word=(3, 0))
    inner = subject.model.attention_maps(subject.x)[1].inner
    want = inner[0, 1 * 4 + 2, :, 3 * 4 + 0].reshape(2, 4, 4)
    drawn = maps_of(fig)
    assert len(drawn) == 3  # two heads and their mean
    np.testing.assert_allclose(drawn[0], want[0], rtol=1e-5)
    np.testing.assert_allclose(drawn[1], want[1], rtol=1e-5)
    np.testing.assert_allclose(drawn[2], want.mean(0), rtol=1e-5)
    assert drawn[0].sum() == pytest.approx(1, abs=1e-5)
    boxes = [p for ax in fig.axes for p in ax.patches if isinstance(p, Rectangle)]
    assert boxes[0].get_bbox().bounds == (31.5, 15.5, 16, 16)  # x, y, width, height of sentence (1, 2) in pixels
    assert boxes[1].get_bbox().bounds == (-0.5, 11.5, 4, 4)  # word (3, 0) in the enlarged sentence
    assert boxes[2].get_bbox().bounds == (-0.5, 2.5, 1, 1)  # and on the maps


def test_sentence_attention_is_the_row_of_the_query(subject):
    fig = sentence_attention(subject, [3], sentence=(2, 1))
    outer = subject.model.attention_maps(subject.x)[2].outer[0].mean(0)[1:, 1:]
    grey, over, matrix = maps_of(fig)
    assert grey.shape == (64, 64)
    np.testing.assert_allclose(over, outer[2 * 4 + 1].reshape(4, 4), rtol=1e-5)
    np.testing.assert_allclose(matrix, outer, rtol=1e-5)


def test_class_attention_is_that_of_the_class_token(subject):
    outer = subject.model.attention_maps(subject.x)[1].outer[0]
    _, mean, again, *heads = maps_of(class_attention(subject, 2))
    np.testing.assert_allclose(mean, outer.mean(0)[0, 1:].reshape(4, 4), rtol=1e-5)
    np.testing.assert_array_equal(mean, again)
    assert len(heads) == 3
    np.testing.assert_allclose(heads[2], outer[2, 0, 1:].reshape(4, 4), rtol=1e-5)


def test_the_query_is_the_busiest_sentence_unless_named():
    pixels = np.full((64, 64, 3), 128, dtype=np.uint8)
    pixels[32:48:2, 16:32] = 255
    model = small()
    subject = Subject.of(model, Image.fromarray(pixels).resize((71, 71), Image.Resampling.NEAREST))
    titles = [ax.get_title() for ax in inner_attention(subject).axes]
    assert "sentence (2, 1), word (1, 1)" in titles


def test_other_sizes_leave_the_model_alone():
    model = small().train()
    subject = Subject.of(model, "china", img_size=(48, 96))
    assert (model.img_size, model.training) == ((64, 64), True)
    assert (subject.grid, subject.model.training) == ((3, 6), False)
    fig = word_maps(subject, [1])
    assert maps_of(fig)[0].shape == (12, 24)
    assert "48x96 pixels" in caption_of(fig)


def test_pictures_are_prepared_as_in_the_run_that_trained_the_model(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("data: {name: digits}\n")
    picture = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)).convert("RGB")
    whole = Subject.of(small(), picture, pretrained=str(tmp_path / "model.safetensors"))
    np.testing.assert_allclose(whole.pixels * 255, np.asarray(picture), atol=1e-4)  # digits are not cropped
    assert not np.allclose(Subject.of(small(), picture).pixels, whole.pixels)


def test_grey_models_show_grey_pictures():
    subject = Subject.of(small(in_chans=1), "china")
    assert subject.pixels.shape == (64, 64)
    for _, function in FIGURES.values():
        assert isinstance(function(subject), Figure)


def test_hybrids_draw_inner_attention_where_there_is_some():
    subject = Subject.of(small(tnt_blocks=[2]), "china")
    labels = [ax.get_ylabel() for ax in inner_attention(subject).axes]
    assert [label for label in labels if label] == ["block 2"]
    titles = [ax.get_title() for ax in word_maps(subject).axes]
    assert titles == ["input", "block 1 (no inner part)", "block 2", "block 3 (no inner part)"]
    with pytest.raises(ValueError, match=r"blocks=\[1\].*\[2\]|blocks=\[1\].*2\.\.2"):
        inner_attention(subject, [1])
    with pytest.raises(ValueError, match="tnt_blocks is empty"):
        inner_attention(Subject.of(small(tnt_blocks=[]), "china"))


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (inner_attention, {"sentence": (4, 0)}, r"sentence=\[4, 0\].*0\.\.3"),
        (inner_attention, {"sentence": (0, -1)}, r"sentence=\[0, -1\]"),
        (inner_attention, {"word": (0, 4)}, r"word=\[0, 4\].*0\.\.3"),
        (sentence_attention, {"sentence": (1,)}, r"sentence=\[1\].*row, column"),
        (sentence_attention, {"blocks": [0]}, r"blocks=\[0\].*1\.\.3"),
        (word_maps, {"blocks": [4]}, r"blocks=\[4\].*1\.\.3"),
        (word_maps, {"blocks": [1, 1]}, "once"),
        (feature_maps, {"channels": 25}, r"channels.*1\.\.24.*25"),
        (class_attention, {"block": 9}, r"9.*1\.\.3"),
    ],
)
def test_queries_out_of_range_raise(subject, function, arguments, words):
    with pytest.raises(ValueError, match=words):
        function(subject, **arguments)


def test_attention_that_no_machine_holds_is_refused(subject, monkeypatch):
    monkeypatch.setattr(drawing, "_MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"Figure 7.*smaller img_size"):
        class_attention(subject)


def test_default_blocks_are_the_papers():
    assert drawing.default_blocks(range(1, 13)) == (1, 6, 12)
    assert drawing.default_blocks([4]) == (4,)
    assert drawing.default_blocks((1, 4, 8, 12)) == (1, 4, 12)


def test_report_lists_its_files(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (80, 80), "teal").save(tmp_path / folder / "same name.png")
    out = tmp_path / "out"
    sources = [tmp_path / "a" / "same name.png", tmp_path / "b" / "same name.png"]
    report = visualize_report(small(), sources, out, ["word_maps", "feature_maps"], feature_size=96)
    names = ["same_name_word_maps.png", "same_name_feature_maps.png"]
    names += ["same_name-2_word_maps.png", "same_name-2_feature_maps.png"]
    assert [f.name for f in report.files] == names
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    assert [row[3] for row in report.tables[0].rows] == ["64x64", "96x96"] * 2
    assert report.exit_code == 0
    assert report.lines == []
    assert visualize_report(small(), ["china"], out, "word_maps", pretrained=False).data["random_weights"]


def test_nothing_is_drawn_if_an_argument_is_wrong(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"word_map.*word_maps"):
        visualize_report(small(), ["china"], out, ["word_map"])
    with pytest.raises(ValueError, match="once"):
        visualize_report(small(), ["china"], out, [])
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        visualize_report(small(), ["china", tmp_path / "gone.png"], out)
    with pytest.raises(ValueError, match=r"multiple of model\.patch_size"):
        visualize_report(small(), ["china"], out, img_size=50)
    with pytest.raises(ValueError, match=r"tnt_vit\.TNT.*Linear"):
        visualize_report(torch.nn.Linear(1, 1), ["china"], out)
    assert not out.exists()


def test_noise_is_squeezed_below_the_limit(tmp_path):
    fig = Figure(figsize=(9, 9))
    ax = fig.subplots()
    ax.imshow(np.random.default_rng(0).random((900, 900, 3)))
    describe(fig, "Noise in all colours, from edge to edge.")
    path = save_png(fig, tmp_path / "noise.png", photos=True)
    assert path.stat().st_size < 300 * 1024
