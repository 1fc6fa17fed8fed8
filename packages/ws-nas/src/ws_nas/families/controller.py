"""An LSTM that writes genotypes, gene by gene: the controller of ENAS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from ws_nas.spaces.space import Genotype, Space

__all__ = ["Controller"]

TRIES = 1000
"""Draws of one genotype after which a controller is held to write none that is valid."""


class Controller(nn.Module):
    """A policy over genotypes: a product of categoricals, each given the genes before it.

    Args:
        choices: Options of each gene.
        hidden: Width of the LSTM.
        layers: Layers of the LSTM.
        temperature: Divides the logits inside the tanh.
        tanh: Multiplies the tanh: logits are ``tanh * tanh(logits / temperature)``.
        seed: Of the initial weights, uniform in [-0.1, 0.1].
    """

    def __init__(
        self,
        choices: Sequence[int],
        hidden: int = 32,
        layers: int = 2,
        temperature: float = 5.0,
        tanh: float = 2.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.choices, self.temperature, self.tanh = tuple(choices), temperature, tanh
        self.start = nn.Parameter(torch.empty(1, hidden))
        self.embeddings = nn.ModuleList(nn.Embedding(count, hidden) for count in self.choices[:-1])
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(hidden, count) for count in self.choices)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.1, 0.1, generator=generator)

    def log_probabilities(self, genotypes: Tensor) -> tuple[Tensor, Tensor]:
        """How likely genotypes are.

        Args:
            genotypes: int64 ``(N, genes)``.

        Returns:
            Log-probability ``(N,)``, and the entropy of the distributions met on the way, summed over genes ``(N,)``.
        """
        inputs = [self.start.expand(len(genotypes), -1)]
        inputs += [embed(genotypes[:, i]) for i, embed in enumerate(self.embeddings)]
        outputs, _ = self.lstm(torch.stack(inputs, 1))
        chosen, entropy = [], []
        for i, head in enumerate(self.heads):
            logs = self._squashed(head(outputs[:, i])).log_softmax(1)
            chosen.append(logs.gather(1, genotypes[:, i : i + 1])[:, 0])
            entropy.append(-(logs.exp() * logs).sum(1))
        return torch.stack(chosen, 1).sum(1), torch.stack(entropy, 1).sum(1)

    def _squashed(self, logits: Tensor) -> Tensor:
        return self.tanh * torch.tanh(logits / self.temperature)

    @torch.no_grad()
    def write(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Genotypes, valid or not.

        Args:
            count: How many.
            generator: Draws, on the CPU; ``None`` takes the likeliest choice of every gene, the first of equal ones.

        Returns:
            int64 ``(count, genes)``, on the controller's device.
        """
        given, state, genes = self.start.expand(count, -1), None, []
        for i, head in enumerate(self.heads):
            output, state = self.lstm(given[:, None], state)
            logits = self._squashed(head(output[:, 0])).cpu()
            if generator is None:
                gene = logits.argmax(1)
            else:
                gene = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
            gene = gene.to(given.device)
            genes.append(gene)
            if i < len(self.embeddings):
                given = self.embeddings[i](gene)
        return torch.stack(genes, 1)

    def valid(self, space: Space, count: int, generator: torch.Generator) -> list[Genotype]:
        """Genotypes that are valid, by drawing anew.

        Raises:
            UserError: If a thousand draws a genotype held too few.
        """
        found: list[Genotype] = []
        for _ in range(TRIES):
            drawn = self.write(count - len(found), generator).tolist()
            found += [tuple(genes) for genes in drawn if space.is_valid(tuple(genes))]
            if len(found) == count:
                return found
        raise UserError(f"family=enas: the controller wrote {len(found)} of {count} valid genotypes in {TRIES} draws")
