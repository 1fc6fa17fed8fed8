"""Stand-alone trainings: what the sub-networks of a space reach with weights of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from effkit.errors import UserError, choose
from effkit.progress import part, report_progress
from ws_nas.evaluation.splits import Splits
from ws_nas.evaluation.stacked import StackedChains
from ws_nas.spaces.space import Genotype, Space
from ws_nas.supernets.networks.chain import ChainNetwork
from ws_nas.supernets.networks.darts import DartsNetwork

__all__ = ["METHODS", "Recipe", "StandaloneScores", "train_standalone"]

METHODS = ("auto", "stacked", "sequential")


@dataclass(frozen=True)
class Recipe:
    """How each network is trained: SGD with Nesterov momentum, a cosine from ``lr`` to 0 step by step.

    Attributes:
        epochs: Passes over the training pictures; what does not fill a batch is left out, each time others.
        batch_size: Pictures a step.
        lr: Rate of the first step.
        momentum: Of SGD.
        weight_decay: Of all parameters.
        label_smoothing: Of the cross entropy in training.
        auxiliary: Weight of the loss of the auxiliary head, of networks that have one.
        drop_path: How often what an edge gives is dropped in the last epoch, rising linearly from 0, in cells of DARTS.
        cutout: Side of a square in each training picture that is set to 0, at a place drawn anew each time.
    """

    epochs: int = 12
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    auxiliary: float = 0.0
    drop_path: float = 0.0
    cutout: int = 0

    def __post_init__(self) -> None:
        for field in ("epochs", "batch_size"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"recipe.{field}={value!r} must be a whole number of at least 1")
        if isinstance(self.cutout, bool) or not isinstance(self.cutout, int) or self.cutout < 0:
            raise UserError(f"recipe.cutout={self.cutout!r} must be a whole number of at least 0")
        below_one = dict.fromkeys(("momentum", "label_smoothing", "drop_path"), 1.0)
        for field, most in {**dict.fromkeys(("lr", "weight_decay", "auxiliary"), math.inf), **below_one}.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < most:
                below = "" if most == math.inf else f" and below {most:g}"
                raise UserError(f"recipe.{field}={value!r} must be a number of at least 0{below}")


class StandaloneScores(NamedTuple):
    """What networks reach, (G, S) for G genotypes and S seeds, float64.

    Attributes:
        val_accuracy: Share of right answers on the part to choose by.
        val_loss: Mean cross entropy there.
        test_accuracy: Share of right answers on the part to judge by.
        test_loss: Mean cross entropy there.
        networks: The trained networks, genotype by genotype and seed by seed, where they were asked for.
    """

    val_accuracy: Tensor
    val_loss: Tensor
    test_accuracy: Tensor
    test_loss: Tensor
    networks: list[list[nn.Module]] | None = None


def train_standalone(
    space: Space,
    genotypes: Sequence[Sequence[int]],
    seeds: Sequence[int],
    data: Splits,
    recipe: Recipe | None = None,
    *,
    method: str = "auto",
    at_once: int = 32,
    keep: bool = False,
    device: torch.device | str = "cpu",
) -> StandaloneScores:
    """Train networks from nothing, each with every seed.

    A seed decides a network's initial weights and the order of its pictures, whatever else is trained beside it.

    Args:
        space: The space.
        genotypes: G of it.
        seeds: S whole numbers.
        data: What to train, choose and judge on.
        recipe: How.
        method: ``stacked`` trains many at once (chains without dropout), ``sequential`` one after another, ``auto`` at
            once where it can. Both end within rounding.
        at_once: How many a stack holds.
        keep: Return the networks too, on the CPU.
        device: Where they are trained.

    Raises:
        UserError: If a genotype is of another space, a value is out of range, the space cannot be stacked and
            ``stacked`` was asked for, or a training diverges; names the genotype and the seed.
    """
    recipe = recipe or Recipe()
    choose("method", method, METHODS)
    genes = [space.check(g) for g in genotypes]
    if not genes or not seeds:
        raise UserError("genotypes and seeds must not be empty")
    if at_once < 1:
        raise UserError(f"at_once={at_once} must be at least 1")
    if recipe.batch_size > len(data.train[1]):
        raise UserError(
            f"recipe.batch_size={recipe.batch_size} is more than the {len(data.train[1])} pictures to train on"
        )
    with torch.device("meta"):
        sample = space.build(genes[0])
    _check_network(sample, recipe, space)
    stackable = isinstance(sample, ChainNetwork) and sample.head.dropout.p == 0
    if method == "stacked" and not stackable:
        raise UserError(f"method=stacked: space={space.name} is no chain without dropout; choose auto or sequential")
    data = Splits(*((x.to(device), y.to(device)) for x, y in data))
    jobs = [(g, s) for g in genes for s in seeds]
    found: list[tuple[float, ...]] = []
    networks: list[nn.Module] = []
    size = at_once if stackable and method != "sequential" else 1
    for start in range(0, len(jobs), size):
        some = jobs[start : start + size]
        fresh = [_initial(space, g, s) for g, s in some]
        trained: _Single | StackedChains
        if size == 1:
            trained = _Single(fresh[0], recipe.auxiliary)
        else:
            trained = StackedChains(fresh, [g for g, _ in some], space.layout.resolution)  # type: ignore[arg-type]
        with part(f"{len(jobs)} stand-alone networks", start / len(jobs), (start + len(some)) / len(jobs)):
            _train(trained.to(device), [s for _, s in some], data.train, recipe)
        figures = [*_measure(trained, data.val, len(some)), *_measure(trained, data.test, len(some))]
        for i, job in enumerate(some):
            row = tuple(float(f[i]) for f in figures)
            if not all(map(math.isfinite, row)):
                raise UserError(f"genotype={space.str(job[0])} with seed {job[1]} diverged: its loss is {row[1]}")
            found.append(row)
        if keep:
            for i, network in enumerate(fresh):
                trained.unstack(i, network)  # type: ignore[arg-type]
                networks.append(network.eval().cpu())
    table = torch.tensor(found, dtype=torch.float64).view(len(genes), len(seeds), 4)
    kept = [networks[i * len(seeds) : (i + 1) * len(seeds)] for i in range(len(genes))] if keep else None
    val_accuracy, val_loss, test_accuracy, test_loss = table.unbind(2)
    return StandaloneScores(val_accuracy, val_loss, test_accuracy, test_loss, kept)


def _check_network(network: nn.Module, recipe: Recipe, space: Space) -> None:
    """Refuse parts of a recipe that a space's networks have no use for."""
    cells = isinstance(network, DartsNetwork)
    if recipe.drop_path and not cells:
        raise UserError(f"recipe.drop_path={recipe.drop_path} is of cells of DARTS, not of space={space.name}")
    if recipe.auxiliary and not (isinstance(network, DartsNetwork) and network.auxiliary is not None):
        raise UserError(
            f"recipe.auxiliary={recipe.auxiliary} needs an auxiliary head: space=darts with space.auxiliary=true, "
            f"not this space={space.name}"
        )


def _initial(space: Space, genotype: Genotype, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return space.build(genotype)


class _Single(nn.Module):
    """One network with the interface of a stack."""

    def __init__(self, network: nn.Module, auxiliary: float) -> None:
        super().__init__()
        self.network, self.auxiliary = network, auxiliary

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x[0])[None]

    def loss(self, x: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        def entropy(logits: Tensor) -> Tensor:
            return functional.cross_entropy(logits, labels[0], label_smoothing=label_smoothing)

        if not self.auxiliary:
            return entropy(self.network(x[0]))
        assert isinstance(self.network, DartsNetwork)
        logits, second = self.network.with_auxiliary(x[0])
        assert second is not None
        return entropy(logits) + self.auxiliary * entropy(second)

    def unstack(self, number: int, network: nn.Module) -> None:
        """The network has been trained in place."""


def _train(
    networks: StackedChains | _Single,
    seeds: Sequence[int],
    train: tuple[Tensor, Tensor],
    recipe: Recipe,
) -> None:
    """A parameter belongs to one network, and SGD treats each alone: a stack is stepped as its networks would be."""
    device = train[0].device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seeds[0])  # of what layers draw by themselves: drop-path, dropout
        _epochs(networks, seeds, train, recipe)


def _epochs(
    networks: StackedChains | _Single,
    seeds: Sequence[int],
    train: tuple[Tensor, Tensor],
    recipe: Recipe,
) -> None:
    pictures, labels = train
    steps = len(labels) // recipe.batch_size
    optimizer = torch.optim.SGD(
        networks.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / (recipe.epochs * steps)))
    )
    sources = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
    networks.train()
    for epoch in range(recipe.epochs):
        report_progress(f"epoch {epoch + 1} of {recipe.epochs}", epoch / recipe.epochs)
        if recipe.drop_path:
            assert isinstance(networks, _Single)
            assert isinstance(networks.network, DartsNetwork)
            networks.network.set_drop_path(recipe.drop_path * epoch / max(1, recipe.epochs - 1))
        orders = {seed: torch.randperm(len(labels), generator=source) for seed, source in sources.items()}
        order = torch.stack([orders[seed] for seed in seeds])
        for step in range(steps):
            chosen = order[:, step * recipe.batch_size : (step + 1) * recipe.batch_size]
            optimizer.zero_grad()
            shown = pictures[chosen]
            if recipe.cutout:
                shown = _cut_out(shown, recipe.cutout, sources, seeds)
            networks.loss(shown, labels[chosen], recipe.label_smoothing).backward()
            optimizer.step()
            schedule.step()


def _cut_out(pictures: Tensor, side: int, sources: dict[int, torch.Generator], seeds: Sequence[int]) -> Tensor:
    """Squares around random pixels of (K, B, C, H, W) set to 0; networks of one seed see the same."""
    count, height, width = pictures.shape[1], *pictures.shape[3:]
    kept: dict[int, Tensor] = {}
    for seed, source in sources.items():
        y, x = (torch.randint(n, (count, 1), generator=source) for n in (height, width))
        rows, columns = (torch.arange(n)[None] - at + side // 2 for n, at in ((height, y), (width, x)))
        hit = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None]
        kept[seed] = ~hit
    return pictures * torch.stack([kept[seed] for seed in seeds])[:, :, None].to(pictures)


def _measure(networks: nn.Module, part: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Accuracy and loss of each, (K,), on all pictures of a part."""
    pictures, labels = part
    networks.eval()
    right, loss = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    with torch.no_grad():
        for x, y in zip(pictures.split(256), labels.split(256), strict=True):
            logits = networks(x.expand(count, *x.shape))
            right += (logits.argmax(2) == y).sum(1).cpu()
            each = functional.cross_entropy(logits.flatten(0, 1), y.repeat(count), reduction="none")
            loss += each.double().view(count, -1).sum(1).cpu()
    return right / len(labels), loss / len(labels)
