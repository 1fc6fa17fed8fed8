"""What every search space has: genotypes, how they are written, sampled, varied, counted and built.

A genotype is a tuple of indices, one per gene; ``choices`` says how many each gene has. What the indices mean is the
matter of the space. Sampling is uniform over the valid genotypes; operators never return one that is invalid.
"""

from __future__ import annotations

import builtins
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from effkit.errors import UserError
from ws_nas.supernets.supernet import Supernet

__all__ = ["Cost", "Genotype", "Graph", "Layout", "Space", "as_generator", "path_graph"]

Genotype: TypeAlias = tuple[int, ...]

_TRIES = 10_000  # of rejection sampling; what is that rare has to be counted another way


class Cost(NamedTuple):
    """What a network costs for one picture.

    Attributes:
        params: Parameters.
        macs: Multiply-adds of convolutions and linear maps.
    """

    params: int
    macs: int


class Layout(NamedTuple):
    """What a network of a space takes and gives: (B, in_channels, resolution, resolution) to (B, classes)."""

    in_channels: int
    resolution: int
    classes: int


class Graph(NamedTuple):
    """A part of a network as a drawing: nodes in the order in which they are computed, and what runs between them.

    Attributes:
        nodes: Their names.
        edges: Source and target, as places in ``nodes``, and the operation.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]


def path_graph(operations: Sequence[str]) -> Graph:
    """Operations one after the other."""
    nodes = ("in", *(str(i) for i in range(1, len(operations))), "out")
    return Graph(nodes, tuple((i, i + 1, operation) for i, operation in enumerate(operations)))


def as_generator(generator: torch.Generator | int) -> torch.Generator:
    """A generator, made from a seed where one is given."""
    return torch.Generator().manual_seed(generator) if isinstance(generator, int) else generator


class Space(ABC):
    """A search space.

    Args:
        name: Its name in :func:`ws_nas.get_space`.
        choices: How many options each gene has.
        layout: What its networks take and give.
        sizes: Whatever else decides what a genotype's network is; part of :attr:`hash`.
    """

    named: Mapping[str, Genotype] = {}
    """Genotypes known by name; :meth:`parse` takes the names too."""

    def __init__(self, name: str, choices: Sequence[int], layout: Layout, sizes: Mapping[str, Any]) -> None:
        self.name, self.choices, self.layout, self.sizes = name, tuple(choices), layout, dict(sizes)

    # What a space must say.

    @abstractmethod
    def format(self, genotype: Genotype) -> str:
        """How a genotype is written; :meth:`parse` reads it back."""

    @abstractmethod
    def read(self, text: str) -> Genotype:
        """Read what :meth:`format` writes; a ``ValueError`` with the reason if it is nothing of the kind."""

    @abstractmethod
    def cost(self, genotype: Genotype) -> Cost:
        """Parameters and MACs in closed form, without building anything."""

    @abstractmethod
    def build(self, genotype: Genotype) -> nn.Module:
        """The stand-alone network, with weights of its own."""

    @abstractmethod
    def supernet(self, **options: Any) -> Supernet:
        """A super-network of all networks of the space."""

    # What a space may say otherwise.

    def graphs(self, genotype: Genotype) -> dict[str, Graph]:
        """What a genotype decides, as drawings by the name of the part; none where a space does not say.

        An operation that gives nothing has no edge.
        """
        return {}

    def is_valid(self, genotype: Genotype) -> bool:
        """Whether these indices are a genotype of the space."""
        return self._fits(genotype)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The one genotype that stands for all which are the same network; itself where each is its own."""
        return self.check(genotype)

    def size(self) -> int:
        """How many genotypes there are."""
        return prod(self.choices)

    def index(self, genotype: Genotype) -> int:
        """The place of a genotype in the order of :meth:`__iter__`."""
        number = 0
        for gene, options in zip(self.check(genotype), self.choices, strict=True):
            number = number * options + gene
        return number

    def from_index(self, index: int) -> Genotype:
        """The genotype at a place.

        Raises:
            UserError: If there is no such place.
        """
        left = self._check_index(index)
        genes = []
        for options in reversed(self.choices):
            left, gene = divmod(left, options)
            genes.append(gene)
        return tuple(reversed(genes))

    def sample(self, generator: torch.Generator | int) -> Genotype:
        """Draw uniformly over the valid genotypes, by rejection.

        Args:
            generator: A generator on the CPU, or a seed.
        """
        source = as_generator(generator)
        for _ in range(_TRIES):
            genes = tuple(int(torch.randint(options, (), generator=source)) for options in self.choices)
            if self.is_valid(genes):
                return genes
        raise UserError(f"space={self.name}: none of {_TRIES:,} random genotypes was valid")

    # What is the same for all.

    def check(self, genotype: Sequence[int]) -> Genotype:
        """The genotype as a tuple.

        Raises:
            UserError: If it is none of this space; names it.
        """
        genes = tuple(genotype)
        if not self._fits(genes):
            raise UserError(
                f"genotype={genes} is none of space={self.name}: "
                f"it needs {len(self.choices)} indices below {self._below()}"
            )
        if not self.is_valid(genes):
            raise UserError(
                f"genotype={self.format(genes)} is not valid in space={self.name}{self._why_invalid(genes)}"
            )
        return genes

    def parse(self, text: str) -> Genotype:
        """Read a genotype as it is written, or by its name.

        Raises:
            UserError: If it is none of this space.
        """
        if not isinstance(text, str):
            raise UserError(f"genotype={text!r} must be text")
        if text in self.named:
            return self.named[text]
        try:
            genes = self.read(text.strip())
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"genotype={text!r} is none of space={self.name}: {error}") from None
        return self.check(genes)

    def str(self, genotype: Sequence[int]) -> str:
        """How a genotype is written.

        Raises:
            UserError: If it is none of this space.
        """
        return self.format(self.check(genotype))

    def sample_many(self, count: int, seed: torch.Generator | int, distinct: bool = True) -> list[Genotype]:
        """Draw several genotypes.

        Args:
            count: How many.
            seed: A seed or a generator.
            distinct: No genotype twice.

        Raises:
            UserError: If the space has fewer.
        """
        if distinct and count > self.size():
            raise UserError(f"count={count} is more than the {self.size()} genotypes of space={self.name}")
        source = as_generator(seed)
        if distinct and count > self.size() // 2:  # rejection would draw forever for the last ones
            order = torch.randperm(self.size(), generator=source)[:count].tolist()
            everything = list(self)
            return [everything[i] for i in order]
        found: list[Genotype] = []
        seen: set[Genotype] = set()
        while len(found) < count:
            one = self.sample(source)
            if distinct and one in seen:
                continue
            seen.add(one)
            found.append(one)
        return found

    def mutate(self, genotype: Sequence[int], generator: torch.Generator | int, p: float = 0.1) -> Genotype:
        """Change each gene with probability ``p`` to another option; at least one changes.

        Args:
            genotype: What to change.
            generator: A generator or a seed.
            p: Above 0, at most 1.

        Raises:
            UserError: If ``p`` is out of range, or the genotype is none of this space.
        """
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 < p <= 1:
            raise UserError(f"p={p!r} must be a probability above 0 and at most 1")
        genes, source = self.check(genotype), as_generator(generator)
        free = [i for i, options in enumerate(self.choices) if options > 1]
        for _ in range(_TRIES):
            hit = (torch.rand(len(genes), generator=source) < p).tolist()
            if not any(hit[i] for i in free):
                hit[free[int(torch.randint(len(free), (), generator=source))]] = True
            changed = list(genes)
            for i in free:
                if hit[i]:
                    step = 1 + int(torch.randint(self.choices[i] - 1, (), generator=source))
                    changed[i] = (genes[i] + step) % self.choices[i]
            found = self.repaired(tuple(changed))
            if found is not None and found != genes:
                return found
        raise UserError(f"genotype={self.format(genes)} has no valid neighbour in space={self.name}")

    def crossover(self, a: Sequence[int], b: Sequence[int], generator: torch.Generator | int) -> Genotype:
        """A genotype that takes each gene from one of two parents, each as likely.

        Raises:
            UserError: If a parent is none of this space.
        """
        first, second, source = self.check(a), self.check(b), as_generator(generator)
        for _ in range(_TRIES):
            take = torch.randint(2, (len(first),), generator=source).tolist()
            found = self.repaired(tuple((x, y)[t] for x, y, t in zip(first, second, take, strict=True)))
            if found is not None:
                return found
        return first  # every mixture is invalid; a parent is not

    def repaired(self, genotype: Genotype) -> Genotype | None:
        """What an operator makes of mixed genes: themselves if valid; ``None`` draws anew."""
        return genotype if self.is_valid(genotype) else None

    def __iter__(self) -> Iterator[Genotype]:
        """All genotypes in the order of their index."""
        for index in range(self.size()):
            yield self.from_index(index)

    def __contains__(self, genotype: object) -> bool:
        return isinstance(genotype, tuple) and self._fits(genotype) and self.is_valid(genotype)

    @property
    def hash(self) -> builtins.str:
        """Hex digest of the name and the sizes: what checkpoints and tables carry to be told apart."""
        content = {"name": self.name, "choices": self.choices, "layout": self.layout, "sizes": self.sizes}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def space_id(self) -> builtins.str:
        """Name and hash, as supernets carry them."""
        return f"{self.name}:{self.hash}"

    def __repr__(self) -> builtins.str:
        sizes = ", ".join(f"{key}={value!r}" for key, value in self.sizes.items())
        return f"{type(self).__name__}({self.name!r}, {sizes})"

    def _fits(self, genotype: Sequence[int]) -> bool:
        return len(genotype) == len(self.choices) and all(
            isinstance(gene, int) and not isinstance(gene, bool) and 0 <= gene < options
            for gene, options in zip(genotype, self.choices, strict=True)
        )

    def _below(self) -> builtins.str:
        return str(self.choices[0]) if len(set(self.choices)) == 1 else str(self.choices)

    def _why_invalid(self, genotype: Genotype) -> builtins.str:
        return ""

    def _check_index(self, index: int) -> int:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < self.size():
            raise UserError(f"index={index!r} must be a whole number from 0 to {self.size() - 1}")
        return index
