"""From evidence of alleles to one float64 number each: what the scores of language models compute.

The first axis of evidence is alleles. Logarithms are natural.
"""

from __future__ import annotations

import numpy as np

from glm_annotate.answers import Floats


def plain(evidence: Floats) -> Floats:
    """Give the evidence itself, shape (n,)."""
    return evidence


def entropy(evidence: Floats) -> Floats:
    """Entropy in nats of distributions over A, C, G, T, shape (n, 4); 0 log 0 is 0."""
    logs = np.log(np.where(evidence > 0, evidence, 1.0))
    return np.asarray(-(evidence * logs).sum(axis=1))


def log_likelihood(evidence: Floats) -> Floats:
    """Natural logarithm of probabilities, shape (n,)."""
    return np.asarray(np.log(np.where(evidence > 0, evidence, np.nan)))


def cosine_distance(evidence: Floats) -> Floats:
    """1 - cos of the REF and ALT embeddings, shape (n, 2, D)."""
    ref, alt = evidence[:, 0], evidence[:, 1]
    # Scaled first: squares of numbers below 1e-154 would lose their digits, or all of them.
    largest = np.abs(evidence).max(axis=2, keepdims=True)
    scaled = evidence / np.where(largest > 0, largest, np.nan)
    norms = np.linalg.norm(scaled, axis=2).prod(axis=1)
    cosine = scaled.prod(axis=1).sum(axis=1) / norms
    # Equal vectors differ from 1 by rounding alone, and REF against itself is 0.
    same = (ref == alt).all(axis=1)
    return np.where(same, 0.0, 1.0 - cosine)


def sum_of_differences(evidence: Floats) -> Floats:
    """Sum of absolute differences of the REF and ALT embeddings, shape (n, 2, D)."""
    return np.asarray(np.abs(evidence[:, 1] - evidence[:, 0]).sum(axis=1))


def euclidean_distance(evidence: Floats) -> Floats:
    """Root of the summed squared differences of the embeddings, shape (n, 2, D)."""
    return np.asarray(np.sqrt(((evidence[:, 1] - evidence[:, 0]) ** 2).sum(axis=1)))


def dot_product(evidence: Floats) -> Floats:
    """Dot product of the REF and ALT embeddings, shape (n, 2, D)."""
    return np.asarray((evidence[:, 0] * evidence[:, 1]).sum(axis=1))
