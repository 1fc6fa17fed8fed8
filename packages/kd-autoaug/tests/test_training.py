"""The Lightning module and the parts of a run: the teacher stays out, views agree, mixing, resuming."""

import json
import signal

import pytest
import torch
from omegaconf import OmegaConf

from effkit.cli.process import stop_signals
from effkit.data import Preprocessing
from effkit.errors import UserError
from effkit.lightning import load_checkpoint, train
from effkit.lightning.logging import read_rows
from effkit.lightning.optim import create_optimizer
from effkit.testing.training import Halt
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.cache.cache import LogitCache
from kd_autoaug.commands.build import build_augment, build_teacher, set_up
from kd_autoaug.commands.parts import build_everything
from kd_autoaug.distillation.loss import TopKDistillationLoss
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.networks import create_network
from kd_autoaug.paper.digits.train import fit_lean
from kd_autoaug.training.module import DistillationModule
from kd_autoaug.training.views import INDEPENDENT, BatchViews

POLICY = "randaugment(n=2,m=1.0,space=linear)"
GREY = Preprocessing((8, 8), mean=(0.5,), std=(0.5,))
KD = {"weight": 1.0, "temperature": 2.0, "direction": "teacher_student"}


def config(**changes):
    base = {
        "seed": 0,
        "threads": 1,
        "device": "cpu",
        "data": {"name": "digits_small", "limit": 96, "batch_size": 32, "seed": 0},
        "view": {"crop": "pad", "padding": 1, "hflip": 0.5, "cutout": 3},
        "policy": {"name": "randaugment", "n": 2, "m": 1.0, "space": "linear"},
        "model": {"name": "digits_cnn"},
        "loss": {"weight": 0.0},
        "optimizer": {"opt": "sgd", "lr": 0.05},
        "scheduler": {"sched": "cosine", "min_lr": 0.0},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
        "logger": {"name": "csv"},
    }
    return OmegaConf.create(base | changes)


def a_teacher(seed: int = 5) -> Teacher:
    torch.manual_seed(seed)
    return Teacher(create_network("digits_cnn", 10, 1, 8), 0.5, 0.5)


def a_batch(count: int = 16, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 10, torch.arange(count) + 7, torch.full((count,), 3)


def a_module(loss=None, views=None, **options) -> DistillationModule:
    torch.manual_seed(1)
    network = create_network("digits_cnn", 10, 1, 8)
    chosen = TopKDistillationLoss(**(KD if loss is None else loss))
    return DistillationModule(network, 10, loss=chosen, preprocessing=GREY, views=views, **options)


class Spy:
    """A teacher that remembers what it saw."""

    def __init__(self, classes: int = 10):
        self.seen, self.keys, self.classes = [], [], classes

    def __call__(self, images, key=None):
        self.seen.append(images.clone())
        self.keys.append(key)
        return torch.zeros(len(images), self.classes)

    def to(self, device):
        return self


def views(teacher_view="same", **options) -> BatchViews:
    whole = BatchAugment(POLICY, 0, padding=1, hflip=0.5, cutout=3)
    return BatchViews(whole, BatchAugment(None, 0, padding=1, hflip=0.5), teacher_view, **options)


# --- which pictures ---------------------------------------------------------------------------------------------------


def test_the_teacher_sees_the_students_bytes():
    spy, batch = Spy(), a_batch()
    module = a_module(views=views(), teacher=spy)
    shown = []
    prepared = module.prepared
    module.prepared = lambda images: prepared(shown.append(images) or images)
    module.step(batch)
    assert torch.equal(spy.seen[0], shown[0])
    assert not torch.equal(spy.seen[0], batch[0])
    assert spy.keys[0].index.tolist() == batch[2].tolist()
    assert spy.keys[0].augment == module.views.augment.fingerprint()


def test_clean_is_the_same_crop_and_flip_and_independent_another_draw():
    images, labels, index, view = a_batch()
    whole, plain = views().augment, views().plain
    for name, expected in (
        ("clean", plain(images, index, view)),
        ("independent", whole(images, index, view + INDEPENDENT)),
    ):
        spy = Spy()
        a_module(views=views(name), teacher=spy).step((images, labels, index, view))
        assert torch.equal(spy.seen[0], expected)
    # The crop and flip of `clean` are those of the student: a policy of no operators shows it.
    nothing = BatchAugment("none", 0, padding=1, hflip=0.5)
    assert torch.equal(nothing(images, index, view), plain(images, index, view))
    with pytest.raises(UserError, match=r"teacher_view='other' is not known"):
        BatchViews(teacher_view="other")


def test_a_teacher_of_another_view_is_refused():
    module = a_module(views=views(), teacher=Spy())
    right = module.views.student

    def shifted(images, index, view, **options):
        shown, key = right(images, index, view, **options)
        return shown, key

    module.views.student = shifted
    module.views.teacher = lambda images, shown, key, policy: (shown, type(key)(key.index, key.view + 1, key.augment))
    with pytest.raises(UserError, match="view of the teacher is 4 at place 0, expected 3"):
        module.step(a_batch())


def test_mixing_happens_in_bytes_before_both_networks():
    spy = Spy()
    module = a_module({**KD, "label_smoothing": 0.1}, views=views(), teacher=spy, mixup={"mixup_alpha": 1.0})
    shown = []
    prepared = module.prepared
    module.prepared = lambda images: prepared(shown.append(images) or images)
    for count in (16, 7):
        terms, _, _ = module.step(a_batch(count))
        assert torch.isfinite(terms["loss"])
    assert all(torch.equal(a, b) for a, b in zip(spy.seen, shown, strict=True))
    assert spy.seen[0].dtype == torch.uint8
    assert not torch.equal(spy.seen[0], module.views.augment(*(a_batch()[i] for i in (0, 2, 3))))
    assert module.loss.label_smoothing == 0  # it is in the mixed targets already
    assert module.mixup.label_smoothing == 0.1


# --- the teacher stays out --------------------------------------------------------------------------------------------


def test_the_teacher_is_neither_trained_nor_saved_nor_counted():
    teacher = a_teacher()
    before = {k: v.clone() for k, v in teacher.model.state_dict().items()}
    module = a_module(views=views(), teacher=teacher)
    alone = a_module({"weight": 0.0}, views=views())
    assert module.state_dict().keys() == alone.state_dict().keys()
    assert len(list(module.parameters())) == len(list(alone.parameters()))
    module.train()
    assert not teacher.model.training
    optimizer = create_optimizer(module.model, {"opt": "sgd", "lr": 0.1})
    for _ in range(2):
        module.step(a_batch())[0]["loss"].backward()
        optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in teacher.model.state_dict().items())
    assert all(p.grad is None for p in teacher.model.parameters())


def test_weight_zero_is_cross_entropy_bit_for_bit_and_does_not_ask():
    spy = Spy()
    with_teacher = a_module({**KD, "weight": 0.0}, views=views(), teacher=spy)
    plain = a_module({"weight": 0.0}, views=views())
    a, b = (m.step(a_batch())[0]["loss"] for m in (with_teacher, plain))
    a.backward(), b.backward()
    assert torch.equal(a, b)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(with_teacher.parameters(), plain.parameters(), strict=True))
    assert not spy.seen
    shown = plain.prepared(plain.views.augment(*(a_batch()[i] for i in (0, 2, 3))))
    fresh = a_module({"weight": 0.0}, views=views())
    assert torch.equal(b, torch.nn.functional.cross_entropy(fresh.model(shown), a_batch()[1]))


def test_what_cannot_go_together_is_refused():
    with pytest.raises(UserError, match=r"loss\.weight=1\.0 needs a teacher"):
        a_module()
    with pytest.raises(UserError, match=r"policy_until=1\.5 must be a share"):
        a_module(teacher=Spy(), policy_until=1.5)
    cache = object()
    with pytest.raises(UserError, match="mixup and a cache exclude each other"):
        a_module(cache=cache, mixup={"mixup_alpha": 0.2})
    with pytest.raises(UserError, match="teacher_view='clean' needs answers that the cache does not hold"):
        a_module(cache=cache, views=views("clean"))
    with pytest.raises(UserError, match=r"policy_until=0\.5 and a cache exclude"):
        a_module(cache=cache, policy_until=0.5)
    with pytest.raises(UserError, match=r"loss\.weight=1\.0 needs a teacher"):
        a_module(cache=cache, cache_mode="readwrite")
    with pytest.raises(UserError, match="the teacher has 7 classes and the data 10"):
        a_module(teacher=Spy(7), views=views()).step(a_batch())


# --- whole runs -------------------------------------------------------------------------------------------------------


def run(tmp_path, name, teacher=None, halt=None, **changes):
    cfg = config(**changes)
    set_up(cfg)
    parts = build_everything(cfg, teacher)
    callbacks = [] if halt is None else [halt]
    metrics = train(cfg, parts.student, parts.data, module=parts.module, callbacks=callbacks, folder=tmp_path / name)
    return parts, metrics, read_rows(tmp_path / name / "metrics.csv")


def weights(parts):
    return torch.cat([v.flatten().double() for v in parts.student.state_dict().values()])


def test_a_run_logs_what_distillation_needs_and_leaves_readable_checkpoints(tmp_path):
    _, metrics, rows = run(tmp_path, "kd", a_teacher(), loss={**KD, "k": 3})
    for column in ("train_loss", "train_ce", "train_kd", "label_outside_topk", "train_top1", "val_top1", "val_loss"):
        assert torch.isfinite(torch.tensor(float(rows[-1][column]))), column
    last = rows[-1]
    assert float(last["train_loss"]) == pytest.approx(float(last["train_ce"]) + float(last["train_kd"]), rel=1e-5)
    assert 0.3 < float(last["label_outside_topk"]) < 1  # the teacher is untrained: about 0.7
    assert metrics["params"] == 8254
    kept = load_checkpoint(tmp_path / "kd" / "checkpoints" / "last.ckpt")
    assert "teacher" not in " ".join(kept["state_dict"])
    assert kept["hyper_parameters"]["recipe"]["loss"]["k"] == 3
    _, _, plain = run(tmp_path, "ce")
    assert "train_kd" not in plain[-1]
    assert "label_outside_topk" not in plain[-1]


def test_the_loop_of_the_claim_ends_with_the_same_weights(tmp_path):
    for name, teacher, changes in (("ce", None, {}), ("kd", a_teacher(), {"loss": KD, "policy_until": 0.5})):
        parts, _, _ = run(tmp_path, name, teacher, **changes)
        cfg = config(**changes)
        set_up(cfg)
        lean = build_everything(cfg, teacher)
        fit_lean(cfg, lean)
        assert torch.equal(weights(parts), weights(lean))


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path):
    options = {"loss": KD, "view": {"num_views": 2}}
    run(tmp_path, "part", a_teacher(), **options, trainer=_epochs(4) | {"max_epochs": 2}, scheduler={"sched": "none"})
    whole, _, rows = run(tmp_path, "whole", a_teacher(), **options, trainer=_epochs(4), scheduler={"sched": "none"})
    folder = str(tmp_path / "part")
    again, _, more = run(tmp_path, "part", a_teacher(), **options, trainer=_epochs(4), scheduler={"sched": "none"},
                         resume=folder)  # fmt: skip
    assert torch.equal(weights(whole), weights(again))
    assert [r["train_loss"] for r in rows] == [r["train_loss"] for r in more]
    with pytest.raises(UserError, match=r"resume: loss was .*temperature"):
        run(tmp_path, "part", a_teacher(), **options | {"loss": {**KD, "temperature": 3.0}}, trainer=_epochs(5),
            scheduler={"sched": "none"}, resume=folder)  # fmt: skip
    longer = {**options, "trainer": _epochs(5), "scheduler": {"sched": "none"}, "resume": folder}
    with pytest.raises(UserError, match="resume: teacher was"):
        run(tmp_path, "part", a_teacher(6), **longer)
    _, metrics, _ = run(tmp_path, "part", a_teacher(6), **longer, resume_anyway=True)
    assert metrics["epochs"] == 5
    entry = json.loads((tmp_path / "part" / "resumed.json").read_text())[-1]
    before, now = a_teacher().fingerprint(), a_teacher(6).fingerprint()
    assert entry["changed"] == {"recipe.teacher": {"before": before, "now": now}}  # the config's words are the same


def test_a_signal_within_an_epoch_loses_no_record_and_asks_for_none_twice(tmp_path, monkeypatch):
    options = {"loss": {**KD, "k": 3}, "trainer": _epochs(4), "scheduler": {"sched": "none"}}
    options["view"] = {"crop": "pad", "padding": 1, "num_views": 2}
    asked, write = [], LogitCache.write
    monkeypatch.setattr(
        LogitCache, "write", lambda self, i, v, logits: (asked.append(len(i)), write(self, i, v, logits))
    )

    def cached(name):
        return options | {"cache": {"path": str(tmp_path / f"{name} cache"), "mode": "readwrite"}}

    whole, _, rows = run(tmp_path, "whole", a_teacher(), **cached("whole"))
    assert sum(asked) == 96 * 2
    asked.clear()
    resume = None
    for epoch, batch in [(0, 0), (1, 1), (3, 1)]:
        with stop_signals(), pytest.raises(KeyboardInterrupt):
            run(tmp_path, "cut", a_teacher(), Halt(int(signal.SIGUSR2), epoch, batch), **cached("cut"), resume=resume)
        resume = str(tmp_path / "cut")
    again, _, more = run(tmp_path, "cut", a_teacher(), **cached("cut"), resume=resume)
    assert sum(asked) == 96 * 2
    assert torch.equal(weights(whole), weights(again))
    assert [r["train_loss"] for r in rows] == [r["train_loss"] for r in more]
    files = {p.name: p.read_bytes() for p in (tmp_path / "whole cache").iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "cut cache").iterdir()} == files


def _epochs(count: int) -> dict:
    return {**config().trainer, "max_epochs": count}


def test_the_policy_goes_off_for_the_last_epochs(tmp_path):
    cfg = config(policy_until=0.5, trainer=_epochs(4))
    set_up(cfg)
    parts = build_everything(cfg)
    seen, student = [], parts.module.views.student

    def spied(images, index, view, *, policy):
        seen.append(policy)
        return student(images, index, view, policy=policy)

    parts.module.views.student = spied
    train(cfg, parts.student, parts.data, module=parts.module, folder=tmp_path)
    assert seen == [True] * 6 + [False] * 6


# --- building ---------------------------------------------------------------------------------------------------------


def test_mistakes_in_a_config_are_named(tmp_path):
    for changes, words in (
        ({"view": {"padding": 4}}, r"view\.padding=4 needs view\.crop=pad"),
        ({"view": {"crop": "pad"}}, r"view\.crop=pad needs view\.padding"),
        ({"view": {"flip": 0.5}}, r"view key='flip' is not known.*hflip"),
        ({"loss": {"tau": 4}}, r"loss key='tau' is not known"),
        ({"label_smoothing": 0.1}, r"label_smoothing=0\.1 is read from the loss here"),
        ({"policy": {"name": "randaug", "m": 3}}, "randaug"),
        ({"model": {"name": "digits_cnn", "weights": "nowhere"}}, r"model\.weights='nowhere' does not exist"),
        ({"model": {"name": "digits_cnn", "weights": str(tmp_path)}}, "is no finished run"),
        ({"loss": KD, "teacher": {"name": "digits_cnn"}}, r"teacher\.weights is not set"),
        ({"loss": KD, "teacher": {"name": None}}, r"loss\.weight=1\.0 needs a teacher"),
    ):
        with pytest.raises(UserError, match=words):
            build_everything(config(**changes))
    assert build_augment(config(view={}, policy={"name": "none"})) is None


def test_a_run_folder_is_weights_and_a_teacher_keeps_its_normalisation(tmp_path):
    from kd_autoaug.commands.train import fit

    cfg = config()
    set_up(cfg)
    parts = build_everything(cfg)
    fit(cfg, parts, tmp_path / "run")
    options = {"name": "digits_cnn", "weights": str(tmp_path / "run"), "mean": 0.25, "std": None}
    teacher = build_teacher(config(teacher=options), parts.data)
    assert teacher.mean == (0.25,)
    assert teacher.std == (0.5,)
    assert torch.equal(weights(parts), torch.cat([v.flatten().double() for v in teacher.model.state_dict().values()]))
