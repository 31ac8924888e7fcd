"""Schedules by hand; optimizers share the parameters out; averages by hand."""

from __future__ import annotations

import math

import pytest
import torch

from glm_annotate.train.config import OptimConfig
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.optim import Average, anneal_fraction, learning_rate, make_optimizers

CONFIG = OptimConfig(lr=0.1, final_lr=0.2, steps=20, warmup_steps=3, anneal_steps=10)


@pytest.mark.parametrize(
    ("step", "fraction"), [(0, 0.0), (9, 0.0), (10, 0.1), (14, 0.5), (19, 1.0), (25, 1.0)]
)
def test_anneal_fraction(step, fraction):
    assert anneal_fraction(step, CONFIG) == pytest.approx(fraction)
    assert anneal_fraction(step, OptimConfig(steps=20, warmup_steps=0)) == 0.0


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.1 / 4),
        (2, 0.1 * 3 / 4),
        (3, 0.1),
        (9, 0.1),
        # Half way down the cosine: in the middle of 0.1 and 0.02.
        (14, 0.06),
        (11, 0.02 + 0.08 * (1 + math.cos(math.pi * 0.2)) / 2),
        (19, 0.02),
    ],
)
def test_learning_rate(step, rate):
    assert learning_rate(step, CONFIG) == pytest.approx(rate)


def test_cosine_falls_from_warm_up_on():
    config = OptimConfig(lr=0.1, final_lr=0.2, steps=23, warmup_steps=3, schedule="cosine")
    assert [anneal_fraction(s, config) for s in (0, 2, 3, 12, 22)] == pytest.approx(
        [0, 0, 0.05, 0.5, 1]
    )
    # Half way down: in the middle of 0.1 and 0.02.
    found = [learning_rate(s, config) for s in (0, 2, 12, 22)]
    assert found == pytest.approx([0.1 / 4, 0.1 * 3 / 4, 0.06, 0.02])


def test_a_longer_run_starts_the_same():
    longer = CONFIG.model_copy(update={"steps": 40})
    assert [learning_rate(s, longer) for s in range(10)] == [
        learning_rate(s, CONFIG) for s in range(10)
    ]


@pytest.fixture
def network():
    return FAMILIES["gpn"].build({"dim": 8, "kernel": 3, "hidden": 12, "dilations": [1, 2]})


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_parameter_has_one_optimizer(network, name):
    config = OptimConfig(name=name, steps=5, warmup_steps=0, weight_decay=0.3)
    optimizers = make_optimizers(network, FAMILIES["gpn"], config)
    groups = [g for optimizer in optimizers for g in optimizer.param_groups]
    owned = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(owned) == sorted(id(weight) for weight in network.parameters())
    for group in groups:
        decay = {0.0 if weight.ndim < 2 else 0.3 for weight in group["params"]}
        assert decay == {group["weight_decay"]}


def test_muon_has_the_matrices_of_the_blocks(network):
    config = OptimConfig(name="muon", steps=5, warmup_steps=0)
    muon, adamw = make_optimizers(network, FAMILIES["gpn"], config)
    names = {id(weight): name for name, weight in network.named_parameters()}
    of_muon = {names[id(w)] for group in muon.param_groups for w in group["params"]}
    layers = ("conv", "widen", "narrow")
    assert of_muon == {f"blocks.{i}.{layer}.weight" for i in (0, 1) for layer in layers}
    of_adamw = {names[id(w)] for group in adamw.param_groups for w in group["params"]}
    assert {"embedding.weight", "head.weight", "norm.bias", "blocks.0.conv.bias"} <= of_adamw


def test_the_average_by_hand():
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    average, value = Average(layer, decay=0.3), 1.0
    for step, weight in enumerate([2.0, 5.0, -1.0, 4.0]):
        with torch.no_grad():
            layer.weight.fill_(weight)
        average.update(step)
        # The first steps forget faster: decays 1/10, 2/11, 3/12, then 0.3 at most.
        decay = [1 / 10, 2 / 11, 3 / 12, 0.3][step]
        value = decay * value + (1 - decay) * weight
        assert float(average.weights["weight"]) == pytest.approx(value, rel=1e-6)


def test_the_network_has_the_average_for_a_while():
    layer = torch.nn.Linear(2, 1)
    average = Average(layer, decay=0.9)
    before = {name: value.clone() for name, value in average.weights.items()}
    with torch.no_grad():
        for weight in layer.parameters():
            weight += 1
    kept = {name: value.clone() for name, value in layer.state_dict().items()}
    with average.in_place():
        torch.testing.assert_close(dict(layer.state_dict()), before, rtol=0, atol=0)
    torch.testing.assert_close(dict(layer.state_dict()), kept, rtol=0, atol=0)
    torch.testing.assert_close(average.weights, before, rtol=0, atol=0)
