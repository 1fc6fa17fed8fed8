"""The llama2.c formats: parity with its arithmetic, refusal of broken files, the tokenizer, the real small model."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from effkit.errors import UserError
from effkit.testing import shared_data
from esa_attention.evaluation.models.llama2c_tokenizer import Llama2cTokenizer
from esa_attention.evaluation.models.registry import build_model, load_tokenizer
from esa_attention.evaluation.models.sampling import sample_stories
from esa_attention.evaluation.models.stories import load_llama2c, read_header
from esa_attention.evaluation.tasks.ppl import bucket_means, token_nats

FIELDS = {"dim": 24, "hidden": 20, "layers": 3, "heads": 4, "kv_heads": 2, "vocab": 50, "seq_len": 32}


def make_blocks(shared: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights in file order, with the tables that the real exporter writes."""
    rng = np.random.default_rng(seed)
    f = FIELDS
    head = f["dim"] // f["heads"]
    kv = head * f["kv_heads"]
    shapes = {
        "emb": (f["vocab"], f["dim"]),
        "rms_att": (f["layers"], f["dim"]),
        "wq": (f["layers"], f["dim"], f["dim"]),
        "wk": (f["layers"], kv, f["dim"]),
        "wv": (f["layers"], kv, f["dim"]),
        "wo": (f["layers"], f["dim"], f["dim"]),
        "rms_ffn": (f["layers"], f["dim"]),
        "w1": (f["layers"], f["hidden"], f["dim"]),
        "w2": (f["layers"], f["dim"], f["hidden"]),
        "w3": (f["layers"], f["hidden"], f["dim"]),
        "rms_final": (f["dim"],),
    }
    blocks = {k: rng.normal(0, 0.3, s).astype(np.float32) + ("rms" in k) for k, s in shapes.items()}
    angles = rope_angles(f["seq_len"], head)
    blocks["cos"], blocks["sin"] = np.cos(angles), np.sin(angles)
    if not shared:
        blocks["wcls"] = rng.normal(0, 0.3, (f["vocab"], f["dim"])).astype(np.float32)
    return blocks


def rope_angles(length: int, head: int) -> np.ndarray:
    frequencies = 1.0 / 10000.0 ** (torch.arange(0, head, 2, dtype=torch.float32) / head)
    return (torch.arange(length, dtype=torch.float32)[:, None] * frequencies).numpy()


def write_model(path: Path, blocks: dict[str, np.ndarray]) -> Path:
    f = FIELDS
    vocab = -f["vocab"] if "wcls" in blocks else f["vocab"]
    head = struct.pack("<7i", f["dim"], f["hidden"], f["layers"], f["heads"], f["kv_heads"], vocab, f["seq_len"])
    path.write_bytes(head + b"".join(np.ascontiguousarray(b, np.float32).tobytes() for b in blocks.values()))
    return path


def run_c_arithmetic(blocks: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The forward pass of llama2.c's run.c, token by token in float64; only the angles are float32, as in the model."""
    b = {k: v.astype(np.float64) for k, v in blocks.items()}
    heads, kv_heads = FIELDS["heads"], FIELDS["kv_heads"]
    head = FIELDS["dim"] // heads
    angles = torch.from_numpy(rope_angles(len(ids), head))
    cos, sin = angles.cos().double().numpy(), angles.sin().double().numpy()

    def rmsnorm(x, w):
        return w * x / np.sqrt((x * x).mean() + 1e-5)

    def rotate(x, pos):  # neighbours (2i, 2i+1)
        x = x.reshape(-1, head // 2, 2)
        even, odd = x[..., 0], x[..., 1]
        c, s = cos[pos], sin[pos]
        return np.stack([even * c - odd * s, even * s + odd * c], -1).reshape(-1, head)

    keys = [[] for _ in range(FIELDS["layers"])]
    values = [[] for _ in range(FIELDS["layers"])]
    out = []
    for pos, token in enumerate(ids):
        x = b["emb"][token].copy()
        for layer in range(FIELDS["layers"]):
            h = rmsnorm(x, b["rms_att"][layer])
            q = rotate(b["wq"][layer] @ h, pos)
            keys[layer].append(rotate(b["wk"][layer] @ h, pos))
            values[layer].append((b["wv"][layer] @ h).reshape(-1, head))
            mixed = np.zeros((heads, head))
            for i in range(heads):
                group = i // (heads // kv_heads)
                scores = np.array([q[i] @ k[group] for k in keys[layer]]) / np.sqrt(head)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                mixed[i] = sum(w * v[group] for w, v in zip(weights, values[layer], strict=True))
            x = x + b["wo"][layer] @ mixed.reshape(-1)
            h = rmsnorm(x, b["rms_ffn"][layer])
            gate = b["w1"][layer] @ h
            x = x + b["w2"][layer] @ (gate / (1 + np.exp(-gate)) * (b["w3"][layer] @ h))
        out.append(b.get("wcls", b["emb"]) @ rmsnorm(x, b["rms_final"]))
    return np.stack(out)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_parity_with_the_arithmetic_of_llama2c(tmp_path, shared, dtype, tolerance):
    blocks = make_blocks(shared)
    model = load_llama2c(write_model(tmp_path / "model.bin", blocks), dtype=dtype)
    # transformers normalises in float32 whatever the weights are; the file's numbers are to be compared, not that.
    if dtype == torch.float64:
        _norms_in_float64(model)
    ids = torch.randint(0, FIELDS["vocab"], (20,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
    expected = run_c_arithmetic(blocks, ids.tolist())
    assert logits.dtype == dtype
    assert np.abs(logits.numpy() - expected).max() <= tolerance * max(1.0, np.abs(expected).max())
    assert model.config.tie_word_embeddings is shared
    assert model.config.max_position_embeddings == FIELDS["seq_len"]


def _norms_in_float64(model) -> None:
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = lambda x, m=module: (
                m.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon)
            )


def test_header_of_the_synthetic_file(tmp_path):
    header = read_header(write_model(tmp_path / "model.bin", make_blocks(shared=False)))
    assert (header.dim, header.head_dim, header.num_kv_heads, header.vocab_size) == (24, 6, 2, 50)
    assert not header.shared


def _model_bytes(tmp_path) -> bytes:
    return write_model(tmp_path / "whole.bin", make_blocks()).read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw[:-4], ["truncated", "asks for"]),
        (lambda raw: raw + b"\0\0\0\0", ["too long", "asks for"]),
        (lambda raw: raw[:20], ["no llama2.c model", "20 bytes"]),
        (lambda raw: b"", ["no llama2.c model", "0 bytes"]),
        (lambda raw: b"PK\x03\x04" + raw[4:], ["no llama2.c model", "head reads"]),
        (lambda raw: struct.pack("<i", -24) + raw[4:], ["no llama2.c model", "-24"]),
        (lambda raw: struct.pack("<2i", 0x616B3432, 1) + raw[8:], ["version 1", "--version 0"]),
        (lambda raw: raw[:12] + struct.pack("<2i", 4, 3) + raw[20:], ["no llama2.c model"]),
    ],
)
def test_broken_model_files_are_refused_in_one_line(tmp_path, change, words):
    path = tmp_path / "broken.bin"
    path.write_bytes(change(_model_bytes(tmp_path)))
    with pytest.raises(UserError) as error:
        load_llama2c(path)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in ["broken.bin", *words])


def test_missing_file_folder_and_foreign_rope_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"gone\.bin.*cannot be read"):
        load_llama2c(tmp_path / "gone.bin")
    with pytest.raises(UserError, match="cannot be read"):
        load_llama2c(tmp_path)
    blocks = make_blocks()
    angles = rope_angles(32, 6) ** 1.5
    path = write_model(tmp_path / "theta.bin", {**blocks, "cos": np.cos(angles), "sin": np.sin(angles)})
    with pytest.raises(UserError, match="another base"):
        load_llama2c(path)
    empty = {**blocks, "cos": np.zeros((32, 3)), "sin": np.zeros((32, 3))}
    assert load_llama2c(write_model(tmp_path / "zeros.bin", empty)).config.hidden_size == 24


PIECES = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{i:02X}>".encode() for i in range(256))]
WORDS = [b" ", b"a", b"b", b"c", b"ab", b"bc", b" a", b"abc", b"aa", "é".encode(), b"<", b"s", b">", b"<s", b"<s>"]


def make_tokenizer(seed: int = 0) -> Llama2cTokenizer:
    rng = np.random.default_rng(seed)
    scores = [0.0] * len(PIECES) + rng.integers(-5, 0, len(WORDS)).astype(float).tolist()
    return Llama2cTokenizer(PIECES + WORDS, scores)


def write_tokenizer(path: Path, tokenizer: Llama2cTokenizer) -> Path:
    raw = struct.pack("<i", max(map(len, tokenizer.pieces)))
    for piece, score in zip(tokenizer.pieces, tokenizer.scores, strict=True):
        raw += struct.pack("<fi", score, len(piece)) + piece
    path.write_bytes(raw)
    return path


def encode_as_run_c(tokenizer: Llama2cTokenizer, text: str) -> list[int]:
    """The quadratic loop of run.c: look at all neighbours, join the best, begin again."""
    known = {p: i for i, p in enumerate(tokenizer.pieces) if i >= 259}
    ids: list[int] = []
    for character in " " + text:
        raw = character.encode()
        ids += [known[raw]] if raw in known else [byte + 3 for byte in raw]
    while True:
        best, where, joint = -1e10, -1, -1
        for i in range(len(ids) - 1):
            if min(ids[i], ids[i + 1]) < 259:
                continue
            found = known.get(tokenizer.pieces[ids[i]] + tokenizer.pieces[ids[i + 1]])
            if found is not None and tokenizer.scores[found] > best:
                best, where, joint = tokenizer.scores[found], i, found
        if where < 0:
            return ids
        ids[where : where + 2] = [joint]


@pytest.mark.parametrize("seed", range(4))
def test_tokenizer_joins_as_run_c_does(tmp_path, seed):
    made = make_tokenizer(seed)
    tokenizer = Llama2cTokenizer.load(write_tokenizer(tmp_path / "tok.bin", made))
    assert tokenizer.pieces == made.pieces
    rng = np.random.default_rng(seed)
    for _ in range(100):
        text = "".join(rng.choice(list("aabbc é\n<s>Z"), rng.integers(1, 40)))
        ids = tokenizer.encode(text)
        assert ids == encode_as_run_c(tokenizer, text)
        assert tokenizer.decode(ids) == text


def test_tokenizer_special_tokens_bytes_and_spaces():
    tokenizer = make_tokenizer()
    assert tokenizer.encode("") == []
    assert tokenizer.encode("", bos=True, eos=True) == [1, 2]
    assert tokenizer.encode("Z")[-1] == ord("Z") + 3
    assert tokenizer.encode("é")[-1] == 259 + WORDS.index("é".encode())
    assert 1 not in tokenizer.encode("\n<s>\n <s>")  # no text spells the begin token
    assert tokenizer.decode(tokenizer.encode(" a", bos=True)) == " a"
    assert tokenizer.decode(torch.tensor(tokenizer.encode("a a", eos=True))) == "a a"
    assert tokenizer.decode([3 + 0xC3]) == "\ufffd"
    with pytest.raises(UserError, match=r"0\.\.273.*9999"):
        tokenizer.decode([9999])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw[:-1], "truncated inside token"),
        (lambda raw: raw + b"\0\0\0", "truncated after token"),
        (lambda raw: raw[:8], "no llama2.c tokenizer"),
        (lambda raw: raw[:8] + struct.pack("<i", 999) + raw[12:], "token 0 has 999 bytes"),
        (lambda raw: raw[:600], "truncated|must hold"),
    ],
)
def test_broken_tokenizer_files_are_refused(tmp_path, change, words):
    path = write_tokenizer(tmp_path / "tok.bin", make_tokenizer())
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=words):
        Llama2cTokenizer.load(path)
    with pytest.raises(UserError, match="cannot be read"):
        Llama2cTokenizer.load(tmp_path / "gone.bin")


def test_registry_says_which_files_are_needed(tmp_path):
    for call in (build_model, load_tokenizer):
        with pytest.raises(UserError, match=r"stories260K\.bin and tok512\.bin.*nothing is downloaded"):
            call("stories260k")
        with pytest.raises(UserError, match="does not exist"):
            call("stories260k", tmp_path)
    write_model(tmp_path / "stories260K.bin", make_blocks())
    write_tokenizer(tmp_path / "tok512.bin", make_tokenizer())
    assert build_model("stories260k", tmp_path).config.hidden_size == 24
    assert load_tokenizer("stories260k", tmp_path / "stories260K.bin").vocab_size == len(PIECES + WORDS)


def test_sampling_is_deterministic_and_bounded(tmp_path):
    model = load_llama2c(write_model(tmp_path / "model.bin", make_blocks()))
    tokenizer = make_tokenizer()
    first = sample_stories(model, tokenizer, 500, seed=3)
    assert first.shape == (500,)
    assert first.dtype == torch.int64
    assert torch.equal(first, sample_stories(model, tokenizer, 900, seed=3)[:500])
    assert not torch.equal(first, sample_stories(model, tokenizer, 500, seed=4))
    assert first[0] == 1
    assert not torch.isin(first[1:], torch.tensor([1, 2])).any()
    cold = sample_stories(model, tokenizer, 20, temperature=1e-4)
    with torch.no_grad():
        assert torch.equal(model(cold[None, :10]).logits[0].argmax(-1)[:9], cold[1:10])  # almost greedy
    for kwargs, words in (({"num_tokens": 0}, "num_tokens"), ({"num_tokens": 5, "temperature": 0.0}, "temperature")):
        with pytest.raises(UserError, match=words):
            sample_stories(model, tokenizer, **kwargs)


def test_the_real_model_speaks_and_breaks_beyond_its_context():
    folder = shared_data("stories260k")
    model, tokenizer = build_model("stories260k", folder), load_tokenizer("stories260k", folder)
    assert tokenizer.vocab_size == model.config.vocab_size == 512
    text = "Once upon a time, there was a little girl named Lily.\nShe liked to play."
    assert tokenizer.decode(tokenizer.encode(text, bos=True, eos=True)) == text
    ids = sample_stories(model, tokenizer, 4096, seed=0)
    assert "time" in tokenizer.decode(ids[:512])
    inside, _, far = bucket_means(token_nats(model, ids), [0, 512, 1024, 4095])
    assert 1.0 < inside < 1.7
    assert far > 2 * inside
    windows = ids[1:].unfold(0, 511, 511)
    with torch.no_grad():
        logits = model(torch.cat([torch.ones(len(windows), 1, dtype=torch.long), windows[:, :-1]], 1)).logits
    fresh = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows.flatten())
    assert 1.35 < fresh < 1.6
