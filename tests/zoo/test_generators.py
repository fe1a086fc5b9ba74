"""The generators' examples are reproducible and have the structure that their sources describe."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations, islice
from typing import Any

import numpy as np
import pytest

from zoo.errors import BadCorpus
from zoo.generators import TRAINING_SEEDS, cells, genomes, images, proteins, text
from zoo.letters import AMINO_ACIDS

HELD_OUT = TRAINING_SEEDS.stop
COMPLEMENT = str.maketrans("ACGT", "TGCA")

MADE: dict[str, Callable[..., Iterator[Any]]] = {
    "cells": lambda count, seed, **world: cells.cells(count, seed, genes=500, types=3, **world),
    "images": lambda count, seed, **world: images.dead_leaves(32, count, seed, **world),
    "proteins": lambda count, seed, **world: proteins.families(count, seed, **world),
    "genomes": lambda count, seed, **world: genomes.genomes(600, count, seed, **world),
}


def as_bytes(example: Any) -> bytes:
    return example.encode() if isinstance(example, str) else example.tobytes()


def digest(examples: Iterator[Any]) -> str:
    return hashlib.sha256(b"\0".join(as_bytes(example) for example in examples)).hexdigest()[:16]


@pytest.fixture(scope="module")
def drawn_genomes() -> list[genomes.Genome]:
    return list(genomes.annotated_genomes(1536, 120, HELD_OUT))


def coding_sequence(genome: genomes.Genome, gene: genomes.Gene) -> str:
    coding = genome.sequence[max(gene.coding_start, 0) : max(gene.coding_end, 0)]
    return coding if gene.strand > 0 else coding.translate(COMPLEMENT)[::-1]


def whole_genes(drawn: list[genomes.Genome]) -> Iterator[tuple[genomes.Genome, genomes.Gene, str]]:
    for genome in drawn:
        for gene in genome.genes:
            if gene.coding_start >= 0 and gene.coding_end <= len(genome.sequence):
                yield genome, gene, coding_sequence(genome, gene)


# What every generator promises


@pytest.mark.parametrize("name", MADE)
def test_a_seed_fixes_the_draws_and_a_longer_run_begins_with_a_shorter_one(name: str) -> None:
    make, seed = MADE[name], random.randrange(10**6)
    assert digest(make(5, seed)) == digest(islice(make(9, seed), 5))


@pytest.mark.parametrize("name", MADE)
def test_seeds_and_worlds_give_other_draws(name: str) -> None:
    make, seed = MADE[name], random.randrange(10**6)
    streams = [make(6, seed), make(6, seed + 1), make(6, seed, world=1)]
    seen = [as_bytes(example) for stream in streams for example in stream]
    assert len(seen) == len(set(seen)) == 18


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (images, "d9a97344ca682ddc"),
        (proteins, "28db55d81d24e8cf"),
        (genomes, "15d285b0cb695712"),
        (cells, "9c76fa0a7d9d03ea"),
    ],
    ids=["images", "proteins", "genomes", "cells"],
)
def test_the_first_examples_are_those_of_version_1(module: Any, expected: str) -> None:
    """Changed output: raise the module's VERSION, train its checkpoint anew, pin the new digest."""
    name = module.__name__.rpartition(".")[2]
    assert (module.VERSION, digest(MADE[name](8, HELD_OUT))) == (1, expected)


def test_importing_the_generators_does_not_import_numpy() -> None:
    code = (
        "import sys, zoo.generators.text, zoo.generators.images, zoo.generators.proteins,"
        " zoo.generators.genomes, zoo.generators.cells; sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert subprocess.run([sys.executable, "-c", f"import numpy; {code}"]).returncode == 1


# Cells


def test_a_cell_has_each_gene_once_and_no_other_ids() -> None:
    for cell in cells.cells(20, HELD_OUT, genes=300, first=7, types=2):
        assert len(set(cell)) == len(cell) > 100
        assert min(cell) >= 7
        assert max(cell) < 307


def _spread_of_ranks(types: int) -> float:
    """The share of the variance of ranks that lies along one direction, of cells of some types."""
    ranks = np.full((60, 2000), 2000.0)
    for row, cell in zip(ranks, cells.cells(60, HELD_OUT, genes=2000, types=types), strict=True):
        row[np.array(cell) - 4] = np.arange(len(cell))
    # What depends on the depth of a cell alone, that all of its genes stand later, is taken out.
    ranks -= ranks.mean(axis=1, keepdims=True)
    variances = np.linalg.svd(ranks - ranks.mean(axis=0), compute_uv=False) ** 2
    return float(variances[0] / variances.sum())


def test_cells_of_a_type_rank_their_genes_otherwise_than_those_of_another() -> None:
    assert _spread_of_ranks(types=2) > 1.5 * _spread_of_ranks(types=1)


def test_a_gene_that_is_high_for_it_stands_before_one_that_is_always_high() -> None:
    """Ranks are by counts over what is usual of a gene, not by the counts alone."""
    drawn = list(cells.cells(300, HELD_OUT, genes=400, types=4))
    shares, usual = cells._types(400, 4, 0)
    # Where a gene is in every cell, what is usual of it is its mean, but for rounding.
    assert np.all(usual >= (1 - 1e-12) * shares.mean(axis=0))
    place = np.zeros(400)
    for cell in drawn:
        place[np.array(cell) - 4] += np.linspace(0, 1, len(cell)) / len(drawn)
    always = np.argsort(usual)[-40:]
    assert abs(place[always].mean() - 0.5) < 0.15


# Text


def test_a_section_under_two_heading_levels_is_read_once() -> None:
    one = "Chapter\n*******\n\nIntro.\n\n\nPart\n====\n\nBody of it.\n"
    other = "Part\n****\n\nBody of it.\n"
    assert list(text.passages([one, other])) == [
        ("Chapter#0", "Chapter\n\nIntro."),
        ("Part#0", "Part\n\nBody of it."),
    ]


def test_passages_are_whole_paragraphs_and_lose_none() -> None:
    paragraphs = ["word " * random.randint(5, 120) + str(index) for index in range(40)]
    found = [passage for _, passage in text.passages(["\n\n".join(paragraphs)])]
    assert "\n\n".join(found) == "\n\n".join(paragraphs)
    for passage in found[:-1]:
        last = len("\n\n" + passage.split("\n\n")[-1])
        assert len(passage) - last < text.PASSAGE_CHARACTERS <= len(passage)


def test_training_and_measuring_read_different_halves_of_the_topics() -> None:
    training, held_out = list(text.topics(3)), list(text.topics(HELD_OUT))
    assert not set(training) & set(held_out)
    assert sorted(training) == sorted(text.topics(4))
    assert training != list(text.topics(4))
    share = sum(map(len, held_out)) / sum(map(len, training + held_out))
    assert 0.35 < share < 0.65


def test_a_python_without_its_help_texts_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(BadCorpus, match=r"no pydoc_data\.topics to read.*Install"):
        next(text.topics(0))


# Images


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    drawn = np.stack(list(images.dead_leaves(64, 80, HELD_OUT)))
    assert drawn.shape == (80, 64, 64, 3)
    assert drawn.dtype == np.uint8
    return drawn.astype(float) / 255


def spectral_slope(pictures: np.ndarray) -> float:
    """The exponent of the mean power spectrum of grey pictures, between 2 and 24 cycles."""
    size = pictures.shape[1]
    window = np.hanning(size)
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    power = (abs(np.fft.fft2(centred * window[:, None] * window)) ** 2).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)) * size
    band = (frequency > 2) & (frequency < 24)
    return float(np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0])


def test_the_images_spectrum_falls_like_that_of_natural_images(pictures: np.ndarray) -> None:
    noise = np.random.default_rng().random(pictures.shape[:3])
    assert abs(spectral_slope(noise)) < 0.2
    assert -3.2 < spectral_slope(pictures.mean(axis=3)) < -1.8


def test_leaves_have_sharp_edges_and_even_insides(pictures: np.ndarray) -> None:
    step = np.diff(pictures.mean(axis=3), axis=2)
    kurtosis = np.mean(step**4) / np.mean(step**2) ** 2  # 3 for a Gaussian
    assert kurtosis > 6


def test_colours_vary_most_in_luminance_and_least_in_red_green(pictures: np.ndarray) -> None:
    red, green, blue = np.moveaxis(pictures, 3, 0)
    luminance = (red + green + blue) / np.sqrt(3)
    yellow_blue, red_green = (red + green - 2 * blue) / np.sqrt(6), (red - green) / np.sqrt(2)
    assert luminance.std() > yellow_blue.std() > red_green.std()


def test_images_smaller_than_a_leaf_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 pixels, not 4"):
        next(images.dead_leaves(4, 1, 0))


# Proteins


def identity(one: str, other: str) -> float:
    return float(np.mean([a == b for a, b in zip(one, other, strict=False)]))


def test_relatives_are_alike_and_strangers_are_not() -> None:
    drawn = list(proteins.labelled_families(300, HELD_OUT))
    pairs = [(f == g, identity(a, b)) for (f, a), (g, b) in combinations(drawn, 2)
             if len(a) == len(b)]  # fmt: skip
    related = [value for same, value in pairs if same]
    unrelated = [value for same, value in pairs if not same]
    assert np.mean(related) > 0.45
    assert np.mean(unrelated) < 0.12
    assert len(Counter(family for family, _ in drawn)) == 16


def test_proteins_use_the_twenty_letters_and_begin_with_methionine() -> None:
    drawn = list(proteins.families(300, HELD_OUT))
    assert set("".join(drawn)) == set(AMINO_ACIDS)
    assert {sequence[0] for sequence in drawn} == {"M"}
    assert 50 < min(map(len, drawn)) < max(map(len, drawn)) < 250


def test_transition_probabilities_are_the_matrix_exponential_of_the_rates() -> None:
    from scipy.linalg import expm

    model = proteins._substitution(0)
    rng = np.random.default_rng()
    site_class = rng.integers(len(model.frequency), size=12)
    residue, time = rng.integers(20, size=12), rng.exponential(1.0, size=12)
    rows = model.transition(site_class, residue, time)
    exchange = np.exp(-proteins.grantham_distance() / 60)
    for row, c, a, t in zip(rows, site_class, residue, time, strict=True):
        pi = model.frequency[c]
        rate = exchange * pi
        np.fill_diagonal(rate, 0.0)
        np.fill_diagonal(rate, -rate.sum(axis=1))
        rate /= -(np.diag(rate) * pi).sum()
        np.testing.assert_allclose(row, expm(rate * t)[a], rtol=1e-8, atol=1e-12)


def test_grantham_distances_are_the_published_ones() -> None:
    distance, at = proteins.grantham_distance(), AMINO_ACIDS.index
    published = {"LI": 5, "FY": 22, "KR": 26, "DE": 45, "RS": 110, "CW": 215, "AV": 64, "GW": 184}
    for pair, value in published.items():
        assert distance[at(pair[0]), at(pair[1])] == pytest.approx(value, abs=1.0)


def test_hydropathy_turns_with_the_helix() -> None:
    scale = dict(zip(AMINO_ACIDS, proteins._HYDROPATHY, strict=True))
    power = dict.fromkeys((60, 100, 140), 0.0)  # degrees per residue
    for sequence in proteins.families(300, HELD_OUT):
        values = np.array([scale[letter] for letter in sequence])
        for angle in power:
            wave = np.exp(1j * np.deg2rad(angle) * np.arange(len(values)))
            power[angle] += abs((values - values.mean()) @ wave) ** 2
    assert power[100] > 1.3 * max(power[60], power[140])


# Genomes


def test_genes_are_open_reading_frames_on_both_strands(drawn_genomes: list[genomes.Genome]) -> None:
    strands = Counter[int]()
    for _, gene, coding in whole_genes(drawn_genomes):
        codons = [coding[i : i + 3] for i in range(0, len(coding), 3)]
        assert codons[0] == "ATG"
        assert codons[-1] in genomes.STOPS
        assert not set(codons[:-1]) & set(genomes.STOPS)
        strands[gene.strand] += 1
    assert min(strands[1], strands[-1]) > 20


def test_coding_sequence_has_period_three(drawn_genomes: list[genomes.Genome]) -> None:
    def relative_power(sequence: str) -> float:
        """Power at a period of 3 bases over the mean power of all periods."""
        signals = [np.array([base == letter for letter in sequence], float) for base in "ACGT"]
        power = np.sum(
            [abs(np.fft.rfft(signal - signal.mean())) ** 2 for signal in signals], axis=0
        )
        return float(power[len(sequence) // 3] / power[1:].mean())

    coding = [c[: len(c) // 3 * 3] for _, _, c in whole_genes(drawn_genomes)]
    shuffled = ["".join(random.sample(c, len(c))) for c in coding]
    assert np.mean([relative_power(c) for c in coding]) > 3
    assert np.mean([relative_power(c) for c in shuffled]) < 1.5


def test_third_codon_positions_follow_the_isochore(drawn_genomes: list[genomes.Genome]) -> None:
    points = []
    for genome, gene, coding in whole_genes(drawn_genomes):
        third = np.mean([base in "GC" for base in coding[2::3]])
        points.append((genome.isochore[gene.coding_start : gene.coding_end].mean(), third))
    assert np.corrcoef(np.array(points).T)[0, 1] > 0.3


def test_composition_varies_more_between_genomes_than_by_chance(
    drawn_genomes: list[genomes.Genome],
) -> None:
    length = 1536
    gc = np.array([sum(base in "GC" for base in g.sequence) / length for g in drawn_genomes])
    by_chance = np.sqrt(gc.mean() * (1 - gc.mean()) / length)
    assert gc.std() > 1.5 * by_chance


def test_cpg_is_depleted_between_genes(drawn_genomes: list[genomes.Genome]) -> None:
    pieces = []
    for genome in drawn_genomes:
        outside = np.ones(len(genome.sequence), bool)
        for gene in genome.genes:
            outside[max(gene.start - 200, 0) : max(gene.end + 200, 0)] = False
        letters = np.array(list(genome.sequence))
        pieces.append("".join(np.where(outside, letters, " ")))
    joined = " ".join(pieces)
    bases = len(joined.replace(" ", ""))
    expected = joined.count("C") * joined.count("G") / bases
    assert bases > 5000
    assert joined.count("CG") / expected < 0.6
    assert joined.count("GC") / expected > 0.8


def test_motifs_are_planted_more_often_than_chance_has_them(
    drawn_genomes: list[genomes.Genome],
) -> None:
    def sites(sequences: list[str]) -> np.ndarray:
        return np.sum([(genomes.occupancy(s) > 0.5).sum(axis=1) for s in sequences], axis=0)

    sequences = [genome.sequence for genome in drawn_genomes]
    shuffled = ["".join(random.sample(s, len(s))) for s in sequences]
    assert np.all(sites(sequences) > 1.3 * sites(shuffled))


def test_occupancy_is_the_logistic_of_the_score_on_either_strand() -> None:
    sequence = "".join(random.choices("ACGT", k=80))
    bound = genomes.occupancy(sequence)
    mirrored = genomes.occupancy(sequence.translate(COMPLEMENT)[::-1])
    np.testing.assert_allclose(bound.sum(axis=1), mirrored.sum(axis=1))
    motif = genomes._world(0).motifs[2]
    best = sum(np.log(4 * column.max()) for column in motif)
    for start in range(80 - len(motif) + 1):
        site = sequence[start : start + len(motif)]
        scores = [
            sum(np.log(4 * p["ACGT".index(base)]) for base, p in zip(strand, motif, strict=True))
            for strand in (site, site.translate(COMPLEMENT)[::-1])
        ]
        expected = 1 / (1 + np.exp(0.6 * best - max(scores)))
        assert bound[2, start + len(motif) // 2] == pytest.approx(expected)


def test_tracks_show_the_genes_and_the_composition(drawn_genomes: list[genomes.Genome]) -> None:
    column = {name: index for index, name in enumerate(genomes.TRACKS)}
    for genome in drawn_genomes[:20]:
        values = genomes.tracks(genome, 16)
        assert values.shape == (96, len(genomes.TRACKS))
        assert np.all(values >= 0)
        bins = np.array([list(genome.sequence[i : i + 16]) for i in range(0, 1536, 16)])
        gc = np.isin(bins, ["G", "C"]).mean(axis=1)
        np.testing.assert_allclose(values[:, column["gc"]], 2 * gc)
        for strand, name in ((1, "transcription +"), (-1, "transcription -")):
            covered = np.zeros(1536, bool)
            for gene in genome.genes:
                if gene.strand == strand:
                    covered[max(gene.start, 0) : max(gene.end, 0)] = True
            transcribed = values[:, column[name]] > 0
            np.testing.assert_array_equal(transcribed, covered.reshape(96, 16).any(axis=1))


def test_sequences_shorter_than_a_motif_have_no_site() -> None:
    assert genomes.occupancy("ACG").shape == (genomes.MOTIFS, 3)
    assert not genomes.occupancy("ACG").any()
