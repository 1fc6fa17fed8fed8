"""Spaces, recorded tables, and search rules beside a table's true optimum."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics

import pytest

from effkit.cli import compose
from effkit.errors import UserError
from greedy_enlarge.commands.build import make_moves, plain, read_spec
from greedy_enlarge.commands.table import read_space
from greedy_enlarge.families import base, macs
from greedy_enlarge.search.evaluators import RandomChoice, TableLookup, log_stage_macs
from greedy_enlarge.search.greedy import Settings, search
from greedy_enlarge.search.moves import Moves
from greedy_enlarge.search.racing import Racing
from greedy_enlarge.search.recording import Recorded, parse, record, render
from greedy_enlarge.search.rules import compare_rules, mean_score, nearest_uniform, random_paths, space_of
from greedy_enlarge.search.running import Runner
from greedy_enlarge.search.savings import pick, savings_on_table, steps_of
from greedy_enlarge.search.space import grid_values, open_space
from greedy_enlarge.search.tables import read_recorded, read_table
from greedy_enlarge.search.tasks import Result, Task

MOVES = Moves(width_step=4, capped=False, largest={"depth": 3, "width": 16, "resolution": 24}, kinds=("depth", "width"))
SAMPLES = (100, 200, 600)


class Curves:
    """Accuracies that rise with the samples, noisier the fewer there are; the same for equal tasks."""

    metric, inherits, n_val = "accuracy", False, 1000

    def __init__(self):
        self.seen = []

    def evaluate(self, task: Task) -> Result:
        self.seen.append(task)
        noise = (task.seed * 31 % 1000 / 1000 - 0.5) * 10 / task.samples
        accuracy = 0.2 + 0.02 * log_stage_macs(task.spec) / 3 + 0.0001 * task.samples + noise
        return Result({"accuracy": accuracy, "loss": 1 - accuracy}, {}, state=f"{task.repeat}@{task.samples}")

    def fingerprint(self):
        return {"name": "curves"}


@pytest.fixture(scope="module")
def space():
    return open_space(base("tiny"), 260_000, MOVES, steps=2, delta=0.1, delta_final=0.1)


@pytest.fixture(scope="module")
def text(space):
    rows = record(space, Runner(Curves()), SAMPLES, 3, 0)
    about = {
        "command": "a test", "n_val": 1000,
        "space": {
            "spec": space.spec.to_dict(), "budgets": [space.schedule.budget(n) for n in range(3)], "delta": 0.1,
            "delta_final": 0.1, "moves": space.moves.fingerprint(space.spec),
        },
    }  # fmt: skip
    return render(about, rows)


@pytest.fixture(scope="module")
def table(text):
    return parse(text, "a file")


def test_a_space_holds_every_network_of_the_grid_near_a_budget(space):
    spec = space.spec
    everything = [spec.with_coordinates(row) for row in itertools.product(*grid_values(spec, MOVES))]
    assert len(everything) == 27 * 3 * 2 * 1
    for number in (1, 2):
        budget = space.schedule.budget(number)
        near = {net for net in everything if abs(macs(net) - budget) <= 0.1 * budget}
        assert set(space.levels[number]) == near - set(space.levels[number - 1])
    assert len(set(space.networks)) == len(space.networks)
    assert space.levels[0] == (spec,)


def test_the_space_that_ships_has_eighty_networks_and_holds_every_candidate():
    options = plain(compose("greedy-enlarge", "greedy_enlarge.configs", "table", []))
    space = read_space(options)
    assert [len(level) for level in space.levels] == [1, 7, 21, 51]
    settings = Settings(steps=3, delta=0.08, delta_final=0.08, moves=dataclasses.replace(space.moves, pairs=True))
    there = set(space.networks)
    for seed in range(5):
        found = search(space.spec, 125_400, RandomChoice(), dataclasses.replace(settings, seed=seed))
        assert {c.spec for s in found.steps for p in s.proposals for c in p.candidates} <= there


@pytest.mark.parametrize(
    ("moves", "budget", "said"),
    [
        (dataclasses.replace(MOVES, largest={"depth": 3}), 260_000, "moves.largest.width is not set"),
        (dataclasses.replace(MOVES, largest={"depth": 1, "width": 16}), 10**7, "no network within 10 % of level 1"),
        (MOVES, 1_000, "MACs below the start's"),
        (MOVES, 180_000, "there is no level above the start"),
    ],
)
def test_a_space_that_cannot_be_is_refused(moves, budget, said):
    with pytest.raises(UserError, match=said):
        open_space(base("tiny"), budget, moves, steps=2, delta=0.1, delta_final=0.1)


def test_each_repeat_goes_on_from_its_own_state(space):
    evaluator = Curves()
    rows = record(space, Runner(evaluator), (100, 200), 2, 0)
    assert len(rows) == 2 * 2 * len(space.networks)
    later = [t for t in evaluator.seen if t.samples == 200]
    assert {(t.repeat, t.continues) for t in later} == {(0, "0@100"), (1, "1@100")}
    assert all(not t.continues for t in evaluator.seen if t.samples == 100)


def test_a_failed_training_makes_no_table(space):
    class Failing(Curves):
        def evaluate(self, task):
            if task.spec == space.levels[1][0]:
                raise MemoryError("too large")
            return super().evaluate(task)

    with pytest.raises(UserError, match=r"repeat 0, failed twice: out of memory"):
        record(space, Runner(Failing()), (100,), 1, 0)


def test_a_table_is_read_back(space, table, tmp_path, text):
    assert (table.samples, table.repeats) == (SAMPLES, 3)
    assert set(table.rows) == {net.to_json() for net in space.networks}
    again = space_of(table)
    assert again.levels == space.levels
    expected = Curves().evaluate(Task.make(0, space.levels[1][0], 1, 2, samples=600)).metrics["accuracy"]
    assert table.rows[space.levels[1][0].to_json()][2]["accuracy"] == pytest.approx(expected, abs=1e-6)
    (tmp_path / "t.csv").write_text(text)
    assert read_table(tmp_path / "t.csv") == table == read_recorded(tmp_path / "t.csv")


def test_a_table_that_was_changed_or_is_none_is_refused(text, tmp_path):
    changed = text.replace(",0,100,", ",0,101,", 1)
    broken = {
        "is damaged": changed, "does not begin with": "a,b\n1,2\n", "damaged": text[:-3],
        "line 2": text.replace('# command: "a test"', "# command: a test"),
    }  # fmt: skip
    for said, content in broken.items():
        with pytest.raises(UserError, match=said):
            parse(content, "a file")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path / "b.csv")
    with pytest.raises(UserError, match="is not a file, and no table of this package"):
        read_recorded("texture")


def test_a_table_without_all_of_its_space_is_refused(table):
    rows = {samples: dict(curve) for samples, curve in table.curves.items()}
    gone = rows[600].popitem()[0]
    with pytest.raises(UserError, match="lacks 1 of"):
        space_of(Recorded(table.about, rows))
    assert gone not in rows[600]
    limited = json.loads(json.dumps(dict(table.about)))
    limited["space"]["moves"]["limits"] = {"params": 5}
    with pytest.raises(UserError, match="has maxima beside its budget"):
        space_of(Recorded(limited, table.curves))


def test_a_look_up_answers_for_the_samples_that_are_asked_for(table, space):
    lookup = TableLookup(table.rows, curves=table.curves)
    task = Task.make(0, space.spec, 0, 1)
    assert lookup.evaluate(task).metrics == table.curves[600][space.spec.to_json()][1]
    early = dataclasses.replace(task, samples=100)
    assert lookup.evaluate(early).metrics == table.curves[100][space.spec.to_json()][1]
    with pytest.raises(UserError, match="samples=300: the table has figures after 100, 200, 600"):
        lookup.evaluate(dataclasses.replace(task, samples=300))
    with pytest.raises(UserError, match="does not say"):
        TableLookup(table.rows).evaluate(early)


def greedy_by_hand(table, space):
    """The greedy path without the search: at each level the best mean among one-move neighbours, ties by the rule."""
    net = space.spec
    for level in (1, 2):
        one = [
            c for c in space.levels[level]
            if sum(a != b for a, b in zip(net.coordinates(), c.coordinates(), strict=True)) == 1 and c.includes(net)
        ]  # fmt: skip
        by_move = {}
        for c in one:
            i = next(i for i, (a, b) in enumerate(zip(net.coordinates(), c.coordinates(), strict=True)) if a != b)
            gap = abs(macs(c) - space.schedule.budget(level))
            if i not in by_move or gap < by_move[i][0]:
                by_move[i] = gap, c
        score = mean_score(table)
        net = max((c for _, c in by_move.values()), key=score)
    return net


def test_rules_are_held_against_the_true_optimum(table, space):
    found = {o.rule: o for o in compare_rules(table)}
    score = mean_score(table)
    best = max(score(net) for net in space.levels[-1])
    assert (found["optimum"].score, found["optimum"].regret) == (best, 0.0)
    for o in found.values():
        assert o.regret == pytest.approx(best - o.score)
        assert o.regret >= 0
        if o.spec is not None:
            assert o.spec in space.levels[-1]
            assert o.score == score(o.spec)
    assert found["greedy, no tie rule"].spec == greedy_by_hand(table, space)
    assert found["beam of 4"].score >= found["greedy"].score - 0.01
    assert found["greedy"].samples > found["racing"].samples > found["racing, short"].samples > 0
    assert found["nearest to compound scaling"].samples == 0


def test_the_random_path_is_an_exact_expectation(table, space):
    chances = random_paths(space)
    assert sum(chances.values()) == pytest.approx(1)
    score = mean_score(table)
    settings = Settings(steps=2, delta=0.1, delta_final=0.1, moves=MOVES)
    draws = [search(space.spec, 260_000, RandomChoice(), dataclasses.replace(settings, seed=s)).spec for s in range(80)]
    assert set(draws) <= set(chances)
    assert statistics.fmean(map(score, draws)) == pytest.approx(
        sum(p * score(net) for net, p in chances.items()), abs=3 * statistics.stdev(map(score, draws)) / 80**0.5
    )


def test_the_nearest_uniform_network_is_of_the_last_level(space):
    assert nearest_uniform(space, "depth") in space.levels[-1]
    deep, wide = nearest_uniform(space, "depth"), nearest_uniform(space, "width")
    assert sum(deep.depths) > sum(wide.depths)


def test_picks_of_cheaper_ways(table):
    steps = steps_of(table)
    assert all(len(candidates) > 1 for _, candidates in steps)
    found = {s.way: s for s in savings_on_table(table)}
    whole, short = found["racing 100 200 600"], found["racing 100 200"]
    assert whole.steps == short.steps == len(steps)
    assert short.share < whole.share < 1
    assert found["everything, 200 samples"].share == pytest.approx(1 / 3)
    number = {len(c) for _, c in steps}
    racing = Racing((100, 200))
    expected = sum(racing.total(len(c)) for _, c in steps) / sum(600 * len(c) for _, c in steps)
    assert short.share == pytest.approx(expected), number
    assert all(s.same <= s.tied <= s.steps and s.loss >= -0.02 for s in found.values())
    order, tie_set = pick(table, steps[0][1], 600, range(3))
    assert order[0] in tie_set
    single = found["everything, one training each"]
    assert single.steps == 3 * len(steps)


def test_the_random_rule_is_a_search_by_seed():
    spec = base("tiny")
    settings = Settings(steps=2, delta=0.1, delta_final=0.1, moves=Moves(width_step=4))
    ends = {search(spec, 260_000, RandomChoice(), dataclasses.replace(settings, seed=s)).spec for s in range(8)}
    assert len(ends) > 3
    assert search(spec, 260_000, RandomChoice(), settings).spec == search(spec, 260_000, RandomChoice(), settings).spec


def test_moves_of_a_config_fit_a_space():
    options = plain(compose("greedy-enlarge", "greedy_enlarge.configs", "table", []))
    spec = read_spec(options["spec"])
    moves = make_moves(options["moves"], spec)
    assert [len(v) for v in grid_values(spec, moves)] == [2, 2, 2, 4, 3, 3, 3]
    assert moves.limits == ()


def test_the_table_that_ships_holds_its_space_and_gives_the_figures_of_the_readme():
    shipped = read_recorded("textures")
    assert (shipped.samples, shipped.repeats, len(shipped.rows)) == ((2550, 5100, 15300), 3, 80)
    assert {"command", "machine", "commit", "date", "seconds", "sha256"} <= set(shipped.about)
    rules = ["greedy", "pair moves", "racing", "nearest to compound scaling", "random monotone path"]
    found = {o.rule: round(100 * o.regret, 2) for o in compare_rules(shipped, rules)}
    assert found == {
        "optimum": 0.0, "greedy": 1.6, "pair moves": 0.0, "racing": 0.59, "nearest to compound scaling": 2.61,
        "random monotone path": 4.02,
    }  # fmt: skip
    saved = {s.way: (s.steps, s.same, round(s.share, 3)) for s in savings_on_table(shipped)}
    assert saved["racing 2550 5100 15300"] == (29, 24, 0.627)
    assert saved["racing 2550 5100"] == (29, 17, 0.259)
