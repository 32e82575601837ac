"""The evidence for a list as HTML."""

import re

import numpy as np

from multitool.evidence.verdicts import list_evidence, written_evidence
from multitool.jobs.token_table import TokenTable
from multitool.page.evidence_html import list_verdict_html

V = 200
SCORES = np.concatenate([np.arange(V, dtype=float)[None], np.random.default_rng(0).random((20, V))])
EVERY = np.ones(V, dtype=bool)


def shown(evidence) -> str:
    html = list_verdict_html(TokenTable(("rank",), [], {}, {}, evidence), lambda token_id: f"<{token_id}>")
    return re.sub(r"\s+", " ", html)


def test_a_list_by_lens_tells_what_the_feature_writes():
    html = shown(written_evidence(SCORES, np.arange(V, 0, -1) / V, EVERY))
    assert 'class="verdict agrees"' in html and "among the 100 that become more probable" in html
    assert "First 10 tokens that change most" in html and "of 200" in html
    assert "+1.0 to +0.5 nats" in html and "1.00" in html and "0% for a list to trust" in html
    assert "fire" not in html


def test_a_list_of_which_nothing_rises_has_the_figures_that_there_are():
    html = shown(written_evidence(SCORES, -np.ones(V), EVERY))
    assert 'class="verdict unknown"' in html and "nats" not in html and "AUROC" not in html


def test_a_list_by_another_measure_tells_what_fires_the_feature():
    html = shown(list_evidence(SCORES, (np.arange(V) < 20).astype(float), EVERY, ~EVERY, [3]))
    assert 'class="verdict agrees"' in html and "First 10 tokens that fire it" in html
    assert "<q>&lt;3&gt;</q> 4" in html and "writes" not in html
