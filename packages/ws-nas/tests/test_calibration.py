"""Rankings repaired by a few stand-alone results."""

import numpy as np
import pytest

from effkit.errors import UserError
from ws_nas.meters.calibration import calibrate_ranking
from ws_nas.ops.ranks import kendall_tau
from ws_nas.spaces.registry import get_space


@pytest.fixture(scope="module")
def case():
    """Truth is a sum over genes; the score sees it through noise."""
    space = get_space("digits_chain")
    genotypes = list(space)
    generator = np.random.default_rng(0)
    effects = generator.normal(0, 1, (4, 3))
    s = np.array([sum(effects[i, g] for i, g in enumerate(genes)) for genes in genotypes])
    return space, genotypes, s + generator.normal(0, 2.5, len(s)), s


def _known(case, n, seed=0):
    _, genotypes, _, s = case
    chosen = np.random.default_rng(seed).choice(len(s), n, replace=False)
    return {genotypes[i]: float(s[i]) for i in chosen}


@pytest.mark.parametrize("model", ["ridge", "forest"])
def test_calibration_improves_the_rest(case, model):
    space, genotypes, q, s = case
    found = calibrate_ranking(q, space, genotypes, _known(case, 30), model=model, folds=3)
    assert found.known.sum() == 30
    assert found.held_out_tau(s) > kendall_tau(q[~found.known], s[~found.known]) + 0.15
    assert found.cross_validated_tau > found.raw_tau
    assert found.interval[0] < found.cross_validated_tau < found.interval[1]
    assert found.order()[0] == int(np.argmax(found.predicted))


def test_what_is_known_is_predicted_from_the_others(case):
    """Truth without any relation to the features cannot be predicted, also not where it was given."""
    space, genotypes, q, _ = case
    noise = np.random.default_rng(5).normal(size=len(q))
    found = calibrate_ranking(q, space, genotypes, dict(zip(genotypes, noise, strict=True)), model="forest", folds=2)
    assert found.known.all()
    assert abs(kendall_tau(found.predicted, noise)) < 0.2
    assert found.cross_validated_tau == pytest.approx(kendall_tau(found.predicted, noise))


def test_same_seed_same_ranking(case):
    space, genotypes, q, _ = case
    one, two = (calibrate_ranking(q, space, genotypes, _known(case, 20), seed=3, folds=2) for _ in range(2))
    assert (one.predicted == two.predicted).all()


def test_refusals(case):
    space, genotypes, q, _ = case
    known = _known(case, 20)
    with pytest.raises(UserError, match="at least 10"):
        calibrate_ranking(q, space, genotypes, _known(case, 9))
    with pytest.raises(UserError, match="twice"):
        calibrate_ranking(q, space, [genotypes[1], *genotypes[1:]], known)
    with pytest.raises(UserError, match="has no score"):
        calibrate_ranking(q[1:], space, genotypes[1:], {**known, genotypes[0]: 1.0})
    with pytest.raises(UserError, match="equal results"):
        calibrate_ranking(q, space, genotypes, dict.fromkeys(known, 1.0))
    with pytest.raises(UserError, match="no finite number"):
        calibrate_ranking(q, space, genotypes, {**known, next(iter(known)): float("nan")})
    with pytest.raises(UserError, match="model='tree'"):
        calibrate_ranking(q, space, genotypes, known, model="tree")
    with pytest.raises(UserError, match="folds=21"):
        calibrate_ranking(q, space, genotypes, known, folds=21)
