"""Search spaces: counts of every published network, what is written and read, and operators that stay inside."""

import csv
import json
from collections import Counter

import pytest
import torch

from effkit.cost import measure_image
from effkit.errors import UserError
from effkit.plots.sentence import read_description
from effkit.testing.real import shared_data
from ws_nas.plots.cells import draw_graphs
from ws_nas.spaces.cell_201 import is_connected
from ws_nas.spaces.registry import SPACES, get_space

SMALL = ["digits_chain", "nb201_tiny", "darts_tiny", "ofa_tiny"]
IMAGENET = {"channels": 48, "layers": 14, "stem": "imagenet", "resolution": 224, "classes": 1000}


def _built(space, genotype):
    with torch.device("meta"):
        network = space.build(genotype)
    return sum(p.numel() for p in network.parameters()), measure_image(
        network, space.layout.resolution, space.layout.in_channels
    ).macs


def _rows(name):
    with open(shared_data("nas_bench_201", name), encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def test_all_rows_of_nas_bench_macro():
    space, rows = get_space("nas_bench_macro"), 0
    for row in _rows("nas_bench_macro.csv"):
        assert space.cost(space.parse(row["arch"])) == (int(row["params"]), int(row["macs"])), row["arch"]
        rows += 1
    assert rows == space.size() == 6561


def test_all_rows_of_nas_bench_201():
    space, rows, cut = get_space("nas_bench_201"), 0, 0
    for row in _rows("nas_bench_201_12ep.csv"):
        genotype = space.parse(row["ops"])
        assert space.cost(genotype) == (int(row["params"]), int(row["macs"])), row["ops"]
        rows, cut = rows + 1, cut + (not is_connected(genotype))
    assert rows == space.size() == 15_625
    assert cut == 341
    assert get_space("nas_bench_201", connected=True).size() == 15_625 - 341


# (space, sizes, genotype, params, MACs) of the published networks
GOLDEN = [
    ("nas_bench_macro", {}, "00000000", 387_882, 7_713_280),
    ("nas_bench_macro", {}, "11111111", 1_588_874, 53_246_464),
    ("nas_bench_macro", {}, "22222222", 2_932_586, 105_660_928),
    ("fairnas_chain", {}, "FairNAS-A", 4_651_352, 388_122_848),
    ("fairnas_chain", {}, "FairNAS-B", 4_506_272, 345_297_632),
    ("darts", {}, "DARTS_V1", 3_169_414, 500_987_520),
    ("darts", {}, "DARTS_V2", 3_349_342, 528_359_040),
    ("darts", {}, "PC_DARTS_cifar", 3_634_678, 556_670_592),
    ("darts", IMAGENET, "DARTS_V1", 4_510_432, 505_864_704),
    ("darts", IMAGENET, "DARTS_V2", 4_718_752, 529_911_552),
    ("darts", IMAGENET, "PC_DARTS_cifar", 5_270_560, 571_137_408),
    ("ofa", {}, "max", 7_664_760, 566_170_656),
    ("ofa", {"resolution": 128}, "max", 7_664_760, 188_248_320),
    ("ofa", {}, "min", 3_410_792, 121_278_672),
    ("ofa", {"resolution": 128}, "min", 3_410_792, 41_476_224),
]


@pytest.mark.parametrize(("name", "sizes", "genotype", "params", "macs"), GOLDEN)
def test_published_networks(name, sizes, genotype, params, macs):
    space = get_space(name, **sizes)
    assert space.cost(space.parse(genotype)) == (params, macs)


@pytest.mark.parametrize("row", [1, 3, 6, 9, 11], ids=lambda row: GOLDEN[row][2])
def test_published_networks_as_built(row):
    """One of each kind, counted by running it."""
    name, sizes, genotype, *expected = GOLDEN[row]
    space = get_space(name, **sizes)
    assert _built(space, space.parse(genotype)) == tuple(expected)


def _params(module):
    return sum(p.numel() for p in module.parameters())


def test_published_supernets():
    with torch.device("meta"):
        assert _params(get_space("nas_bench_201").supernet(affine=False)) == 1_692_698
        assert _params(get_space("nas_bench_201").supernet()) == 1_699_546
        assert _params(get_space("darts").supernet()) == 1_930_618
        elastic = get_space("ofa").supernet()
        assert _params(elastic) == 7_678_880
        assert sum(p.numel() for name, p in elastic.named_parameters() if ".matrices." in name) == 14_120
        for sizes, params in (({}, 476_426), (IMAGENET, 1_260_776)):
            space = get_space("darts", auxiliary=True, **sizes)
            assert _params(space.build(space.named["DARTS_V2"]).auxiliary) == params


def test_sizes():
    sizes = {name: get_space(name).size() for name in SPACES}
    assert sizes == {
        "nas_bench_201": 5**6,
        "nb201_tiny": 5**6,
        "nas_bench_macro": 3**8,
        "fairnas_chain": 6**19,
        "digits_chain": 3**4,
        "darts": 1_037_664_180**2,
        "darts_tiny": 1_037_664_180**2,
        "ofa": 7_371**5,
        "ofa_tiny": 42**2,
    }


@pytest.mark.parametrize("name", SPACES)
def test_what_is_written_is_read_back(name):
    space = get_space(name)
    for genotype in [*space.sample_many(20, 0), *space.named.values()]:
        assert space.parse(space.str(genotype)) == genotype
        assert space.from_index(space.index(genotype)) == genotype
        assert genotype in space
    for place in (0, 1, space.size() - 1):
        assert space.index(space.from_index(place)) == place


@pytest.mark.parametrize("name", SMALL)
def test_counts_of_small_networks_are_those_of_the_modules(name):
    space = get_space(name)
    for genotype in space.sample_many(4, 1):
        assert space.cost(genotype) == _built(space, genotype)


@pytest.mark.parametrize("name", SPACES)
def test_operators_stay_inside(name):
    space = get_space(name)
    generator = torch.Generator().manual_seed(0)
    a, b = space.sample_many(2, 0)
    for _ in range(40):
        mutant, child = space.mutate(a, generator, 0.1), space.crossover(a, b, generator)
        assert space.is_valid(mutant)
        assert mutant != a
        assert space.is_valid(child)
    assert space.sample(3) == space.sample(3) != space.sample(4)
    assert space.mutate(a, 5) == space.mutate(a, 5)


def test_crossover_takes_genes_of_both():
    space = get_space("nas_bench_macro")
    a, b = (0,) * 8, (2,) * 8
    children = {space.crossover(a, b, seed) for seed in range(20)}
    assert all(set(child) <= {0, 2} for child in children)
    assert len(children) > 10


def test_mutation_changes_each_gene_about_as_often_as_said():
    space, generator = get_space("fairnas_chain"), torch.Generator().manual_seed(0)
    a = space.sample(0)
    changed = [sum(x != y for x, y in zip(a, space.mutate(a, generator, 0.5), strict=True)) for _ in range(300)]
    assert abs(sum(changed) / 300 - 9.5) < 0.4


@pytest.mark.parametrize(
    ("name", "options"), [("digits_chain", {}), ("nb201_tiny", {"connected": True}), ("ofa_tiny", {})]
)
def test_sampling_is_uniform_over_the_valid(name, options):
    """Chi-square over all genotypes; of three standard deviations above its mean, chance takes 0.1 %."""
    space = get_space(name, **options)
    draws, generator = 12 * min(space.size(), 200), torch.Generator().manual_seed(0)
    bins = min(space.size(), 200)
    counts = Counter(space.index(space.sample(generator)) * bins // space.size() for _ in range(draws))
    width = Counter(i * bins // space.size() for i in range(space.size()))
    expected = {b: draws * width[b] / space.size() for b in width}
    statistic = sum((counts[b] - expected[b]) ** 2 / expected[b] for b in expected)
    freedom = len(expected) - 1
    assert statistic < freedom + 3 * (2 * freedom) ** 0.5
    assert len(counts) == bins


def test_many_are_distinct_and_all_are_all():
    space = get_space("digits_chain")
    assert len(set(space.sample_many(81, 0))) == 81
    assert len(list(space)) == len(set(space)) == 81
    assert len(set(space.sample_many(200, 0, distinct=False))) < 81 + 1
    with pytest.raises(UserError, match="count=82"):
        space.sample_many(82, 0)


def test_canonical_forms():
    chain = get_space("digits_chain")
    assert chain.canonical((1, 0, 2, 2)) == (1, 0, 2, 2)
    macro = get_space("nas_bench_macro")
    assert macro.canonical(macro.parse("10012012")) == macro.parse("10012012"[:3] + "120" + "12"[:2])
    cells = get_space("nas_bench_201")
    # Nothing reaches node 1, so that what leaves it carries nothing; two wires in a row are one.
    assert cells.canonical(cells.parse("003333")) == cells.canonical(cells.parse("000300"))
    assert cells.canonical(cells.parse("110003")) == cells.canonical(cells.parse("010003"))
    for genotype in cells.sample_many(50, 0):
        canonical = cells.canonical(genotype)
        assert cells.canonical(canonical) == canonical
        assert is_connected(canonical) == is_connected(genotype)
    elastic = get_space("ofa_tiny")
    for seed in range(20):
        genotype = elastic.sample(seed)
        assert elastic.canonical(genotype) == genotype


def test_same_canonical_form_is_the_same_network():
    """Cells whose dead edges differ compute the same to the bit, with the same weights on the others."""
    space = get_space("nb201_tiny")
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    supernet = space.supernet().eval()
    a, b = space.parse("003333"), space.parse("000300")
    assert space.canonical(a) == space.canonical(b)
    with torch.no_grad():
        assert torch.equal(supernet(x, space.parse("000303")), supernet(x, space.parse("003303")))


def test_hash_tells_sizes_apart():
    hashes = {
        get_space("digits_chain", **sizes).hash for sizes in ({}, {"width": 4}, {"classes": 5}, {"resolution": 16})
    }
    assert len(hashes) == 4
    assert get_space("digits_chain").hash == get_space("digits_chain").hash
    assert get_space("nb201_tiny").hash != get_space("nas_bench_201").hash


WRONG = [
    ("nas_bench_201", "01234", "six digits"),
    ("nas_bench_201", "012345", "six digits"),
    ("nas_bench_201", "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|", "nor_conv_5x5"),
    ("nas_bench_201", "|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "twice"),
    ("nas_bench_201", "|none~0|+|none~0|+|none~0|none~1|none~2|", "missing"),
    ("digits_chain", "012", "4 layers, not 3"),
    ("digits_chain", "0123", "'3' is no layer"),
    ("fairnas_chain", "37-33", "19 layers"),
    ("darts", "normal sep3:0", "reduce"),
    ("darts", "normal sep9:0 sep3:1 | sep3:0 sep3:1 | sep3:1 skip:0 | skip:0 dil3:2; reduce max:0 max:1", "sep9"),
    ("darts", "normal sep3:0 sep3:0 | sep3:0 sep3:1 | sep3:1 skip:0 | skip:0 dil3:2; reduce max:0 max:1", "twice"),
    ("ofa_tiny", "k3e2", "2 stages"),
    ("ofa_tiny", "k3e2_k7e2", "'k7e2' is no block"),
    ("ofa_tiny", "k3e2_k3e2-k3e2-k3e2", "3 blocks"),
]


@pytest.mark.parametrize(("name", "text", "words"), WRONG)
def test_malformed_genotypes_are_named(name, text, words):
    with pytest.raises(UserError) as caught:
        get_space(name).parse(text)
    assert words in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_mistakes_are_named():
    with pytest.raises(UserError, match="did you mean 'digits_chain'"):
        get_space("digit_chain")
    with pytest.raises(UserError, match="wdth"):
        get_space("digits_chain", wdth=4)
    with pytest.raises(UserError, match=r"space\.width='a'"):
        get_space("digits_chain", width="a")
    with pytest.raises(UserError, match="0, 1, 2, 3, 4, 5"):
        get_space("digits_chain").check((0, 1, 2, 3, 4, 5))
    with pytest.raises(UserError, match="output is not connected"):
        get_space("nb201_tiny", connected=True).check((0,) * 6)
    with pytest.raises(UserError, match="beyond the depth"):
        get_space("ofa_tiny").check((0, 0, 0, 1, 0, 0, 0, 0, 0, 0))
    with pytest.raises(UserError, match="p=0"):
        get_space("digits_chain").mutate((0,) * 4, 0, 0)
    with pytest.raises(UserError, match="index=81"):
        get_space("digits_chain").from_index(81)
    with pytest.raises(UserError, match=r"space\.layers=2"):
        get_space("darts", layers=2)


def test_benchmark_strings():
    space = get_space("nas_bench_201")
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    assert space.parse(text) == space.parse("301243")
    assert space.arch_string(space.parse("301243")) == text
    assert json.dumps(space.parse(text)) == "[3, 0, 1, 2, 4, 3]"


def test_graphs_are_what_a_genotype_says(tmp_path):
    space = get_space("darts")
    graphs = space.graphs(space.parse("DARTS_V2"))
    text = space.format(space.parse("DARTS_V2"))
    for name, part in zip(("normal", "reduce"), text.split("; "), strict=True):
        written = [
            (int(word[-1]), 2 + node, word[:-2])
            for node, words in enumerate(part.removeprefix(f"{name} ").split(" | "))
            for word in words.split()
        ]
        assert list(graphs[name].edges) == written
    cell = get_space("nas_bench_201").graphs((4, 2, 0, 2, 1, 3))["cell"]
    assert cell.edges == (
        (0, 1, "pool 3x3"),
        (0, 2, "conv 1x1"),
        (0, 3, "conv 1x1"),
        (1, 3, "skip"),
        (2, 3, "conv 3x3"),
    )
    chain = get_space("digits_chain").graphs((2, 1, 0, 2))["layers"]
    assert [operation for _, _, operation in chain.edges] == ["e6k5", "e3k3", "identity", "e6k5"]
    elastic = get_space("ofa_tiny")
    stages = elastic.graphs(elastic.named["min"])
    assert [len(graph.edges) for graph in stages.values()] == [min(elastic.network.depths)] * len(
        elastic.network.stages
    )
    long = get_space("fairnas_chain")
    seen = read_description(draw_graphs(long.graphs(long.parse("FairNAS-A")), tmp_path / "a.png", "FairNAS-A"))
    assert seen.startswith("Graph of a network's choices, layers: e3k7 from in to 1")
    assert seen.endswith("e6k5 from 18 to out.")
