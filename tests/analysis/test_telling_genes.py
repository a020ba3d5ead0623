"""Genes that the rules choose: those made to shift, those made to change their shape, and none by chance."""

from dataclasses import replace

import numpy as np
import pytest
from saved import predictions

from analysis.predicted import Response
from analysis.telling_genes import LARGEST_SHIFT, SHAPE, rules, telling_genes

GENES = tuple(f"GENE{i}" for i in range(12))
CONTROL = np.linspace(0.1, 0.9, 12), np.full(12, 1.5), np.full(12, 0.4)


def changed(up=(), wider=(), rarer=()):
    """Zero, mean and spread of cells in which some genes go up, some spread, and some are seen in fewer cells."""
    zero, mean, spread = (values.copy() for values in CONTROL)
    mean[list(up)] += 0.8
    spread[list(wider)] *= 2
    zero[list(rarer)] += 0.3
    return zero, mean, spread


def response(change=CONTROL, name="STAT1", seed=3, **settings):
    saved = predictions(perturbations=(name,), genes=GENES, change=lambda _: change, n_bins=35, seed=seed)
    return Response(replace(saved, **settings), 0)


def test_each_rule_finds_what_was_made():
    found = response(changed(up=[2, 5], wider=[0, 1], rarer=[4]))
    by_rule = {rule: [GENES[gene] for gene in genes] for rule, genes in rules(found).items()}
    assert by_rule[LARGEST_SHIFT][0] == "GENE2"  # seen in more cells than GENE5
    assert {"GENE2", "GENE4", "GENE5"} <= set(by_rule[LARGEST_SHIFT])
    assert set(by_rule[SHAPE]) == {"GENE0", "GENE1"}
    assert telling_genes(found, 4) == {
        **dict.fromkeys(by_rule[LARGEST_SHIFT][:2], LARGEST_SHIFT),
        **dict.fromkeys(by_rule[SHAPE], SHAPE),
    }


def test_one_rule_makes_up_for_what_the_other_lacks():
    assert set(telling_genes(response(changed(up=[2, 3, 5])), 3).items()) == {
        *((f"GENE{i}", LARGEST_SHIFT) for i in (2, 3, 5))
    }
    reshaped = telling_genes(response(changed(wider=[0, 1, 2])), 4)
    assert set(reshaped) == {"GENE0", "GENE1", "GENE2"}
    assert SHAPE in reshaped.values()


def test_sampling_noise_is_chosen_in_fewer_than_one_of_a_hundred_genes():
    n_chosen = [len(telling_genes(response(seed=seed), 12)) for seed in range(50)]
    assert sum(n_chosen) < 0.01 * 50 * len(GENES)


@pytest.mark.parametrize("name", ["GENE2", "GENE2+IRF1", "IRF1+GENE2"])
def test_the_perturbed_gene_is_not_its_own_response(name):
    change = changed(up=[2, 5])
    assert "GENE2" in telling_genes(response(change), 4)
    assert set(telling_genes(response(change, name), 4)) == {"GENE5"}


def test_genes_that_are_hardly_seen_or_do_not_vary_in_training_are_left_out():
    zero, mean, spread = changed(up=[2, 5])
    found = response((zero, mean, spread), constant=np.arange(12) == 5)
    assert set(telling_genes(found, 4)) == {"GENE2"}
    observed, control = found.saved.observed.copy(), found.saved.control.copy()
    for masses in (observed[0], control):
        masses[2] *= 0.04 / (1 - masses[2, 0])
        masses[2, 0] = 0.96
    assert "GENE2" not in telling_genes(Response(replace(found.saved, observed=observed, control=control), 0), 4)
    never_zero = replace(found.saved, lower=found.saved.lower + 1)  # the first bin is not that of zeros
    assert (Response(never_zero, 0).detected == 1).all()
