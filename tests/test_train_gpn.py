"""The GPN family: what a row can see, and that neighbours in a batch and padding do not matter."""

from __future__ import annotations

import pytest
import torch

from glm_annotate.errors import InputError
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.families.gpn import GpnConfig

MODEL = {"vocabulary": 7, "dim": 8, "kernel": 5, "hidden": 12, "dilations": [1, 3]}
# Two convolutions of five bases: 2 * 1 + 2 * 3 bases to either side.
REACH = 8


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = FAMILIES["gpn"].build(MODEL)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return made.double().eval()


def rows(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(7, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_row_sees_as_far_as_reach_and_no_farther(network):
    assert GpnConfig.model_validate(MODEL).reach == REACH
    before = rows(1, 41)
    after = before.clone()
    after[0, 20] = (before[0, 20] + 1) % 7
    changed = (network(before) != network(after)).any(dim=-1)[0]
    assert changed.nonzero().flatten().tolist() == list(range(20 - REACH, 20 + REACH + 1))


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 40])
def test_batch_mates_do_not_matter(network, length):
    batch = rows(5, length)
    together = network(batch)
    assert together.shape == (5, length, 7)
    for one, expected in zip(batch, together, strict=True):
        torch.testing.assert_close(network(one[None])[0], expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_the_middle_does_not_know_the_length(network):
    long = rows(1, 60)
    short = long[:, 10:50]
    inner = slice(REACH, 40 - REACH)
    torch.testing.assert_close(
        network(short)[:, inner], network(long)[:, 10:50][:, inner], rtol=1e-12, atol=1e-12
    )


@torch.no_grad()
def test_padding_is_zeros_in_the_convolution(network):
    # A convolution of a block, against a sum over taps with bases past the ends left out.
    conv = network.blocks[1].conv
    x = torch.randn(1, 11, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weight = conv.weight.view(8, 8, 5)
    expected = conv.bias.expand(11, 8).clone()
    for t in range(11):
        for tap in range(5):
            source = t + 3 * (tap - 2)
            if 0 <= source < 11:
                expected[t] += weight[:, :, tap] @ x[0, source]
    torch.testing.assert_close(conv(x)[0], expected)


@torch.no_grad()
def test_embedding_and_logits_belong_together(network):
    batch = rows(2, 9)
    embedding = network.embed(batch)
    assert embedding.shape == (2, 9, network.dim)
    torch.testing.assert_close(network.decode(embedding), network(batch))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": 4}, r"model\.kernel: .*kernel must be odd; known here: dilations, dim"),
        ({"width": 3}, r"model\.width: .*known here: dilations, dim, hidden, kernel, vocabulary"),
        ({"dilations": []}, r"model\.dilations: "),
        ({"dim": 0}, r"model\.dim: "),
    ],
)
def test_a_bad_model_table(change, message):
    with pytest.raises(InputError, match=message):
        FAMILIES["gpn"].build({**MODEL, **change})
