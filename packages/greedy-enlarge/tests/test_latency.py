"""A maximum of latency beside the MACs budget: parts of networks, the table, and what it refuses."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_one_line_mistake, in_process
from greedy_enlarge.cli import main
from greedy_enlarge.commands import latency as command
from greedy_enlarge.families import base
from greedy_enlarge.networks.build import build
from greedy_enlarge.networks.parts import block_inputs, stage_blocks
from greedy_enlarge.search.latency import grid_points, read_latency
from greedy_enlarge.search.moves import Moves

SPEC = base("tiny")
LARGEST = {"width": 32, "resolution": 40}
MOVES = Moves(width_step=4, largest=LARGEST, capped=False)


@pytest.mark.parametrize("name", ["tiny", "ghostnet_large", "resnet18", "resnet50", "regnety_004"])
def test_blocks_are_found_with_what_they_are_given(name):
    spec = base(name, resolution=64, classes=10)
    model = build(spec).eval()
    blocks = stage_blocks(model)
    assert [len(b) for b in blocks] == list(spec.depths)
    picture = torch.randn(1, spec.in_chans, 64, 64)
    inputs = block_inputs(model, picture)
    with torch.no_grad():
        for stage, given, width in zip(blocks, inputs, spec.widths, strict=True):
            for block, following in zip(stage, [*given[1:], None], strict=True):
                out = block(given[stage.index(block)].clone())
                assert out.shape[1] == width
                if following is not None:
                    torch.testing.assert_close(out, following)
    assert not any(m._forward_pre_hooks for m in model.modules())


def seconds_of(spec):
    """Parts whose time is linear in what the table interpolates in."""
    found, before, ends = {}, 8, 5e-4 + 1e-5 * spec.widths[-1] + 1e-6 * spec.resolution**2
    total = ends
    for i, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
        further = (i + 1) * 1e-7 * width * spec.resolution**2
        first = further + 1e-7 * before * width
        for j in range(min(depth, 2)):
            found[f"{i}.{j}"] = further if j else first
        total += first + (depth - 1) * further
        before = width
    return {**found, "whole": total}


@pytest.fixture
def table(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(command, "measure_parts", lambda net, how, batch: seconds_of(net))
    run = in_process(main, tmp_path, monkeypatch, capfd)
    words = [f"moves.largest.{k}={v}" for k, v in LARGEST.items()]
    result = run("latency", "spec=tiny", "moves.width_step=4", *words, "out=latency.json", "device=cpu", "format=json")
    assert result.code == 0, result.stderr
    return run, tmp_path / "latency.json", json.loads(result.stdout)


def test_points_reach_from_the_start_to_the_caps():
    widths, sides = grid_points(SPEC, MOVES, 3)
    assert (widths, sides) == ([[8, 20, 32], [12, 20, 32], [16, 24, 32]], [24, 32, 40])
    assert grid_points(SPEC, Moves(kinds=("depth",)), 3) == ([[8], [12], [16]], [24])
    with pytest.raises(UserError, match=r"moves\.largest\.width is not set"):
        grid_points(SPEC, Moves(), 3)


def test_what_is_linear_is_predicted_exactly(table):
    _, file, printed = table
    found = read_latency(file)
    for depths, widths, side in itertools.product(
        [(1, 1, 1), (4, 2, 3)], [(8, 12, 16), (12, 28, 20), (32, 32, 32)], [24, 32, 36, 40]
    ):
        net = SPEC.replace(depths=depths, widths=widths, resolution=side)
        assert found.seconds(net) == pytest.approx(seconds_of(net)["whole"], rel=1e-9)
    assert all(abs(row[-1]) < 0.1 for row in printed["tables"][0]["rows"])


def test_a_table_says_nothing_beyond_what_was_measured(table):
    found = read_latency(table[1])
    for changes, said in (
        ({"widths": (8, 12, 36)}, r"widths\[2\] from 16 to 32, this search needs 36"),
        ({"widths": (4, 12, 16)}, r"widths\[0\] from 8 to 32"),
        ({"resolution": 48}, "resolution from 24 to 40"),
        ({"classes": 3}, r"measured for spec\.classes=17, this network has 3"),
    ):
        with pytest.raises(UserError, match=said):
            found.seconds(SPEC.replace(**changes))


SEARCH = ["search", "spec=tiny", "budget=280000", "steps=3", "delta=0.1", "delta_final=0.1", "moves.width_step=4"]
CAPS = ["moves.largest.width=32", "moves.largest.resolution=40"]


def test_a_search_keeps_below_a_latency(table):
    run, file, _ = table
    found = read_latency(file)
    one = [*SEARCH, *CAPS, "budget=225000", "steps=1"]
    free = json.loads(run(*one, "format=json", "hydra.run.dir=free").stdout)["data"]
    most = 0.999 * found.seconds(SPEC.from_dict(free["spec"]))
    limit = [f"moves.latency_table={file}", f"moves.max_latency_ms={1e3 * most}"]
    kept = run(*one, *limit, "format=json", "hydra.run.dir=kept")
    assert kept.code == 0, kept.stderr
    assert found.seconds(SPEC.from_dict(json.loads(kept.stdout)["data"]["spec"])) <= most
    assert '"reason":"latency in ms' in (file.parent / "kept/search/decisions.jsonl").read_text()
    # The journal belongs to what the table holds, not to where it lies.
    moved = file.rename(file.with_name("moved.json"))
    settings = json.loads((file.parent / "kept/search.json").read_text())
    settings["moves"]["latency_table"] = str(moved)
    (file.parent / "kept/search.json").write_text(json.dumps(settings))
    assert run("resume", "run=kept").code == 0
    moved.write_text(moved.read_text().replace('"batch": 1', '"batch": 2'))
    assert_one_line_mistake("greedy-enlarge", run("resume", "run=kept"), ["moves.latency_table", "there"])


def test_mistakes_with_a_latency_table(table):
    run, file, _ = table
    limit = [f"moves.latency_table={file}", "moves.max_latency_ms=8"]
    (file.parent / "no.json").write_text("{}")
    cases = {
        "belong together": [*CAPS, "moves.max_latency_ms=2"],
        "milliseconds above 0": [*CAPS, limit[0], "moves.max_latency_ms=0"],
        "is not a file": [*CAPS, "moves.latency_table=nowhere.json", limit[1]],
        "is no table of greedy-enlarge latency": [*CAPS, "moves.latency_table=no.json", limit[1]],
        "without a cap": limit,
        "this search needs 24 to 48": [CAPS[0], "moves.largest.resolution=48", *limit],
        "the start has latency in ms": [*CAPS, limit[0], "moves.max_latency_ms=0.1"],
    }
    for said, words in cases.items():
        assert_one_line_mistake("greedy-enlarge", run(*SEARCH, *words), [said])
    assert_one_line_mistake("greedy-enlarge", run("latency", "spec=tiny", *CAPS, "moves.width_step=4", "points=1"),
                            ["points=1"])  # fmt: skip


def test_parts_of_a_network_are_timed():
    how = {"device": torch.device("cpu"), "threads": 1, "min_rounds": 2, "min_seconds": 0.01}
    found = command.measure_parts(SPEC.replace(depths=(2, 1, 3)), how, 1)
    assert set(found) == {"whole", "0.0", "0.1", "1.0", "2.0", "2.1"}
    assert found["whole"] > max(v for k, v in found.items() if k != "whole") > 0
