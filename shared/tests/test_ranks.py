"""Which process of a job this is, what it tells the first, and when a signal is heard."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from effkit.errors import RankFailed
from effkit.ranks import (
    REPORTS,
    RankReport,
    agents_store,
    failed_elsewhere,
    lost_connection,
    process_number,
    read_report,
    report_failure,
    report_ready,
)
from effkit.stopping import Stop, Terminated, current, deferred, in_force

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1"}
LIGHTNING = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "NODE_RANK": "2", "LOCAL_RANK": "5"}


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, 0),
        ({"RANK": "3"}, 0),
        ({"LOCAL_RANK": "3", "SLURM_PROCID": "2"}, 0),
        (TORCHRUN, 3),
        (LIGHTNING, 2 * 65536 + 5),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "7"}, 7),
    ],
)
def test_a_number_is_believed_with_its_launcher_only(monkeypatch, variables, number):
    for name in {*TORCHRUN, *LIGHTNING, "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"}:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert process_number() == number


def test_a_rank_tells_the_first_why_it_ends(monkeypatch, tmp_path):
    report = RankReport("ValueError: no", "Traceback ...", lost=True)
    assert not report_failure(report)
    for name, value in {**LIGHTNING, REPORTS: str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    report_ready()
    assert report_failure(report)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["5.json", "5.ready"]
    assert read_report(tmp_path, 5) == report
    assert read_report(tmp_path, 4) is None
    (tmp_path / "5.json").write_text("{")
    assert read_report(tmp_path, 5) is None


def test_a_lost_connection_is_told_from_an_error_of_ones_own():
    assert lost_connection(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert not lost_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not lost_connection(ValueError("gloo"))


def test_signals_wait_for_the_end_of_a_step_and_not_for_ever():
    with in_force(Stop()) as stop:
        assert current() is stop
        with pytest.raises(Terminated):
            stop(signal.SIGTERM, None)
    with in_force(Stop()) as stop, deferred() as noted:
        assert noted is stop
        stop(signal.SIGUSR2, None)
        stop(signal.SIGTERM, None)  # of a group, and of the launcher: not two people
        stop(signal.SIGINT, None)
        assert (stop.received, stop.exit_code) == (signal.SIGUSR2, 128 + signal.SIGUSR2)
        stop.at -= 5
        with pytest.raises(Terminated):
            stop(signal.SIGINT, None)
    assert current() is None
    with deferred() as noted:
        assert noted is None


PROGRAM = """
import ctypes, sys, threading, time
from effkit.cli.process import stop_signals
from effkit.stopping import deferred, heard, last_words

mutex, libc = ctypes.create_string_buffer(128), ctypes.CDLL(None)
libc.pthread_mutex_lock(mutex)
with stop_signals() as stop, last_words(lambda status, why: print(status, why, flush=True)):
    with heard(stuck=0.4, still=0.4):
        if sys.argv[1] == "in a library":
            threading.Timer(0.5, print, ["ready"], {"flush": True}).start()
            libc.pthread_mutex_lock(mutex)
        if sys.argv[1] == "in the clean-up":
            try:
                print("ready", flush=True)
                time.sleep(60)
            finally:
                libc.pthread_mutex_lock(mutex)
        with deferred():
            print("ready", flush=True)
            while stop.received is None or time.monotonic() - stop.at < 1.5:
                stop.alive()
                time.sleep(0.05)
print("left", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a mutex of glibc")
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("in a library", "interrupted ended by SIGTERM while it waited for other processes\n"),
        ("in the clean-up", "interrupted ended by SIGTERM while it waited for other processes\n"),
        ("at work", "left\n"),
    ],
)
def test_a_process_that_no_handler_reaches_ends_and_one_at_work_does_not(tmp_path, where, said):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, where], stdout=subprocess.PIPE, cwd=tmp_path, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == (said, 0 if where == "at work" else 143)


class Store(dict):
    """What ``room`` asks of a store of torch."""

    def set(self, key, value):
        self[key] = value.encode()

    def get(self, key):
        return self[key]

    def check(self, keys):
        return all(key in self for key in keys)


def test_attempts_never_meet_in_the_room_of_an_earlier_one():
    from concurrent.futures import ThreadPoolExecutor

    from effkit.lightning.elastic import room

    store, rooms = Store(), []
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            others = [pool.submit(room, store, rank, 3, 0.01) for rank in (1, 2)]  # they find the last one's name first
            time.sleep(0.05)
            found = {room(store, 0, 3, 0.01), *(other.result(timeout=10) for other in others)}
            assert len(found) == 1
            rooms += found
    assert len(set(rooms)) == 3


def test_the_first_hears_of_a_rank_that_will_not_come_and_not_of_one_long_gone(monkeypatch):
    from effkit.lightning.elastic import room

    store = Store()
    assert failed_elsewhere(store) == failed_elsewhere(None) == ""
    store.set("effkit/failed", json.dumps({"rank": 1, "host": "b", "line": "no data", "at": time.time() - 3600}))
    assert failed_elsewhere(store) == ""
    store.set("effkit/failed", json.dumps({"rank": 1, "host": "b", "line": "no data", "at": time.time()}))
    with pytest.raises(RankFailed, match=r"^rank 1 on b failed: no data$"):
        room(store, 0, 2, 0.01)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert agents_store() is None  # the agents say that they keep none


def test_what_comes_first_is_called_before_the_signal_raises():
    stop, seen = Stop(), []

    def first(signum):
        seen.append(signum)
        stop(signum, None)  # once more, while this is at work

    stop.first.append(first)
    with pytest.raises(KeyboardInterrupt):
        stop(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stop(signal.SIGINT, None)
    assert seen == [signal.SIGINT]
    assert os.getpid() == stop.pid
