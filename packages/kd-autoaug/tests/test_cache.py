"""The cache of teacher logits: bit-equality, sizes, kills, shards, refusals, and the command."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from effkit.errors import UserError
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.cache.build import build_cache, shard_range, verify_cache
from kd_autoaug.cache.cache import LogitCache
from kd_autoaug.cache.files import apart
from kd_autoaug.cache.header import Header, record_bytes
from kd_autoaug.distillation.loss import TopKDistillationLoss
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.distillation.terms import dense_logits, top_logits
from kd_autoaug.distillation.views import ViewKey
from kd_autoaug.networks import create_network

N, V, C = 40, 3, 10
IMAGES = torch.randint(256, (N, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def logits(count: int, classes: int = C, seed: int = 0) -> torch.Tensor:
    return 5 * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


def make(path: Path, **options) -> LogitCache:
    sizes = {"num_samples": N, "num_views": V, "num_classes": C, "k": 4}
    return LogitCache.create(path, **{**sizes, **options})


def teacher(seed: int = 0) -> Teacher:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Teacher(create_network("digits_cnn", C, 1, 8), 0.5, 0.25)


def augmentation(seed: int = 0) -> BatchAugment:
    return BatchAugment(Policy.from_name("randaugment(n=2,m=9,space=tf_tpu)"), seed=seed)


def prints(of: Teacher, by: BatchAugment) -> dict[str, str]:
    return {
        "teacher": of.fingerprint(),
        "normalisation": of.normalisation_fingerprint(),
        "augment": by.fingerprint(),
        "data": "d" * 64,
    }


def pictures(index: torch.Tensor, view: int) -> torch.Tensor:
    return IMAGES[index]


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_sizes_of_the_fact_sheet() -> None:
    assert record_bytes(5, 1000) == record_bytes(5, 10) == 24
    imagenet = Header(1_281_167, 300, 1000, 5)
    assert imagenet.record_bytes * 1_281_167 * 300 == 9_224_402_400  # 9.2 GB
    assert Header(50_000, 200, 10, 5).record_bytes * 50_000 * 200 == 240_000_000
    assert 1_281_167 * 300 * 1000 * 2 // 10**9 == 768  # all logits in float16: why the cache keeps K of them
    assert record_bytes(5, 40_000) == 5 * (2 + 4) + 4
    assert record_bytes(10, 10, "float32", temperatures=2) == 10 * (4 + 2) + 8


def test_files_have_the_sizes_that_the_header_says(tmp_path: Path) -> None:
    cache = make(tmp_path / "c", temperatures=(1.0, 4.0))
    sizes = {f.name: f.stat().st_size for f in cache.path.iterdir() if f.suffix == ".bin"}
    assert sizes == {
        "logits.bin": N * V * 4 * 2,
        "classes.bin": N * V * 4 * 2,
        "rest.bin": N * V * 2 * 4,
        "sums.bin": N * V * 4,
        "done.bin": N * V,
    }
    assert sum(sizes.values()) == cache.header.total_bytes
    assert not list(tmp_path.glob(".*"))


# --- records ----------------------------------------------------------------------------------------------------------


def test_float32_of_all_classes_is_bit_equal(tmp_path: Path) -> None:
    cache = make(tmp_path / "c", k=C, dtype="float32")
    z = logits(N)
    z[3] = 1.5  # ties
    cache.write(torch.arange(N), 0, z)
    index = torch.tensor([7, 3, 3, 39])
    assert torch.equal(dense_logits(cache.read(index, 0)), z[index])
    student, labels = logits(4, seed=1), torch.tensor([1, 2, 3, 4])
    for mode in ("renorm", "partial", "bucket"):
        loss = TopKDistillationLoss(temperature=3.0, mode=mode)
        online, cached = loss(student, z[index], labels), loss(student, cache.read(index, 0), labels)
        assert all(torch.equal(online[name], cached[name]) for name in online)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_cached_and_online_losses_agree(tmp_path: Path, dtype: str, k: int) -> None:
    cache = make(tmp_path / "c", k=k, dtype=dtype, temperatures=(1.0, 3.0))
    z, student, labels = logits(N), logits(N, seed=1), torch.arange(N) % C
    cache.write(torch.arange(N), 2, z)
    tolerance = 1e-5 if dtype == "float32" else 5e-3
    for mode in ("renorm", "partial", "bucket") if k > 1 else ("partial", "bucket"):
        for direction in ("student_teacher", "teacher_student"):
            loss = TopKDistillationLoss(k, 3.0, 0.5, mode, direction)
            online = loss(student, z, labels)
            cached = loss(student, cache.read(torch.arange(N), 2, temperature=3.0), labels)
            torch.testing.assert_close(cached["kd"], online["kd"], rtol=tolerance, atol=tolerance)
            assert torch.equal(cached["label_outside_topk"], online["label_outside_topk"])


def test_rounded_probabilities_still_add_up_to_one(tmp_path: Path) -> None:
    cache = make(tmp_path / "c")
    cache.write(torch.arange(N), 0, logits(N))
    top = cache.read(torch.arange(N), 0)
    inside = (top.values - top.logsumexp[:, None]).exp().sum(1)
    torch.testing.assert_close(inside + (top.rest - top.logsumexp).exp(), torch.ones(N), rtol=1e-6, atol=1e-6)
    exact = top_logits(logits(N), 4, 1.0)
    assert torch.equal(top.classes, exact.classes)
    torch.testing.assert_close(top.rest, exact.rest)


def test_views_wrap(tmp_path: Path) -> None:
    cache = make(tmp_path / "c")
    for view in range(V):
        cache.write(torch.arange(N), view + V, logits(N, seed=view))
    index, view = torch.tensor([1, 1, 1, 5]), torch.tensor([0, 1, 2 + 7 * V, 4])
    read = cache.read(index, view)
    expected = torch.stack([logits(N, seed=s)[i] for i, s in zip([1, 1, 1, 5], [0, 1, 2, 1], strict=True)])
    assert torch.equal(read.classes, top_logits(expected, 4, 1.0).classes)
    assert cache.complete
    assert cache.count() == N * V


def test_classes_beyond_int16(tmp_path: Path) -> None:
    cache = LogitCache.create(tmp_path / "c", num_samples=2, num_views=1, num_classes=40_000, k=3)
    z = torch.zeros(2, 40_000)
    z[:, 39_990:] = torch.arange(10.0)
    cache.write(torch.arange(2), 0, z)
    assert cache.read(torch.tensor([1]), 0).classes.tolist() == [[39_999, 39_998, 39_997]]


def test_missing_records_are_named(tmp_path: Path) -> None:
    cache = make(tmp_path / "c")
    cache.write(torch.tensor([0, 1, 5]), torch.tensor([0, 0, 1]), logits(3))
    assert cache.missing(0, 0, 6).tolist() == [2, 3, 4, 5]
    assert cache.missing(1, 4).tolist() == [4, *range(6, N)]
    assert cache.has(torch.tensor([5, 5, 5]), torch.tensor([0, 1, 2])).tolist() == [False, True, False]
    assert not cache.complete
    with pytest.raises(UserError, match=r"no record of sample 2, view 0 \(1 of 2 in this batch"):
        cache.read(torch.tensor([1, 2]), 0)


def test_keys_of_other_views_are_refused(tmp_path: Path) -> None:
    cache = make(tmp_path / "c", fingerprints={"augment": "a" * 64})
    cache.write(torch.arange(N), 0, logits(N))
    key = ViewKey(torch.tensor([3]), torch.tensor([0]), "a" * 64)
    assert torch.equal(cache.read(key).values, cache.read(torch.tensor([3]), 0).values)
    with pytest.raises(UserError, match="other views: augment is aaaaaaaaaaaa, the batch's is bbbbbbbbbbbb"):
        cache.read(ViewKey(key.index, key.view, "b" * 64))


# --- what is refused --------------------------------------------------------------------------------------------------


def test_bad_values_are_refused(tmp_path: Path) -> None:
    cache = make(tmp_path / "c", temperatures=(2.0,))

    def refused(message: str, call) -> None:
        with pytest.raises(UserError, match=message):
            call()

    refused(r"index 40 is not in 0\.\.39", lambda: cache.write(torch.tensor([40]), 0, logits(1)))
    refused(r"index -1 is not in 0\.\.39", lambda: cache.has(torch.tensor([-1]), 0))
    refused("a view is negative", lambda: cache.has(torch.tensor([1]), -1))
    refused(r"index must be int64 \(B,\)", lambda: cache.has(torch.tensor([1.0]), 0))
    refused(r"shape \(1, 9\), expected \(1, 10\)", lambda: cache.write(torch.tensor([0]), 0, logits(1, 9)))
    refused("logits are not finite", lambda: cache.write(torch.tensor([0]), 0, torch.full((1, C), torch.nan)))
    refused(
        r"as large as 7e\+04, which cache\.dtype=float16",
        lambda: cache.write(torch.tensor([0]), 0, torch.full((1, C), 7e4)),
    )
    refused(r"begin=5 and end=41 must be in 0\.\.40", lambda: cache.missing(0, 5, 41))
    assert cache.count() == 0
    cache.write(torch.tensor([0]), 0, logits(1))
    refused(r"temperature=1\.0 is not among.*\[2\.0\]", lambda: cache.read(torch.tensor([0]), 0, temperature=1.0))
    refused("view is not given", lambda: cache.read(torch.tensor([0])))
    refused("exists already", lambda: make(tmp_path / "c"))
    refused(r"cache\.k=11 must be in 1\.\.10", lambda: make(tmp_path / "d", k=11))
    refused(r"cache\.num_views=0", lambda: make(tmp_path / "d", num_views=0))
    refused(r"cache\.dtype='int8' is not known", lambda: make(tmp_path / "d", dtype="int8"))
    refused(r"cache\.temperatures=\[0\.0\]", lambda: make(tmp_path / "d", temperatures=(0.0,)))
    huge = {"num_samples": 10**12, "num_views": 10**6}
    refused(r" [GT]B free, the cache needs 2[\d.]+ TB", lambda: make(tmp_path / "d", **huge))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["c"]
    cache.flush()
    refused("open for reading", lambda: LogitCache.open(tmp_path / "c").write(torch.tensor([0]), 0, logits(1)))


def test_sizes_are_told_apart_in_units_that_fit():
    assert apart(0, 12_345) == ["0 bytes", "12.3 kB"]
    assert apart(1_000_000, 2_500_000_000_000) == ["1.0 MB", "2.5 TB"]
    assert apart(1_000_400_000, 1_002_000_000) == ["1.000 GB", "1.002 GB"]
    assert apart(1_000_000_001, 1_000_000_002) == ["1,000,000,001 bytes", "1,000,000,002 bytes"]


def test_a_full_disk_is_said_in_units_that_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(UserError, match=r"has 0 bytes free, the cache needs \d+\.\d kB: take fewer views"):
        make(tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_of_something_else_is_refused_with_the_cause(tmp_path: Path) -> None:
    mine = {"teacher": "t" * 64, "augment": "a" * 64, "data": "d" * 64, "normalisation": "n" * 64}
    make(tmp_path / "c", fingerprints=mine)
    expect = {**mine, "num_samples": N, "num_views": V, "num_classes": C, "k": 4, "dtype": "float16"}
    assert LogitCache.open(tmp_path / "c", expect).mode == "read"
    LogitCache.open(tmp_path / "c", {**expect, "k": 2})
    for change, message in [
        ({"num_samples": 41}, "number of samples is 40, expected 41"),
        ({"num_views": 4}, "number of views is 3, expected 4"),
        ({"num_classes": 100}, "number of classes is 10, expected 100"),
        ({"k": 5}, r"classes per record \(k\) is 4, expected at least 5"),
        ({"dtype": "float32"}, "dtype of the logits is float16, expected float32"),
        ({"teacher": "x" * 64}, "teacher differs .*: expected xxxxxxxxxxxx, found tttttttttttt"),
        ({"augment": "x" * 64}, "augment differs .*seed, policy"),
        ({"data": "x" * 64}, "data differs .*another order"),
        ({"teacher": "x" * 64, "normalisation": "y" * 64}, "normalisation differs"),
        ({"split": "test"}, "split differs .* found nothing"),
    ]:
        with pytest.raises(UserError, match=message):
            LogitCache.open(tmp_path / "c", {**expect, **change})


def test_another_version_of_the_library_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "c")
    file = tmp_path / "c" / "header.json"
    values = json.loads(file.read_text())
    values["fingerprints"]["library"] = "kd_autoaug 0.0.1"
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"library differs .* found kd_autoaug 0\.0\.1"):
        LogitCache.open(tmp_path / "c", {})
    assert LogitCache.open(tmp_path / "c").info()["fingerprints"]["library"] == "kd_autoaug 0.0.1"


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            LogitCache.open(tmp_path / "c")

    refused("is not a folder: build a cache")
    (tmp_path / "c").mkdir()
    refused(r"it has no header\.json")
    make(tmp_path / "c")  # an empty folder may become a cache
    header = tmp_path / "c" / "header.json"
    text = header.read_text()
    header.write_text(text[:40])
    refused(r"damaged header\.json")
    header.write_text(text.replace('"format": 2', '"format": 9'))
    refused("has format 9, this library reads 2")
    header.write_text(text)
    with (tmp_path / "c" / "classes.bin").open("r+b") as file:
        file.truncate(100)
    refused(r"damaged: classes\.bin has 100 bytes, expected 960")
    (tmp_path / "c" / "classes.bin").unlink()
    refused(r"classes\.bin has 0 bytes")


# --- interruption and several processes -------------------------------------------------------------------------------


def test_a_mark_never_comes_before_its_data(tmp_path: Path) -> None:
    """Killed with work not yet flushed: the rest is what was flushed, and every record marked done is right."""
    script = f"""
        import os, signal, sys, torch
        from kd_autoaug.cache.cache import LogitCache
        cache = LogitCache.create({str(tmp_path / "c")!r}, num_samples={N}, num_views={V}, num_classes={C}, k=4)
        z = 5 * torch.randn({N}, {C}, generator=torch.Generator().manual_seed(0))
        cache.write(torch.arange(10), 0, z[:10])
        cache.flush()
        cache.write(torch.arange(10, 20), 0, z[10:20])
        assert cache.count() == 20 and bool(cache.has(torch.arange(20), 0).all())
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=120)
    assert run.returncode == -signal.SIGKILL
    cache = LogitCache.open(tmp_path / "c", mode="readwrite")
    assert cache.missing(0).tolist() == list(range(10, N))
    assert torch.equal(cache.read(torch.arange(10), 0).classes, top_logits(logits(N)[:10], 4, 1.0).classes)


def test_nothing_is_lost_without_a_flush(tmp_path: Path) -> None:
    cache = make(tmp_path / "c")
    cache.write(torch.arange(N), 1, logits(N))
    assert LogitCache.open(tmp_path / "c").count() == 0
    del cache
    assert LogitCache.open(tmp_path / "c").count() == N


PART = """
    import importlib.util, sys, torch
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("parts", sys.argv[1])
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    of, by = tests.teacher(), tests.augmentation()
    cache = tests.LogitCache.open(sys.argv[2], tests.prints(of, by), mode="readwrite")
    begin, end = tests.shard_range(sys.argv[3], tests.N)
    tests.build_cache(cache, of, tests.pictures, by, begin=begin, end=end, batch_size=7)
"""


def test_shards_by_several_processes_make_the_same_cache(tmp_path: Path) -> None:
    of, by = teacher(), augmentation()
    sizes = {"k": 4, "dtype": "float16", "fingerprints": prints(of, by)}
    make(tmp_path / "parts", **sizes)
    command = [sys.executable, "-c", textwrap.dedent(PART), __file__, str(tmp_path / "parts")]
    other = subprocess.Popen([*command, "1/2"])
    whole = make(tmp_path / "whole", **sizes)
    assert build_cache(whole, of, pictures, by, batch_size=7) == N * V
    mine = LogitCache.open(tmp_path / "parts", prints(of, by), mode="readwrite")
    assert build_cache(mine, of, pictures, by, begin=shard_range("2/2", N)[0], batch_size=7) == N * V // 2
    assert other.wait(120) == 0
    parts = LogitCache.open(tmp_path / "parts")
    assert parts.complete
    for view in range(V):
        first, second = (cache.read(torch.arange(N), view) for cache in (whole, parts))
        assert torch.equal(first.classes, second.classes)
        torch.testing.assert_close(first.values, second.values, rtol=2e-3, atol=2e-3)  # batches of other sizes


def test_shards_cover_all_samples_once() -> None:
    for parts in (1, 3, 7, 50):
        ranges = [shard_range(f"{i + 1}/{parts}", N) for i in range(parts)]
        assert [i for begin, end in ranges for i in range(begin, end)] == list(range(N))
    assert shard_range(None, N) == (0, N)
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(UserError, match="must be i/n"):
            shard_range(wrong, N)


# --- build and verify -------------------------------------------------------------------------------------------------


def test_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    of, by = teacher(), augmentation()
    cache = make(tmp_path / "c", fingerprints=prints(of, by))
    asked: list[int] = []

    def interrupted(index: torch.Tensor, view: int) -> torch.Tensor:
        asked.extend(index.tolist())
        if len(asked) > 60:
            raise KeyboardInterrupt
        return IMAGES[index]

    with pytest.raises(KeyboardInterrupt):
        build_cache(cache, of, interrupted, by, batch_size=8)
    before = cache.count()
    assert 0 < before < N * V
    assert build_cache(cache, of, pictures, by, batch_size=8) == N * V - before
    assert cache.complete
    assert build_cache(cache, of, pictures, by) == 0


def test_records_are_the_teachers_answers_about_those_views(tmp_path: Path) -> None:
    of, by = teacher(), augmentation()
    cache = make(tmp_path / "c", k=C, dtype="float32", fingerprints=prints(of, by))
    build_cache(cache, of, pictures, by, batch_size=16)
    index, view = torch.tensor([30, 2, 17]), torch.tensor([1, 2, 0])
    key = ViewKey(index, view, by.fingerprint())
    online = of(by(IMAGES[index], index, view), key)
    torch.testing.assert_close(dense_logits(cache.read(key)), online, rtol=1e-5, atol=1e-5)
    clean = of(IMAGES[index])
    assert not torch.allclose(online, clean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("dtype", "k"), [("float16", 4), ("float32", C)])
def test_verify_finds_what_is_wrong(tmp_path: Path, dtype: str, k: int) -> None:
    of, by = teacher(), augmentation()
    cache = make(tmp_path / "c", k=k, dtype=dtype, fingerprints=prints(of, by))
    with pytest.raises(UserError, match="has no records yet"):
        verify_cache(cache, of, pictures, by)
    build_cache(cache, of, pictures, by, views=2)
    found = verify_cache(cache, of, pictures, by, batch_size=13)
    assert (found.checked, found.ok, found.first) == (2 * N, True, None)
    assert found.worst <= found.tolerance < 2e-3
    assert verify_cache(cache, of, pictures, by, sample=5).checked == 5
    with torch.no_grad():
        cache.write(torch.tensor([11]), 1, cache_answer(of, by, 11, 0))  # the answer about another view
    found = verify_cache(cache, of, pictures, by)
    assert (found.wrong, found.first, found.ok) == (1, (11, 1), False)
    assert verify_cache(cache, teacher(1), pictures, by).wrong > N


@pytest.mark.parametrize(("dtype", "k", "temperatures"), [("float16", 4, (1.0, 4.0)), ("float32", C, (1.0,))])
def test_one_changed_byte_is_found_named_and_mended(tmp_path: Path, dtype: str, k: int, temperatures) -> None:
    of, by = teacher(), augmentation()
    cache = make(tmp_path / "c", k=k, dtype=dtype, temperatures=temperatures, fingerprints=prints(of, by))
    build_cache(cache, of, pictures, by)
    whole = {file.name: file.read_bytes() for file in cache.path.glob("*.bin")}
    numbers = np.random.default_rng(0)
    for name in ("logits.bin", "classes.bin", "rest.bin", "sums.bin"):
        for place in numbers.integers(len(whole[name]), size=6).tolist():
            changed = bytearray(whole[name])
            changed[place] ^= 1 << int(numbers.integers(8))
            (cache.path / name).write_bytes(changed)
            sample, view = divmod(place * N * V // len(changed), V)
            found = LogitCache.open(cache.path, mode="readwrite")
            seen = verify_cache(found, of, pictures, by, sample=4)
            assert (seen.ok, seen.read, seen.damaged) == (False, N * V, ((sample, view),))
            with pytest.raises(UserError, match=f"is damaged: the record of sample {sample}, view {view} is not what"):
                found.read(torch.arange(N), view)
            assert build_cache(found, of, pictures, by) == 1
            assert {file.name: file.read_bytes() for file in cache.path.glob("*.bin")} == whole


def test_records_at_each_others_places_and_marks_without_a_record_are_found(tmp_path: Path) -> None:
    of, by = teacher(), augmentation()
    cache = make(tmp_path / "c", fingerprints=prints(of, by))
    cache.write(torch.arange(N), 0, logits(N))
    cache.write(torch.tensor([7]), 1, logits(1))
    cache.flush()
    layout = cache.header.arrays().items()
    arrays = {name: np.memmap(cache.path / name, kind, "r+", shape=shape) for name, (kind, shape) in layout}
    for array in arrays.values():
        array[[3, 5], 0] = array[[5, 3], 0]
    arrays["done.bin"][9, 2] = 1
    seen = verify_cache(LogitCache.open(cache.path), of, pictures, by)
    assert (seen.read, seen.damaged) == (N + 2, ((3, 0), (5, 0), (9, 2)))


def cache_answer(of: Teacher, by: BatchAugment, index: int, view: int) -> torch.Tensor:
    numbers = torch.tensor([index])
    return of(by(IMAGES[numbers], numbers, torch.tensor([view])))


def test_build_refuses_another_teacher_or_augmentation(tmp_path: Path) -> None:
    cache = make(tmp_path / "c", fingerprints=prints(teacher(), augmentation()))
    with pytest.raises(UserError, match="teacher differs"):
        build_cache(cache, teacher(1), pictures, augmentation())
    with pytest.raises(UserError, match="augment differs"):
        build_cache(cache, teacher(), pictures, augmentation(1))
    with pytest.raises(UserError, match="normalisation differs"):
        build_cache(cache, Teacher(teacher().model, 0.5, 0.5), pictures, augmentation())
    with pytest.raises(UserError, match="begin=-1"):
        build_cache(cache, teacher(), pictures, augmentation(), begin=-1)
    with pytest.raises(UserError, match=r"views=4 must be in 1\.\.3"):
        build_cache(cache, teacher(), pictures, augmentation(), views=4)


# --- the command ------------------------------------------------------------------------------------------------------


def command(*words: str):
    from effkit.cli import App
    from kd_autoaug.commands.cache import cache_report

    app = App("kd-autoaug", "kd_autoaug.configs", summary="")
    app.command("cache", positional="what")(lambda cfg: cache_report(cfg.what, cfg))
    what = [word for word in words if "=" not in word]
    cfg = app.compose("cache", [f"what=[{','.join(what)}]", *(word for word in words if "=" in word)])
    return cache_report(cfg.what, cfg)


def test_the_command_builds_verifies_and_informs(tmp_path: Path) -> None:
    from kd_autoaug.distillation.weights import save_weights

    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = save_weights(create_network("digits_cnn", C, 1, 8), tmp_path / "teacher.safetensors")
    words = (
        "experiment=digits_kd", f"teacher.weights={weights}", "view.num_views=2", f"cache.path={tmp_path / 'c'}",
        "device=cpu", "policy.m=2.0", "cache.k=4", "guessing_teacher=true",
    )  # fmt: skip
    first = command("build", *words, "shard=1/2")
    assert first.data["records written"] == first.data["records"] == 400
    assert "400 records are missing" in first.lines[0]
    second = command("build", *words, "begin=150")
    assert second.data["records written"] == 400
    assert second.data["complete"]
    assert second.data["temperatures"] == [2.0]
    found = command("verify", *words, "sample=100")
    assert (found.exit_code, found.data["records checked"], found.data["records wrong"]) == (0, 100, 0)
    info = command("info", f"cache.path={tmp_path / 'c'}")
    assert info.data["records"] == 800
    assert set(info.data["fingerprints"]) == {"teacher", "augment", "data", "normalisation", "library"}
    json.dumps(info.to_json())
    with pytest.raises(UserError, match="augment differs"):
        command("verify", *words, "policy.m=1.0")
    with pytest.raises(UserError, match=r"classes per record .k. is 4, expected at least 5"):
        command("build", *words, "cache.k=5")
    with pytest.raises(UserError, match="keeps temperatures"):
        command("build", *words, "loss.temperature=3")
    with (tmp_path / "c" / "logits.bin").open("r+b") as file:
        file.write(b"\x00" * 1600)  # the first 200 records
    broken = command("verify", *words, "sample=800")
    assert broken.exit_code == 1
    assert (broken.data["records read"], broken.data["records damaged"]) == (800, 200)
    assert (broken.data["records checked"], broken.data["records wrong"]) == (600, 0)
    (named,) = (v for k, v in broken.data.items() if k.startswith("damaged records"))
    assert named.startswith("0, 0; 1, 0; ")  # sample, view
    assert named.endswith("19, 0 and 180 more")
    assert command("build", *words).data["records written"] == 200
    assert command("verify", *words).exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build"], r"cache\.path is not set"),
        (["biuld", "cache.path=x"], "cache='biuld' is not known.*did you mean 'build'"),
        (["cache.path=x"], "one word, build or verify or info, got none"),
        (["build", "verify", "cache.path=x"], "got build verify"),
        (["info", "cache.path=x"], r"cache\.path='x' is not a folder"),
        (["build", "cache.path=x"], r"view\.num_views=null would need a cache without end"),
        (["build", "cache.path=x", "view.num_views=2"], r"teacher\.weights is not set"),
    ],
)
def test_the_command_refuses(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        command(*words)
