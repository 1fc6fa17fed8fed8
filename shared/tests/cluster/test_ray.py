"""Jobs of a real Ray cluster of two nodes."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow


def test_a_sweep_on_two_nodes_has_a_row_for_every_job(ray_cluster, nodes, tmp_path):
    address, token = ray_cluster
    words = ["hydra/launcher=ray_cluster", f"hydra.launcher.address={address}", "hydra.sweep.dir=sweep"]
    code, out, err = nodes("learn", "-m", "ends=null,value,killed", "seed=0,1", *words, "format=json", env=token)
    assert code == 2, err
    jobs = json.loads(out)["jobs"]
    assert [job["status"] for job in jobs] == ["finished"] * 2 + ["failed"] * 4
    assert [job["value"] for job in jobs[:2]] == [job["report"]["data"]["best"]["val_top1"] for job in jobs[:2]]
    assert len({job["report"]["data"]["node"] for job in jobs[:2]}) == 2
    assert {job["report"]["data"]["where"] for job in jobs[:2]} == {str(tmp_path)}  # not that of a worker of Ray
    assert {job["error"] for job in jobs[2:4]} == {"ends must be null, got 'value'"}
    assert all(job["error"].startswith("its process on Ray is gone: WorkerCrashedError") for job in jobs[4:])
    found = [json.loads((tmp_path / "sweep" / str(job) / "status.json").read_text())["status"] for job in range(6)]
    assert found == [job["status"] for job in jobs]


def test_a_job_that_no_node_can_hold_is_one_line(ray_cluster, nodes):
    address, token = ray_cluster
    words = ["hydra/launcher=ray_cluster", f"hydra.launcher.address={address}", "hydra.launcher.cpus_per_job=3"]
    code, out, err = nodes("learn", "-m", *words, env=token)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        "nodes: error: hydra/launcher=ray_cluster: hydra.launcher.cpus_per_job=3, but no node has more than 1"
    )


def test_a_cluster_of_this_machine_ends_with_its_sweep(nodes, tmp_path, ray_cluster):
    """And what it needs is not left behind; another cluster on the machine is left alone."""
    environment = {"TMPDIR": str(tmp_path / "temporary"), "HOME": str(tmp_path / "home"), "RAY_ADDRESS": ray_cluster[0]}
    for name in ("temporary", "home"):
        (tmp_path / name).mkdir()
    code, out, err = nodes("learn", "-m", "seed=0,1", "hydra/launcher=ray_local", env=environment)
    assert code == 0, err
    assert out.count("finished") == 2
    # Caches of other libraries may lie there (matplotlib's fonts); Ray's token and settings may not.
    assert {path.name for path in (tmp_path / "home").iterdir()} <= {".cache", ".config"}
    assert [str(path) for path in (tmp_path / "home").rglob("*") if "ray" in path.name.split("-")[0].lower()] == []
    assert [str(path) for path in (tmp_path / "temporary").iterdir() if path.name.startswith("ray")] == []
