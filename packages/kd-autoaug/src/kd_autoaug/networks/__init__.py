"""Networks by name, weights from files, and both from the ``model`` and ``teacher`` groups of a config."""

from kd_autoaug.distillation.weights import load_weights
from kd_autoaug.networks.build import build_network, build_teacher
from kd_autoaug.networks.factory import NETWORKS, create_network

__all__ = ["NETWORKS", "build_network", "build_teacher", "create_network", "load_weights"]
