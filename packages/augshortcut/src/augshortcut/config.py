"""What is added to a transformer: an :class:`AugmentConfig`, and presets of the paper, its codes and later work.

Nothing here needs torch, so that command lines can check a config before anything is built.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from augshortcut.ops.names import ACTS, BACKENDS
from effkit.errors import UserError, choose

__all__ = [
    "ACTS",
    "BACKENDS",
    "GATES",
    "LOCATIONS",
    "PRESETS",
    "PROJECTIONS",
    "TAPS",
    "AugmentConfig",
    "preset",
    "resolve_config",
]

PROJECTIONS = ("circulant", "dense", "bottleneck", "kronecker")
LOCATIONS = ("attn", "mlp")
TAPS = ("norm", "input")
GATES = ("none", "scalar", "channel")
INITS = ("uniform", "trunc_normal")


@dataclass(frozen=True)
class AugmentConfig:
    r"""What is added to a block: ``x <- s (x + branch(y) + sum_t gamma_t T_t(y))``, y being the sub-layer's input.

    Args:
        num_paths: T, learnable paths beside the identity of each augmented sub-layer; 0 leaves the model as it is.
        num_blocks: b, circulant blocks per side (a count, not their size: d=384 and b=4 are 4 x 4 circulants of 96).
        location: Augmented sub-layers: ``attn``, ``mlp``, ``both``, or a list of the first two.
        projection: ``circulant``, ``dense``, ``bottleneck`` (:math:`W_2 f(W_1 y)`) or ``kronecker``
            (:math:`L f(Y R)`, y seen as a matrix Y).
        act: f: ``gelu`` (exact), ``gelu_tanh``, ``relu``, ``silu``, ``identity``.
        bias: Whether projections have one.
        residual_scale: s; 0.75 in the official code with T = 2, else 1.
        tap: y: ``norm`` (the output of the sub-layer's norm, as in all public code) or ``input`` (x, as the paper
            writes it).
        gate: gamma: ``none`` (1), ``scalar`` (one number per path) or ``channel`` (one per path and channel).
        gate_init: Where gates start; 0 makes adding paths a no-op at first, which a pretrained model needs.
        init: Weights at the start: ``uniform`` (torch's own for linear layers) or ``trunc_normal`` (0.02, zero bias).
        weight_decay: Whether optimizers may decay the paths' matrices; the official code never decays circulant ones.
        drop_path_paths: Whether stochastic depth drops the paths along with the branch.
        reduction: r of ``bottleneck``: its width is d / r.
        backend: How circulant projections are computed: ``auto``, ``fft``, ``dense``, ``crt``, ``triton``.
        crt_level: Splits of the ``crt`` backend; lowered where blocks do not allow so many.

    Raises:
        UserError: If a value is out of range; names it and what is allowed.

    Example:
        >>> AugmentConfig(num_paths=2, num_blocks=4).location
        ('attn', 'mlp')
    """

    num_paths: int = 2
    num_blocks: int = 4
    location: Any = LOCATIONS
    projection: str = "circulant"
    act: str = "gelu"
    bias: bool = True
    residual_scale: float = 1.0
    tap: str = "norm"
    gate: str = "none"
    gate_init: float = 1.0
    init: str = "uniform"
    weight_decay: bool = False
    drop_path_paths: bool = False
    reduction: int = 32
    backend: str = "auto"
    crt_level: int = 2

    def __post_init__(self) -> None:
        for name, least in (("num_paths", 0), ("num_blocks", 1), ("reduction", 1), ("crt_level", 0)):
            _whole(name, getattr(self, name), least)
        for name, allowed in (
            ("projection", PROJECTIONS),
            ("act", ACTS),
            ("tap", TAPS),
            ("gate", GATES),
            ("init", INITS),
            ("backend", BACKENDS),
        ):
            choose(name, getattr(self, name), allowed)
        for name in ("bias", "weight_decay", "drop_path_paths"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be true or false, got {getattr(self, name)!r}")
        object.__setattr__(self, "location", _locations(self.location))
        for name in ("residual_scale", "gate_init"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if self.residual_scale <= 0:
            raise UserError(f"residual_scale must be above 0, got {self.residual_scale}")
        if self.num_paths == 0 and self.residual_scale != 1.0:
            raise UserError(f"residual_scale={self.residual_scale} with num_paths=0 would only shrink the model; use 1")
        if self.gate == "none" and self.gate_init != 1.0:
            raise UserError(f"gate_init={self.gate_init} needs gate=scalar or gate=channel, got gate='none'")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return {**dataclasses.asdict(self), "location": list(self.location)}

    def to_json(self) -> str:
        """All fields as one line of JSON, for the metadata of a file."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AugmentConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: If a key or a value is not known.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            choose("augment argument", key, names)
        return cls(**values)

    @classmethod
    def from_json(cls, text: str, source: str = "config") -> AugmentConfig:
        """The inverse of :meth:`to_json`.

        Args:
            text: The line.
            source: Where it was found, for the message.

        Raises:
            UserError: If it is none.
        """
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise UserError(f"{source} must be a JSON object of AugmentConfig's fields, got {text[:60]!r}")
        return cls.from_dict(values)


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _locations(value: Any) -> tuple[str, ...]:
    if value == "both":
        return LOCATIONS
    given = (value,) if isinstance(value, str) else tuple(value)
    for one in given:
        choose("location", one, (*LOCATIONS, "both"))
    if not given or len(set(given)) != len(given):
        raise UserError(f"location must name attn, mlp or both, each once, got {list(given)}")
    return tuple(name for name in LOCATIONS if name in given)


# Each of the official PyTorch code's modes fixes paths, activation and scale together (see ``preset``).
PRESETS: dict[str, dict[str, Any]] = {
    # The paper's equations 4 and 5 (as restated by the same group), on the normalised input as all public code has it.
    "paper": {},
    # Official PyTorch code, `circulant2`: the identity shrinks by 0.75 after each sub-layer.
    "official": {"residual_scale": 0.75},
    # Onto pretrained weights: nothing changes at step 0. Weights are random and gates zero: zero weights would give all
    # paths the same gradients for ever.
    "retrofit": {"gate": "scalar", "gate_init": 0.0},
    # The MindSpore zoo's augvit: one dense path, no activation, no scale.
    "mindspore": {"num_paths": 1, "projection": "dense", "act": "identity", "init": "trunc_normal"},
    # PanGu-pi (arXiv 2312.17276, section 4.1): one bottleneck of width d / 32 beside attention only.
    "pangu": {"num_paths": 1, "projection": "bottleneck", "location": ("attn",)},
}


def preset(name: str, **overrides: Any) -> AugmentConfig:
    """A preset, with some of its values changed.

    ``official`` follows the modes of the official code: with ``num_paths=1`` it has neither activation nor scale, as
    there, and with ``num_paths=0`` it is the plain model.

    Args:
        name: One of :data:`PRESETS`.
        **overrides: Fields of :class:`AugmentConfig`; ``None`` leaves the preset's.

    Raises:
        UserError: If the name or a value is not known.

    Example:
        >>> preset("official").residual_scale
        0.75
    """
    values = dict(PRESETS[choose("preset", name, PRESETS)])
    given = {key: value for key, value in overrides.items() if value is not None}
    if name == "official" and given.get("num_paths") in (0, 1):
        values |= {"residual_scale": 1.0, "act": "identity"}
    if name == "official" and given.get("projection") == "dense":
        values["init"] = "trunc_normal"  # its model-wide initialisation reaches nn.Linear only
    return AugmentConfig.from_dict({**values, **given})


def resolve_config(config: str | AugmentConfig | Mapping[str, Any]) -> AugmentConfig:
    """A preset's name, an :class:`AugmentConfig` or its fields as an :class:`AugmentConfig`.

    A mapping may name a preset under ``preset``; its other entries win over it.

    Raises:
        UserError: If it is none of these.
    """
    if isinstance(config, AugmentConfig):
        return config
    if isinstance(config, str):
        return preset(config)
    if isinstance(config, Mapping):
        values = dict(config)
        return preset(values.pop("preset", "paper"), **values)
    raise UserError(f"config must be one of {', '.join(PRESETS)}, an AugmentConfig or a mapping, got {config!r}")
