"""A run that is told to stop keeps the step it was in, and ends like one that nobody stopped.

This file is also a program: ``python test_stepping.py FOLDER PICTURES`` trains and tells its whole group to stop.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from effkit.cli.process import stop_signals
from effkit.data import create_data
from effkit.data.sampling import EpochSampler, TensorLoader, end_workers
from effkit.errors import UserError
from effkit.lightning import find_resume
from effkit.lightning.resume import STEP_FILE
from effkit.stopping import Terminated
from effkit.testing import write_image_folder
from effkit.testing.training import Halt, assert_same_run, recipe, rows, run


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder, recipe())


def halted(folder, cfg, signum, epoch, batch, data=None):
    """Run until a signal comes, as a command does, which listens to signals."""
    with stop_signals() as stop, pytest.raises(KeyboardInterrupt) as raised:
        run(folder, cfg, stop=Halt(int(signum), epoch, batch), data=data)
    assert stop.received == signum
    return raised.value


def step_file(folder):
    return Path(folder) / "checkpoints" / STEP_FILE


def test_a_signal_keeps_the_step_and_the_run_goes_on_to_the_same_bits(whole, tmp_path, capfd):
    whole_folder, whole_model, whole_metrics = whole
    error = halted(tmp_path, recipe(), signal.SIGTERM, 0, 1)  # no epoch has ended yet
    assert isinstance(error, Terminated)
    assert f"stopped by SIGTERM; resume={tmp_path} goes on in epoch 1 after batch 2 of 5" in capfd.readouterr().err
    again = recipe(resume=str(tmp_path))
    for signum, epoch, batch in [(signal.SIGUSR2, 0, 2), (signal.SIGINT, 2, 0), (signal.SIGHUP, 2, 3)]:
        halted(tmp_path, again, signum, epoch, batch)
        found = find_resume(tmp_path)
        assert (found.epoch, found.batches, found.of) == (epoch, batch + 1, 5)
        assert [row["epoch"] for row in rows(tmp_path)] == [str(i) for i in range(epoch)]
    model, metrics = run(tmp_path, again)
    assert_same_run(model, tmp_path, whole_model, whole_folder)
    assert metrics["best"] == whole_metrics["best"]
    assert not step_file(tmp_path).exists()


def test_a_signal_in_the_last_batch_waits_for_the_epoch(whole, tmp_path, capfd):
    whole_folder, whole_model, _ = whole
    halted(tmp_path, recipe(), signal.SIGTERM, 1, 4)
    assert f"resume={tmp_path} goes on after epoch 2" in capfd.readouterr().err
    assert not step_file(tmp_path).exists()
    with stop_signals() as stop:
        model, _ = run(tmp_path, recipe(resume=str(tmp_path)), stop=Halt(int(signal.SIGTERM), 3, 4))
        assert stop.received == signal.SIGTERM  # and the run was over anyway
    assert_same_run(model, tmp_path, whole_model, whole_folder)


def pictures(root, workers):
    options = {"image_size": 16, "batch_size": 4, "num_workers": workers, "repeats": 2, "seed": 3}
    return create_data("imagefolder", root=str(root), augment="deit", **options)


def pictures_recipe():
    trainer = {**recipe(3)["trainer"], "accumulate_grad_batches": 2}
    return recipe(trainer=trainer, scheduler={"sched": "cosine"}, ema=None)


def _deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a loader's worker is
    time.sleep(600)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_workers_that_leave_signals_do_not_keep_python_from_ending():
    worker = multiprocessing.get_context("fork").Process(target=_deaf, daemon=True)
    worker.start()
    end_workers()
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_to_the_whole_group_leaves_the_workers_to_the_training(tmp_path):
    root = write_image_folder(tmp_path / "pictures", count=6)
    words = [sys.executable, __file__, str(tmp_path / "cut"), str(root)]
    done = subprocess.run(words, start_new_session=True, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "goes on in epoch 2 after batch 2 of " in done.stderr
    whole_model, _ = run(tmp_path / "whole", pictures_recipe(), data=pictures(root, 0))
    again = {**pictures_recipe(), "resume": str(tmp_path / "cut")}
    model, _ = run(tmp_path / "cut", again, data=pictures(root, 2))
    assert_same_run(model, tmp_path / "cut", whole_model, tmp_path / "whole")


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_from_workers_go_on_where_they_were(tmp_path, workers):
    root = write_image_folder(tmp_path / "pictures", count=6)

    def data():
        return pictures(root, workers)

    cfg = pictures_recipe()
    whole_model, _ = run(tmp_path / "whole", cfg, data=data())
    cut = tmp_path / "cut"
    halted(cut, cfg, signal.SIGTERM, 1, 0, data=data())
    assert find_resume(cut).batches == 2  # the gradients of the first batch belong to an update with the second
    again = {**cfg, "resume": str(cut)}
    halted(cut, again, signal.SIGTERM, 1, find_resume(cut).of - 1, data=data())
    model, _ = run(cut, again, data=data())
    assert_same_run(model, cut, whole_model, tmp_path / "whole")


def test_a_machine_that_dies_loses_minutes_only(whole, tmp_path):
    whole_folder, whole_model, _ = whole
    often = {"checkpoint_minutes": 0}
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, recipe(**often), stop=Halt(RuntimeError("power cut"), 2, 3))
    assert (find_resume(tmp_path).epoch, find_resume(tmp_path).batches) == (2, 3)
    model, _ = run(tmp_path, recipe(resume=str(tmp_path)))
    assert_same_run(model, tmp_path, whole_model, whole_folder)


@pytest.mark.parametrize("minutes", [-1, "often", True])
def test_how_often_is_a_number(tmp_path, minutes):
    with pytest.raises(UserError, match=r"checkpoint_minutes=.* must be a number of at least 0, or null for never"):
        run(tmp_path, recipe(checkpoint_minutes=minutes))
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_an_epoch_fits_nothing_but_its_rest(tmp_path):
    cfg = recipe(scheduler={"sched": "cosine"})
    halted(tmp_path, cfg, signal.SIGTERM, 0, 1)
    other = {**cfg, "label_smoothing": 0.0, "resume": str(tmp_path), "resume_anyway": True}
    with pytest.raises(UserError, match="was stopped in its first epoch and can go on as it was only"):
        run(tmp_path, other)
    halted(tmp_path, {**cfg, "resume": str(tmp_path)}, signal.SIGTERM, 1, 2)
    with pytest.raises(UserError, match=r"label_smoothing was 0.1 in the interrupted run and is 0.0 now"):
        run(tmp_path, {**other, "resume_anyway": False})
    _, metrics = run(tmp_path, other)
    assert metrics["epochs"] == 4
    assert [row["epoch"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]


def test_a_checkpoint_that_its_epoch_has_outlived_is_not_taken(whole, tmp_path):
    halted(tmp_path, recipe(), signal.SIGTERM, 0, 1)
    stale = step_file(tmp_path).read_bytes()
    halted(tmp_path, recipe(resume=str(tmp_path)), signal.SIGTERM, 1, 4)
    step_file(tmp_path).write_bytes(stale)  # killed after last.ckpt, before this was removed
    assert (find_resume(tmp_path).epoch, find_resume(tmp_path).batches) == (2, 0)


def test_a_sampler_that_begins_in_the_middle_yields_the_rest_of_its_epoch():
    for repeats in (1, 2):
        sampler = EpochSampler(13, seed=5, train=True, repeats=repeats)
        sampler.set_epoch(2)
        every = list(sampler)
        rest = EpochSampler(13, seed=5, train=True, repeats=repeats)
        rest.set_epoch(2, start=8)
        rest.set_epoch(2)  # Lightning's own call
        assert (list(rest), len(rest)) == (every[8:], len(every))
        images = torch.arange(13.0).reshape(13, 1, 1, 1)
        batches = list(TensorLoader(images, torch.arange(13), 4, rest))
        assert [len(labels) for _, labels in batches] == [4, 1]
        rest.set_epoch(3)
        assert len(list(rest)) == 13


@pytest.mark.slow
def test_signals_at_random_moments_lose_nothing(whole, tmp_path):
    """Every batch of every epoch may be the last one of a process, any number of times."""
    whole_folder, whole_model, _ = whole
    numbers = random.Random(11)
    for attempt in range(4):
        folder, cfg = tmp_path / str(attempt), recipe()
        moments = sorted({(numbers.randrange(4), numbers.randrange(5)) for _ in range(6)} - {(3, 4)})
        for epoch, batch in moments:
            halted(folder, cfg, numbers.choice([signal.SIGTERM, signal.SIGUSR2]), epoch, batch)
            cfg = recipe(resume=str(folder))
        model, _ = run(folder, cfg)
        assert_same_run(model, folder, whole_model, whole_folder)


if __name__ == "__main__":

    class HaltAll(Halt):
        def on_train_batch_end(self, trainer, *args):
            if (trainer.current_epoch, args[-1]) == (self.epoch, self.batch):
                os.killpg(0, self.how)

    with stop_signals(), pytest.raises(KeyboardInterrupt):
        run(sys.argv[1], pictures_recipe(), stop=HaltAll(int(signal.SIGTERM), 1, 0), data=pictures(sys.argv[2], 2))
