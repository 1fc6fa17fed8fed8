"""Real clusters of two nodes on the loopback of this machine, one of each kind for all tests that ask for it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from effkit.testing import run_cli
from effkit.testing.slurm import LocalSlurm, why_no_slurm

APPS = Path(__file__).parents[1] / "apps"


@pytest.fixture(scope="session")
def slurm():
    if reason := why_no_slurm():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = LocalSlurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_cluster():
    """The address of a Ray cluster, and what those need in their environment who join it."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'effkit[ray]'")
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else Ray takes 127.0.0.1 for the address of the machine
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0", **loopback}
    variables = {**token, "PYTHONPATH": str(APPS), "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        for name, value in variables.items():
            patched.setenv(name, value)
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "temp_dir": folder, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            yield cluster.address, token
        finally:
            cluster.shutdown()
            os.environ.pop("RAY_AUTH_MODE", None)  # Ray sets it


@pytest.fixture
def nodes(tmp_path):
    """Run the program in ``apps/nodes``."""

    def call(*words, env, timeout=240.0):
        return run_cli(["nodes", *words], cwd=tmp_path, env={"PYTHONPATH": str(APPS), **env}, timeout=timeout)

    return call
