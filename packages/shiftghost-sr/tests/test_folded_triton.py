"""The kernel of folded convolutions against the specification: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference, kernels
from effkit.triton import compile_kernel, count_launches
from shiftghost_sr import GhostConv2d, create_model, deploy, reference
from shiftghost_sr.compression.deployment.folded import FoldedConv2d, Group
from shiftghost_sr.layers.shift import direction_set
from shiftghost_sr.ops import dispatch
from shiftghost_sr.ops.folded_conv_triton import folded_conv
from shiftghost_sr.ops.taps import targets_table

device, interpreter, no_triton, compiler = kernels.device, kernels.interpreter, kernels.no_triton, kernels.compiler


class Block(nn.Module):
    """Two ghost convolutions, an activation between, beside an identity."""

    def __init__(self, channels: int, act: nn.Module | None = None, k: int = 3, **ghost) -> None:
        super().__init__()
        self.channels = channels
        self.a, self.b = (GhostConv2d(channels, channels, k, **ghost) for _ in range(2))
        self.act = nn.ReLU() if act is None else act

    def forward(self, x):
        x = x + 0
        return x + self.b(self.act(self.a(x)))


def made(channels=6, seed=0, **more):
    torch.manual_seed(seed)
    block = Block(channels, **more).double().eval()
    for conv in (block.a, block.b):
        conv.shift.logits.data.normal_()
    return block


def specified(block, x):
    """By the specification, in the type of ``x``."""
    for conv in (block.a, block.b):
        place = {g: i for i, g in enumerate(conv.shift.group_of_ghosts().tolist())} if False else None
        assert place is None
    maps = lambda conv, given: reference.ghost_conv(given, *arguments(conv, given))
    return x + maps(block.b, block.act(maps(block.a, x)))


def arguments(conv, like):
    sources, moves = conv.channel_map()
    kept = conv.intrinsic.tolist() if conv.order == "index" else list(range(conv.out_channels))
    ghosts = [c for c in range(len(sources)) if c not in kept]
    reach = conv.shift.max_shift
    one = lambda v: reference.one_hot(v, reach).to(like.device)
    weight, bias = conv.weight.to(like), None if conv.bias is None else conv.bias.to(like)
    return weight, bias, [one(moves[c]) for c in ghosts], [sources[c] for c in ghosts], kept, ghosts
