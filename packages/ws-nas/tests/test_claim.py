"""The laptop-scale claim in a form of seconds, and every family on its tiny setting."""

import pytest

from effkit.papers import ClaimRun
from effkit.plots import read_description
from ws_nas.families.registry import FAMILIES
from ws_nas.paper import claim
from ws_nas.paper.every_family import every_family, family_table


@pytest.mark.slow
def test_the_claim_measures_repairs_and_shows(tmp_path, monkeypatch):
    form = claim.Form({"spos": 1, "fairnas": 1}, 27, 2, "ridge", True, False)
    monkeypatch.setattr(claim, "SHORT", form)
    monkeypatch.setattr(claim, "every_family", lambda: {})
    found = claim.run_claim(ClaimRun(tmp_path))
    by_metric = {(row.name, row.metric): row for row in found.rows}
    assert by_metric["parameters and MACs of known networks", "figures that differ"].verdict == "match"
    for family in ("spos", "fairnas"):
        name = f"{family}, inherited -loss"
        low, tau, high = (
            by_metric[name, metric].ours
            for metric in ("its 95 % interval, from", "tau-b with stand-alone accuracy", "its 95 % interval, to")
        )
        assert low < tau < high
    five = found.tables[0]
    assert [row[0] for row in five.rows][-1] == "another seed (noise ceiling)"
    assert isinstance(five.rows[1][6], float)  # M4 of the family that was trained at two widths
    assert all(read_description(picture) for picture in found.figures)


@pytest.mark.slow
def test_every_family_reports_every_meter_or_why_not():
    found = every_family()
    assert set(found) == set(FAMILIES)
    assert all(entry["valid"] for entry in found.values())
    for row in family_table(found).rows:
        assert all(isinstance(cell, float) or (isinstance(cell, str) and cell) for cell in row[3:])
    assert sum(isinstance(entry["m3"], float) for entry in found.values()) >= 7
