"""Once for all and BigNAS: who is drawn in which stage, who teaches whom."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from effkit.errors import UserError
from ws_nas.families.base import Batch
from ws_nas.families.elastic import STAGES, soft_cross_entropy, stage_of
from ws_nas.families.progress import Progress
from ws_nas.families.registry import make_family
from ws_nas.spaces.registry import get_space
from ws_nas.training.module import FamilyModule


def family_of(name, **options):
    torch.manual_seed(0)
    space = get_space("ofa_tiny")
    return make_family(name, space, space.supernet(), 1, **options)


def batch():
    generator = torch.Generator().manual_seed(7)
    layout = get_space("ofa_tiny").layout
    shape = (6, layout.in_channels, layout.resolution, layout.resolution)
    return Batch(torch.randn(shape, generator=generator), torch.randint(10, (6,), generator=generator))


def test_soft_cross_entropy_is_least_for_the_same_answers():
    logits, other = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.cross_entropy(other, logits.softmax(1))
    torch.testing.assert_close(soft_cross_entropy(other, logits), expected)
    assert soft_cross_entropy(logits, logits) < soft_cross_entropy(other, logits)


def test_stages_share_the_epochs():
    assert [stage_of((1, 1, 2), Progress(e, 4, 1)) for e in range(4)] == [0, 1, 2, 2]
    assert [stage_of((1,) * 6, Progress(e, 3, 1)) for e in range(3)] == [0, 3, 5]
    family = family_of("ofa")
    with pytest.raises(UserError, match=r"trainer\.max_epochs=1 trains the teacher only"):
        family.begin_epoch(Progress(0, 1, 1))
    stages = [stage_of(family.shares, Progress(e, 59, 1)) for e in range(59)]
    assert [stages.count(s) for s in range(6)] == [18, 12, 2, 12, 3, 12]


def test_progressive_shrinking_lets_in_one_kind_after_the_other():
    family = family_of("ofa", shares=[1] * 6)
    sizes = family.space.network
    counts, seen = [], []
    for epoch in range(6):
        family.begin_epoch(Progress(epoch, 6, 1))
        allowed = family.allowed()
        stages, places = len(sizes.stages), len(sizes.stages) * max(sizes.depths)
        seen.append((len(allowed[0]), len(allowed[stages]), len(allowed[stages + places])))
        counts.append(len(family.paths(epoch)))
        found = family.training_step(batch(), epoch)
        assert float(found["stage"]) == epoch
        assert all(family.space.is_valid(g) for g in family.paths(epoch))
    d, k, e = len(sizes.depths), len(sizes.kernels), len(sizes.expands)
    assert seen == [(1, 1, 1), (1, k, 1), (min(2, d), k, 1), (d, k, 1), (d, k, min(2, e)), (d, k, e)]
    assert counts == [1, 1, 2, 2, 4, 4]
    assert STAGES[family.stage] == "expand"


def test_the_teacher_is_the_largest_network_as_it_was():
    family = family_of("ofa", shares=[1] * 6)
    family.begin_epoch(Progress(0, 6, 1))
    assert family.paths(3) == [family.space.named["max"]]
    before = copy.deepcopy(family.supernet.state_dict())
    family.begin_epoch(Progress(1, 6, 1))
    family.training_step(batch(), 1)
    assert all(p.grad is None for p in family.teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in family.teacher.state_dict().items())
    other = family_of("ofa", shares=[1] * 6)
    other.load_state_dict(copy.deepcopy(family.state_dict()))
    assert other.stage == 1
    assert all(torch.equal(v, before[k]) for k, v in other.teacher.state_dict().items())
    other.teacher = None
    with pytest.raises(UserError, match=r"the largest network is asked as the teacher, and there is none"):
        other.training_step(batch(), 1)


def test_channels_are_sorted_before_expansions_shrink_and_the_largest_network_stays():
    family = family_of("ofa", shares=[1] * 6)
    family.supernet.eval()
    for epoch in range(4):
        family.begin_epoch(Progress(epoch, 6, 1))
    before = copy.deepcopy(family.supernet.state_dict())
    answers = family.supernet(batch().images, family.space.named["max"])
    family.begin_epoch(Progress(4, 6, 1))
    assert any(not torch.equal(v, before[k]) for k, v in family.supernet.state_dict().items())
    found = family.supernet(batch().images, family.space.named["max"])
    torch.testing.assert_close(found, answers, rtol=1e-5, atol=1e-5)


def test_a_new_stage_forgets_momenta():
    family = family_of("ofa", shares=[1] * 6)
    family.weight_optimizer = torch.optim.SGD(family.network.parameters(), lr=0.1, momentum=0.9)
    family.training_step(batch(), 0)
    family.weight_optimizer.step()
    assert family.weight_optimizer.state
    family.begin_epoch(Progress(1, 6, 1))
    assert not family.weight_optimizer.state


def test_the_sandwich():
    family = family_of("bignas", dropout=0.0, drop_connect=0.0)
    paths = family.paths(5)
    ends = family.space.named
    assert (paths[0], paths[-1], len(paths)) == (ends["max"], ends["min"], 4)
    found = family.training_step(batch(), 5)
    gradients = [p.grad for p in family.supernet.parameters()]
    answers = family.supernet(batch().images, ends["max"])
    loss = nn.functional.cross_entropy(answers, batch().labels)
    torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-5, atol=1e-6)
    for genotype in paths[1:]:
        loss = loss + soft_cross_entropy(family.supernet(batch().images, genotype), answers)
    expected = torch.autograd.grad(loss, list(family.supernet.parameters()), allow_unused=True)
    for one, other in zip(gradients, expected, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_largest_network_alone_is_regularised(monkeypatch):
    family = family_of("bignas", dropout=0.9, drop_connect=0.8)
    seen = []
    run = family.supernet.run

    def watched(x, genotype):
        blocks = {block.drop_connect for stage in family.supernet.stages for block in stage}
        seen.append((genotype, family.supernet.head.dropout.p, blocks))
        return run(x, genotype)

    monkeypatch.setattr(family.supernet, "run", watched)
    paths = family.paths(0)
    before = family.supernet.head.dropout.p
    family.training_step(batch(), 0)
    assert seen == [(paths[0], 0.9, {0.8}), *((g, before, {0.0}) for g in paths[1:])]
    images = batch().images
    with family.supernet.regularised(0.0, 0.5):  # a block's whole part of a picture goes, or is doubled
        block = next(b for stage in family.supernet.stages for b in stage if b.shape.residual)
        block.train()
        x = torch.randn(64, block.shape.source, 2, 2, generator=torch.Generator().manual_seed(0))
        added = block(x, block.filter.kernels[-1], 3) - x
        gone = (added == 0).flatten(1).all(1)
        assert 10 < int(gone.sum()) < 54
        family.supernet.eval()
        first = family.supernet(images, paths[0])
        assert torch.equal(first, family.supernet(images, paths[0]))  # nothing is dropped outside training
    block.train()
    whole = block(x, block.filter.kernels[-1], 3) - x
    torch.testing.assert_close(added[~gone], 2 * whole[~gone], rtol=1e-4, atol=1e-5)


RATES = {"ofa": (1, 1, 1 / 12, 1 / 4, 1 / 12, 1 / 4), "p_darts": (1, 1, 1)}


def staged(name, **options):
    space = get_space("ofa_tiny" if name == "ofa" else "darts_tiny")
    more = {"shares": [1] * 6} if name == "ofa" else {"cells": [3, 3, 3], "warmup": 0}
    return make_family(name, space, space.supernet(), 0, **more, **options)


def rates_of(family, epochs, scheduler, steps=2):
    """The learning rate of every step of a run."""
    module = FamilyModule(
        family, 10, object(), optimizer={"opt": "sgd", "lr": 0.03, "momentum": 0.9}, scheduler=scheduler
    )
    optimizer = torch.optim.SGD(family.network.parameters(), lr=0.03)
    module._told = Progress(0, epochs, steps)
    module._schedules = module._staged(optimizer, module._told)
    found = []
    for step in range(epochs * steps):
        module._set_rate(optimizer, step)
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.param_groups[0]["lr"] = 77.0  # whatever another schedule left there
    return found


@pytest.mark.parametrize("name", RATES)
def test_each_stage_has_its_learning_rate(name):
    family, count = staged(name), len(RATES[name])
    plain = rates_of(family, count, {"sched": "none"})
    assert plain == pytest.approx([0.03 * rate for rate in RATES[name] for _ in range(2)], rel=1e-6)
    fallen = rates_of(family, 4 * count, {"sched": "cosine", "min_lr": 0.0})
    whole = [0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert fallen == pytest.approx([0.03 * rate * share for rate in RATES[name] for share in whole], rel=1e-6)
    family.rates = (0.5,) * count
    assert rates_of(family, count, {"sched": "none"}) == pytest.approx([0.015] * 2 * count)


def test_stages_that_let_in_a_part_do_not_warm_up():
    family = staged("ofa", rates=[1] * 6)
    rates = rates_of(family, 12, {"sched": "cosine", "warmup_epochs": 1, "warmup_lr": 0.0})
    firsts = rates[::4]
    assert firsts == pytest.approx([0, 0, 0.03, 0, 0.03, 0])


def test_one_schedule_over_the_run_on_request():
    family = family_of("ofa", rates=None)
    assert family.stages(6) == []
    with pytest.raises(UserError, match=r"scheduler=onecycle is laid out over the whole run.*family\.rates=null"):
        rates_of(staged("ofa"), 6, {"sched": "onecycle"})
    with pytest.raises(UserError, match=r"a stage of family=ofa from epoch 1 on; family\.rates=null"):
        rates_of(staged("ofa"), 6, {"sched": "cosine", "warmup_epochs": 1})
    with pytest.raises(UserError, match=r"family\.rates=\[1, 1\] needs 6 values, one a stage, or null"):
        family_of("ofa", rates=[1, 1])
    with pytest.raises(UserError, match=r"family\.rates=0 must be a number above 0"):
        family_of("ofa", rates=[1, 1, 0, 1, 1, 1])


@pytest.mark.parametrize("name", ["ofa", "bignas"])
def test_other_spaces_are_refused(name):
    space = get_space("digits_chain")
    with pytest.raises(UserError, match=rf"family={name} needs an elastic space, space=digits_chain is none"):
        make_family(name, space, space.supernet())


def test_shares_are_of_all_stages():
    with pytest.raises(UserError, match=r"family\.shares=\[1, 2\] needs 6 values, of teacher, kernel"):
        family_of("ofa", shares=[1, 2])
