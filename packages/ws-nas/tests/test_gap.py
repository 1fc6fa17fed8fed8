"""One call for five meters, of our supernets and of foreign ones; and the pictures of the report."""

import numpy as np
import pytest
import torch

from effkit.errors import UserError
from effkit.plots import read_description
from ws_nas.evaluation.scoring import Scores, score
from ws_nas.meters.gap import gap
from ws_nas.plots.ranking import draw_taus, draw_taus_by_epoch, draw_top
from ws_nas.plots.scatter import draw_scatter
from ws_nas.plots.search import draw_front, draw_progress
from ws_nas.spaces.registry import get_space

SPACE = get_space("digits_chain")


@pytest.fixture(scope="module")
def case():
    """An untrained supernet, random pictures, and a truth of three seeds."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    supernet = SPACE.supernet(track_running_stats=False)
    x, y = torch.randn(40, 1, 8, 8, generator=generator), torch.randint(10, (40,), generator=generator)
    genotypes = SPACE.sample_many(15, 0)
    params = np.array([SPACE.cost(g).params for g in genotypes])
    truth = 80 + params / params.max() + np.random.default_rng(0).normal(0, 0.3, (3, 15))
    return supernet, [(x, y)], [x], genotypes, truth


def test_of_a_supernet(case):
    supernet, batches, calibration, genotypes, truth = case
    report = gap(supernet, SPACE, genotypes, truth, batches=batches, calibration=calibration, names=("", "t, 3 seeds"))
    q = 100 * score(supernet, genotypes, batches, calibration).accuracy.numpy()
    found = report.to_dict()
    assert found["n"] == 15
    assert found["meters"]["value"]["mean"] == pytest.approx((truth.mean(0) - q).mean())
    assert report.score == "inherited accuracy, %, statistics re-estimated (exact)"
    assert set(found["baselines"]) == {"params", "macs"}
    assert found["meters"]["hypergradient"] == {"not_applicable": "no gradient of architecture parameters is estimated"}
    with pytest.raises(UserError, match="truth holds fractions"):
        gap(supernet, SPACE, genotypes, truth / 100, batches=batches, calibration=calibration)
    by_loss = gap(supernet, SPACE, genotypes, truth, batches=batches, calibration=calibration, by="loss")
    assert by_loss.ranking.tau != report.ranking.tau
    assert by_loss.value == report.value  # accuracies in both


def test_a_foreign_supernet_gives_the_same(case):
    supernet, batches, _, genotypes, truth = case
    active = []
    supernet.eval()
    two = (lambda g: active.append(g), lambda x: supernet(x, active[-1]))
    report = gap(two, SPACE, genotypes, truth, batches=batches)
    own = gap(supernet, SPACE, genotypes, truth, batches=batches, method="loop")
    assert report.ranking == own.ranking
    assert active == genotypes
    assert any("foreign" in note for note in report.notes)
    with pytest.raises(UserError, match=r"logits of genotype=\(.*no finite"):
        gap((active.append, lambda x: torch.full((len(x), 10), torch.nan)), SPACE, genotypes, truth, batches=batches)


def test_refusals(case):
    supernet, batches, _, genotypes, truth = case
    with pytest.raises(UserError, match="truth has one seed"):
        gap(supernet, SPACE, genotypes, truth[0], batches=batches)
    assert gap(supernet, SPACE, genotypes, truth[0], batches=batches, ceiling=0.8).ranking.ceiling == 0.8
    with pytest.raises(UserError, match="too few"):
        gap(supernet, SPACE, genotypes[:9], truth[:, :9], batches=batches)
    with pytest.raises(UserError, match="twice"):
        gap(supernet, SPACE, [genotypes[0], *genotypes[:-1]], truth, batches=batches)
    macro = get_space("nas_bench_macro")
    with pytest.raises(UserError, match=r"of space digits_chain.*not of nas_bench_macro"):
        gap(supernet, macro, macro.sample_many(15, 0), truth, batches=batches)
    with pytest.raises(UserError, match="batches is empty"):
        gap(supernet, SPACE, genotypes, truth)
    with pytest.raises(UserError, match="supernet is not set"):
        gap(None, SPACE, genotypes, truth)
    with pytest.raises(UserError, match="fractions"):
        gap(supernet, SPACE, genotypes, truth / 100, batches=batches)


def test_pictures_say_what_is_seen(case, tmp_path):
    _, _, _, genotypes, truth = case
    q = truth.mean(0)
    scores = Scores(torch.tensor(q) / 100, torch.tensor(-q))
    report = gap(None, SPACE, genotypes, truth, scores=scores, names=("perfect score", "t"))
    assert report.tau == 1
    files = [
        draw_scatter(report, q, truth.mean(0), tmp_path / "scatter.png"),
        draw_taus({"perfect": report.ranking}, tmp_path / "taus.png", "Taus"),
        draw_top({"perfect": report.ranking}, tmp_path / "top.png", "Top"),
        draw_taus_by_epoch({"SPOS": {1: 0.1, 2: 0.25}}, tmp_path / "epochs.png", "Epochs"),
        draw_progress({"random": [1.0, 3.0, 2.0]}, tmp_path / "progress.png", "Progress", best=4.0),
        draw_front([(1, 2.0), (2, 3.0), (2, 1.0)], [(1, 2.0), (2, 3.0)], "MACs", tmp_path / "front.png", "Front"),
    ]
    said = [read_description(file) for file in files]
    assert "tau 1.000" in said[0]
    assert "noise ceiling" in said[1]
    assert "0.250" in said[3]
    assert "3 after 3" in said[4]
    assert "the front has 2" in said[5]
    page = report.write(tmp_path, files[:1])[2].read_text()
    assert page.count("data:image/png;base64,") == 1
