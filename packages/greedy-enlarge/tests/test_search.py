"""Candidates, schedule, selection and the search itself: section 3 and the goldens of 4.2."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from effkit.errors import UserError
from greedy_enlarge import reference
from greedy_enlarge.families import base, macs, params
from greedy_enlarge.search.evaluators import Synthetic, TableLookup, ZeroCost, log_stage_macs
from greedy_enlarge.search.exhaustive import all_within, exhaustive
from greedy_enlarge.search.greedy import Settings, check_search, search
from greedy_enlarge.search.moves import Limit, Moves, move_names
from greedy_enlarge.search.propose import propose
from greedy_enlarge.search.racing import Racing
from greedy_enlarge.search.schedule import Schedule
from greedy_enlarge.search.selection import Scored, rank
from greedy_enlarge.search.tasks import Result, Task

FREE = Moves(capped=False)
B1 = 686_802_832
CANDIDATES = {
    "depth_1": (13, 446_027_488), "depth_2": (4, 437_298_784), "depth_3": (5, 445_099_552),
    "depth_4": (7, 449_489_632), "depth_5": (5, 451_482_592), "depth_6": (7, 455_408_224),
    "depth_7": (2, 447_179_872), "width_1": (32, 459_977_184), "width_2": (40, 456_042_208),
    "width_3": (72, 447_138_784), "width_4": (120, 442_099_552), "width_5": (144, 440_991_136),
    "width_6": (248, 445_314_976), "width_7": (824, 445_875_424), "resolution": (232, 453_401_488),
}  # fmt: skip


def raised(spec, move):
    return spec.coordinates()[move_names(spec).index(move)]


def test_schedule_of_the_golden_run():
    schedule = Schedule.plan(385_814_752, B1)
    assert schedule.steps == 4
    assert [schedule.budget(n) for n in range(5)] == [385_814_752, 445_648_184, 514_760_784, 594_591_594, B1]


def test_golden_candidates():
    spec = base("efficientnet_b0")
    proposal = propose(spec, 445_648_184, 0.05, FREE)
    assert {c.move: (raised(c.spec, c.move), c.macs) for c in proposal.candidates} == CANDIDATES
    assert [c.move for c in proposal.candidates] == move_names(spec)
    assert all(c.macs == macs(c.spec) and c.params == params(c.spec) for c in proposal.candidates)


def test_coarse_moves_drop_out_at_a_small_ratio():
    spec = base("efficientnet_b0")
    proposal = propose(spec, round(1.1 * macs(spec)), 0.05, FREE)
    dropped = {d.move: d.reason for d in proposal.dropped}
    assert dropped["depth_7"].startswith("+5.4 %")
    assert dropped["resolution"].startswith("+6.8 %")


@pytest.mark.parametrize(("name", "ratio"), [("efficientnet_b0", 1.3), ("ghostnet_large", 1.5), ("resnet18", 1.2),
                                             ("regnety_004", 1.2), ("tiny", 1.4)])  # fmt: skip
def test_candidates_are_those_of_walking_one_network_at_a_time(name, ratio):
    spec = base(name)
    moves = Moves(capped=False, width_step=4 if name == "tiny" else None)
    steps = {"depth": 1, "width": moves.width_step_of(spec), "resolution": 8}
    budget = round(ratio * macs(spec))
    expected = reference.candidates(spec, budget, macs, steps, 0.05)
    found = propose(spec, budget, 0.05, moves)
    assert {c.move: (c.spec, c.macs) for c in found.candidates} == expected


def test_known_answer_on_efficientnet():
    found = search(base("efficientnet_b0"), B1, Synthetic(), Settings(steps=4, delta_final=0.05, moves=FREE))
    path = [(s.chosen[0].move, raised(s.chosen[0].spec, s.chosen[0].move), s.chosen[0].macs) for s in found.steps]
    assert path == [
        ("depth_1", 13, 446_027_488), ("depth_7", 2, 507_392_608), ("width_3", 80, 588_565_408),
        ("width_2", 48, 709_261_600),
    ]  # fmt: skip
    scores = [round(s.ranking.leader.mean, 6) for s in found.steps]
    assert scores == [124.734226, 125.858754, 127.227398, 128.490739]


def test_known_answer_on_ghostnet():
    found = search(base("ghostnet_large"), 600_000_000, Synthetic(), Settings(steps=8, delta_final=0.05, moves=FREE))
    path = [(s.chosen[0].move, raised(s.chosen[0].spec, s.chosen[0].move)) for s in found.steps]
    assert path == [("depth_1", 7), ("width_3", 84), ("width_2", 48), ("width_4", 156), ("width_2", 76),
                    ("width_5", 200), ("depth_1", 24), ("width_3", 152)]  # fmt: skip
    assert macs(found.spec) == 599_862_808
    assert round(log_stage_macs(found.spec), 6) == 110.210813


@pytest.mark.parametrize("name", ["efficientnet_b0", "ghostnet_large", "resnet50"])
def test_a_search_never_shrinks_and_keeps_its_budgets(name):
    spec = base(name)
    found = search(spec, round(1.9 * macs(spec)), Synthetic())
    chain = [spec, *(s.chosen[0].spec for s in found.steps)]
    for step, before, after in zip(found.steps, chain, chain[1:], strict=False):
        assert after.includes(before)
        assert sum(a != b for a, b in zip(before.coordinates(), after.coordinates(), strict=True)) == 1
        nearest = any(p.nearest for p in step.proposals)
        tolerance = 0.05 if nearest else found.schedule.tolerance(step.number)
        assert abs(macs(after) - step.budget) <= tolerance * step.budget
    assert len(found.decisions) == len(found.steps) + 1
    assert (found.message != "") == any(p.nearest for p in found.steps[-1].proposals)


def test_caps_let_a_coordinate_double_at_most():
    proposal = propose(base("efficientnet_b0"), 445_648_184, 0.05, Moves())
    assert all(raised(c.spec, "depth_1") <= 3 for c in proposal.candidates)
    assert "depth_1" in {d.move for d in proposal.dropped}


def test_frozen_stages_and_kinds_stay():
    spec = base("efficientnet_b0")
    found = search(spec, B1, Synthetic(), Settings(moves=Moves(frozen=(1, 7, "resolution"))))
    assert (found.spec.depths[0], found.spec.depths[6], found.spec.resolution) == (1, 1, 224)
    assert (found.spec.widths[0], found.spec.widths[6]) == (16, 320)
    only = search(spec, B1, Synthetic(), Settings(moves=Moves(kinds=("width",))))
    assert only.spec.depths == spec.depths


def test_a_maximum_of_parameters_stands_beside_the_budget():
    spec, most = base("efficientnet_b0"), 6_000_000
    limited = Moves(limits=(Limit("params", most, params),))
    free, found = search(spec, B1, Synthetic()), search(spec, B1, Synthetic(), Settings(moves=limited))
    assert params(free.spec) > most >= params(found.spec)
    assert any("params" in d.reason for s in found.steps for p in s.proposals for d in p.dropped)


def test_pairs_raise_two_coordinates():
    spec = base("tiny")
    moves = Moves(width_step=4, pairs=True)
    proposal = propose(spec, round(1.4 * macs(spec)), 0.02, moves)
    pairs = [c for c in proposal.candidates if "+" in c.move]
    assert pairs
    for c in pairs:
        changed = [a != b for a, b in zip(spec.coordinates(), c.spec.coordinates(), strict=True)]
        assert sum(changed) == 2
        assert c.macs == macs(c.spec)


TWO_STAGES = base("tiny").replace(
    depths=(1, 1), widths=(8, 8), template=("ir_r1_k3_s1_e3_c8", "ir_r1_k3_s1_e3_c8"), resolution=32
)


def trap(spec):
    """Deepening stage 1 pays at once and a little; deepening stage 2 alone pays later and more."""
    return 1.0 + 0.1 * (spec.depths[0] > 1) + 5.0 * (spec.depths[0] == 1 and spec.depths[1] > 3)


def test_greedy_can_miss_the_optimum_that_a_beam_of_two_finds():
    block = macs(TWO_STAGES.replace(depths=(1, 2))) - macs(TWO_STAGES)
    budget = macs(TWO_STAGES) + 4 * block
    moves = Moves(kinds=("depth",), capped=False)
    settings = Settings(steps=2, delta=0.2, delta_final=0.05, moves=moves)
    evaluator = Synthetic(trap, "trap")
    greedy = search(TWO_STAGES, budget, evaluator, settings)
    beam = search(TWO_STAGES, budget, evaluator, dataclasses.replace(settings, beam=2))
    values = [range(1, 9), range(1, 9), [8], [8], [32]]
    best = exhaustive(all_within(TWO_STAGES, budget, 0.05, values), trap)
    assert trap(greedy.spec) < best.score
    assert trap(beam.spec) == best.score
    assert best.spec.depths[0] == 1


def test_regret_of_the_greedy_path_on_a_small_grid():
    spec = base("tiny")
    budget = 2 * macs(spec)
    settings = Settings(delta=0.08, delta_final=0.08, moves=Moves(width_step=4, capped=False))
    found = search(spec, budget, Synthetic(), settings)
    d, w = range(1, 5), [list(range(c, c + 17, 4)) for c in spec.widths]
    best = exhaustive(all_within(spec, budget, 0.08, [d, d, d, *w, [24, 32, 40]]), log_stage_macs)
    assert best.score - log_stage_macs(found.spec) == pytest.approx(0.2255, abs=1e-4)
    assert best.networks > 50


class Noisy:
    """Scores that depend on the seed, with failures as asked for."""

    metric, inherits, n_val = "accuracy", False, 400

    def __init__(self, failing=(), once=()):
        self.failing, self.once, self.calls = set(failing), set(once), []

    def evaluate(self, task: Task) -> Result:
        self.calls.append(task)
        move = self.moved(task)
        if move in self.failing or (move in self.once and not self.once.discard(move)):
            raise MemoryError("tried to allocate 9 GiB")
        score = 0.5 + 0.01 * (log_stage_macs(task.spec) % 1) + (task.seed % 1000) / 1e5
        return Result({"accuracy": score, "loss": 2 - score}, {"samples": task.samples or 0})

    def moved(self, task):
        return next((m for m, v in zip(move_names(task.spec), task.spec.coordinates(), strict=True)
                     if v != raised(base("efficientnet_b0"), m)), "")  # fmt: skip

    def fingerprint(self):
        return {"name": "noisy"}


ONE_STEP = Settings(steps=1, delta=0.05, delta_final=0.05, repeats=2)
NEXT = 445_648_184


def test_a_failed_candidate_is_retried_once_and_then_left_out():
    evaluator = Noisy(failing=["width_3"], once=["depth_4"])
    found = search(base("efficientnet_b0"), NEXT, evaluator, ONE_STEP)
    step = found.steps[0]
    assert [move for move, _ in step.failed] == ["width_3"]
    assert "out of memory" in step.failed[0][1]
    tries = [t for t in evaluator.calls if evaluator.moved(t) == "width_3"]
    assert [(t.repeat, t.seed) for t in tries] == [(0, tries[0].seed)] * 2 + [(1, tries[2].seed)] * 2
    assert "depth_4" in {s.candidate.move for s in step.ranking.order}


def test_all_candidates_failing_is_an_error():
    with pytest.raises(UserError, match=r"all candidates of step 1 failed: .*out of memory"):
        search(base("efficientnet_b0"), NEXT, Noisy(failing=move_names(base("efficientnet_b0"))), ONE_STEP)


@pytest.mark.parametrize("value", [{}, {"accuracy": math.nan}, {"accuracy": True}])
def test_an_evaluator_without_a_finite_figure_is_refused(value):
    class Bad(Noisy):
        def evaluate(self, task):
            return Result(value)

    with pytest.raises(UserError, match=r"evaluator Bad returned accuracy=.*finite"):
        search(base("efficientnet_b0"), NEXT, Bad(), ONE_STEP)


def test_seeds_depend_on_network_step_and_repeat_alone():
    a, b = base("resnet18"), base("resnet34")
    task = Task.make(0, a, 1, 0)
    assert task.seed == Task.make(0, a, 1, 0, samples=5).seed
    assert len({task.seed, Task.make(0, b, 1, 0).seed, Task.make(0, a, 2, 0).seed, Task.make(0, a, 1, 1).seed,
                Task.make(1, a, 1, 0).seed}) == 5  # fmt: skip
    assert task.shared_seed == Task.make(0, b, 1, 0).shared_seed
    assert task.shared_seed != Task.make(0, b, 1, 1).shared_seed


def candidates(*scores, params=None, losses=None):
    first = propose(base("efficientnet_b0"), NEXT, 0.05, FREE).candidates
    return [
        Scored(dataclasses.replace(c, params=params[i] if params else 5), s, losses[i] if losses else ())
        for i, (c, s) in enumerate(zip(first, scores, strict=False))
    ]


def test_ties_go_by_loss_then_parameters_then_order_of_moves():
    clear = rank(candidates((0.5,), (0.9,), (0.6,)), n_val=10_000)
    assert [s.candidate.move for s in clear.order] == ["depth_2", "depth_3", "depth_1"]
    assert len(clear.tie_set) == 1
    noisy = rank(candidates((0.59,), (0.60,), (0.2,), losses=[(1.0,), (1.2,), (0.1,)]), n_val=100)
    assert noisy.leader.candidate.move == "depth_2"
    assert [s.candidate.move for s in noisy.order] == ["depth_1", "depth_2", "depth_3"]
    assert noisy.standard_error == pytest.approx(math.sqrt(0.6 * 0.4 / 100))
    assert [s.candidate.move for s in rank(candidates((1.0,), (1.0,), params=[9, 3])).order] == ["depth_2", "depth_1"]
    assert [s.candidate.move for s in rank(candidates((1.0,), (1.0,))).order] == ["depth_1", "depth_2"]
    spread = rank(candidates((0.5, 0.7), (0.58, 0.58)), tie_margin=1.0)
    assert spread.standard_error == pytest.approx(0.1)
    assert len(spread.tie_set) == 2


def test_racing_spends_less_and_compares_within_a_rung():
    racing = Racing((100, 300, 900))
    assert [racing.survivors(15), racing.survivors(5)] == [5, 2]
    assert racing.total(15) == 3_700
    evaluator = Noisy()
    settings = dataclasses.replace(ONE_STEP, racing=racing, repeats=1)
    found = search(base("efficientnet_b0"), NEXT, evaluator, settings)
    number = len(found.steps[0].proposals[0].candidates)
    counts = [sum(t.samples == s for t in evaluator.calls) for s in racing.samples]
    assert counts == [number, racing.survivors(number), racing.survivors(racing.survivors(number))]
    assert len(found.steps[0].ranking.order) == counts[-1]


def test_a_budget_close_to_the_start_needs_no_step():
    spec = base("efficientnet_b0")
    found = search(spec, round(1.005 * macs(spec)), Synthetic())
    assert (found.spec, found.steps) == (spec, ())
    assert "within 0.5 % of the budget" in found.message


def test_the_closest_network_is_taken_and_flagged_where_none_fits_the_last_budget():
    spec = base("resnet50")
    found = search(spec, round(1.11 * macs(spec)), Synthetic(), Settings(
        steps=1, delta=0.1, delta_final=0.0001, moves=Moves(kinds=("depth",), capped=False)))  # fmt: skip
    assert "closest was taken" in found.message
    assert len(found.steps[0].ranking.order) == 1


def test_table_evaluator_reads_a_record():
    spec = base("efficientnet_b0")
    networks = [c.spec for c in propose(spec, NEXT, 0.05, Moves()).candidates]
    rows = {n.to_json(): [{"accuracy": i / 100}, {"accuracy": i / 100 + 0.001}] for i, n in enumerate(networks)}
    found = search(spec, NEXT, TableLookup(rows), ONE_STEP)
    assert found.spec == networks[-1]
    with pytest.raises(UserError, match="repeats=3"):
        search(spec, NEXT, TableLookup(rows), dataclasses.replace(ONE_STEP, repeats=3))
    rows.pop(networks[0].to_json())
    with pytest.raises(UserError, match="has no row for"):
        search(spec, NEXT, TableLookup(rows), ONE_STEP)


def test_zero_cost_figures():
    spec = base("tiny")
    task = Task.make(0, spec, 1, 0)
    figure = ZeroCost().evaluate(task).metrics["synflow"]
    assert math.isfinite(figure)
    assert ZeroCost().evaluate(task).metrics["synflow"] == figure
    assert ZeroCost("macs").evaluate(task).metrics["macs"] == macs(spec)
    with pytest.raises(UserError, match=r"evaluator\.metric='naswot'"):
        ZeroCost("naswot")


def test_decisions_are_canonical_json_without_times():
    found = search(base("efficientnet_b0"), B1, Synthetic())
    for line in found.decisions:
        value = json.loads(line)
        assert json.dumps(value, sort_keys=True, separators=(",", ":")) == line
        assert "seconds" not in line


B0 = base("efficientnet_b0")
REFUSED = {
    "below": (B0, 300_000_000, {}, "85,814,752 MACs below the start"),
    "equal": (B0, 385_814_752, {}, "0 MACs below"),
    "delta": (B0, B1, {"delta": 0.5}, "delta=0.5 must be above 0 and below 0.5"),
    "delta bool": (B0, B1, {"delta": True}, "delta=True"),
    "delta_final": (B0, B1, {"delta_final": 0.0}, "delta_final=0.0"),
    "steps": (B0, B1, {"steps": 0}, "steps=0"),
    "budget": (B0, 1.5e9, {}, "budget=1500000000.0"),
    "caps": (B0, 10**12, {"steps": 2}, "above everything that 2 steps"),
    "largest": (B0, 10**12, {"moves": Moves(largest={"depth": 4, "width": 320, "resolution": 224}, frozen=(7,))},
                "the largest network there has"),
    "infeasible": (B0, B1, {"steps": 1, "moves": Moves(kinds=("resolution",))}, "Nearest: resolution: 722,449,552"),
    "width step": (B0.replace(widths=(16, 24, 40, 80, 111, 192, 320)), B1, {}, "spec.widths[4]=111 is no multiple"),
    "stride": (B0.replace(resolution=24), B1, {}, "spec.resolution=24 must be at least the total stride 32"),
    "published": (base("ghostnet_100"), B1, {}, "ghostnet_large is what scales"),
    "frozen": (B0, B1, {"moves": Moves(frozen=(9,))}, "moves.frozen=9"),
    "frozen name": (B0, B1, {"moves": Moves(frozen=("dpeth_1",))}, "did you mean 'depth_1'"),
    "nothing left": (B0, B1, {"moves": Moves(kinds=("resolution",), frozen=("resolution",))}, "leave no move"),
    "params": (B0, B1, {"moves": Moves(limits=(Limit("params", 5e6, params),))}, "above the maximum"),
    "group": (base("regnety_004"), 10**9, {"moves": Moves(width_step=4)}, "multiple of 8"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_succeed_is_refused_before_anything_is_evaluated(case):
    spec, budget, changes, said = REFUSED[case]
    with pytest.raises(UserError) as error:
        check_search(spec, budget, Settings(**changes))
    assert said in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Moves(depth_step=0), "moves.depth_step=0"),
        (lambda: Moves(width_step=True), "moves.width_step=True"),
        (lambda: Moves(kinds=("deep",)), "moves.kinds='deep'"),
        (lambda: Moves(largest={"depth": 0}), "moves.largest.depth=0"),
        (lambda: Settings(beam=0), "beam=0"),
        (lambda: Settings(repeats=1.0), "repeats=1.0"),
        (lambda: Settings(tie_margin=-1.0), "tie_margin=-1.0"),
        (lambda: Settings(samples=0), "samples=0"),
        (lambda: Settings(samples=5, racing=Racing((5,))), "exclude each other"),
        (lambda: Racing((300, 100)), "racing.samples"),
        (lambda: Racing((100,), keep="x"), "racing.keep='x'"),
        (lambda: Racing((100,), keep=1.0), "racing.keep"),
        (lambda: rank([]), "no candidate"),
        (lambda: rank(candidates((1.0,)), tie_margin=-1), "tie_margin=-1"),
        (lambda: all_within(B0, B1, 0.1, [range(100)] * 15), "networks, between 1 and"),
        (lambda: all_within(B0, B1, 0.1, [[1]]), "values has 1"),
        (lambda: exhaustive([], trap), "no network"),
    ],
)
def test_bad_settings_are_refused(make, said):
    with pytest.raises(UserError) as error:
        make()
    assert said in str(error.value)
