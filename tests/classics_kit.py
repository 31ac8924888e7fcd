"""Official layouts of SATORI and the classics, random weights in them, and their networks anew.

The networks here are plain functional calls on weights under the authors' names, sharing nothing
with the package but the reading of the same descriptions: the oracle where no package with the
network can be installed. Shapes: one-hot bases (B, 4, L) in the model's order.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.interpolate import BSpline
from torch.nn import functional

from glm_annotate.train import graph
from glm_annotate.train.families.family import Source

NORM = ("weight", "bias", "running_mean", "running_var")


def conv(name, out, wide, *taps):
    return {f"{name}.weight": (out, wide, *taps), f"{name}.bias": (out,)}


def norm(name, wide):
    return {f"{name}.{part}": (wide,) for part in NORM} | {f"{name}.num_batches_tracked": ()}


def dense(name, out, wide):
    return {f"{name}.weight": (out, wide), f"{name}.bias": (out,)}


def deepsea_2015(widths=(320, 480, 960), rows=53, hidden=925, tracks=919):
    wide = (4, *widths)
    shapes = {}
    for i, number in enumerate((0, 4, 8)):
        shapes |= conv(f"{number}", wide[i + 1], wide[i], 1, 8)
    return shapes | dense("12.1", hidden, widths[-1] * rows) | dense("14.1", tracks, hidden)


def deepsea_selene(widths=(320, 480, 960), rows=53, tracks=919):
    wide = (4, *widths)
    shapes = {}
    for i, (number, after) in enumerate(((0, 3), (4, 7), (9, 11))):
        shapes |= conv(f"conv_net.{number}", wide[i + 1], wide[i], 8)
        shapes |= norm(f"conv_net.{after}", wide[i + 1])
    shapes |= dense("classifier.0", tracks, widths[-1] * rows) | norm("classifier.2", tracks)
    return shapes | dense("classifier.3", tracks, tracks)


def deepsea_plain(widths=(320, 480, 960), rows=53, tracks=919):
    wide, shapes = (4, *widths), {}
    for i in range(3):
        shapes |= conv(f"conv_net.{4 * i}", wide[i + 1], wide[i], 8)
    shapes |= dense("classifier.0", tracks, widths[-1] * rows)
    return shapes | dense("classifier.2", tracks, tracks)


def beluga(widths=(320, 480, 640), rows=106, hidden=2003, tracks=2002):
    shapes, wide = {}, 4
    for i, number in enumerate((0, 2, 6, 8, 12, 14)):
        shapes |= conv(f"model.0.{number}", widths[i // 2], wide, 1, 8)
        wide = widths[i // 2]
    shapes |= dense("model.1.2.1", hidden, wide * rows)
    return shapes | dense("model.1.4.1", tracks, hidden)


def lstm(name, hidden, wide, layer=0):
    shapes = {}
    for way in ("", "_reverse"):
        shapes |= {
            f"{name}.weight_ih_l{layer}{way}": (4 * hidden, wide),
            f"{name}.weight_hh_l{layer}{way}": (4 * hidden, hidden),
            f"{name}.bias_ih_l{layer}{way}": (4 * hidden,),
            f"{name}.bias_hh_l{layer}{way}": (4 * hidden,),
        }
    return shapes


def danq(width=320, kernel=26, rows=75, hidden=925, tracks=919):
    shapes = conv("nnet.0", width, 4, kernel) | lstm("bdlstm.0", width, width)
    shapes |= dense("classifier.1", hidden, 2 * width * rows)
    return shapes | dense("classifier.3", tracks, hidden)


def basset(widths=(300, 200, 200), rows=10, hidden=1000, tracks=164):
    wide = (4, *widths)
    shapes = {}
    for i, taps in enumerate((19, 11, 7)):
        shapes |= conv(f"{4 * i}", wide[i + 1], wide[i], taps, 1)
        shapes |= norm(f"{4 * i + 1}", wide[i + 1])
    shapes |= dense("13.1", hidden, widths[-1] * rows) | norm("14", hidden)
    shapes |= dense("17.1", hidden, hidden) | norm("18", hidden)
    shapes |= dense("21.1", tracks, hidden)
    # What Lua's layers became has no count of batches.
    return {name: x for name, x in shapes.items() if not name.endswith("num_batches_tracked")}


def sei(widths=(480, 640, 960), tracks=21907, splines=16):
    wide, shapes = (4, *widths), {}
    linear, rectified = ((0, 1), (2, 3), (2, 3)), ((0, 2), (1, 3), (1, 3))
    for i, width in enumerate(widths):
        first, second = linear[i]
        shapes |= conv(f"lconv{i + 1}.{first}", width, wide[i], 9)
        shapes |= conv(f"lconv{i + 1}.{second}", width, width, 9)
        for place in rectified[i]:
            shapes |= conv(f"conv{i + 1}.{place}", width, width, 9)
    for i in range(5):
        shapes |= conv(f"dconv{i + 1}.1", widths[-1], widths[-1], 5)
    shapes |= dense("classifier.0", tracks, widths[-1] * splines)
    return shapes | dense("classifier.2", tracks, tracks)


def bpnet(filters=64, layers=8, outputs=1, controls=0, kernel=21, profile=75, prefix=""):
    shapes = conv(f"{prefix}iconv", filters, 4, kernel)
    for i in range(layers):
        shapes |= conv(f"{prefix}rconvs.{i}", filters, filters, 3)
    shapes |= conv(f"{prefix}fconv", outputs, filters + controls, profile)
    return shapes | dense(f"{prefix}linear", 1, filters + bool(controls))


def satori(filters=200, taps=13, hidden=100, heads=8, wide=32, dim=100, classes=2):
    shapes = {"layer1.0.weight": (filters, 4, taps)} | norm("layer1.1", filters)
    seen = filters
    if hidden:
        seen = 2 * hidden
        shapes |= lstm("RNN", hidden, filters) | lstm("RNN", hidden, seen, layer=1)
    for part in "QKV":
        for head in range(heads):
            shapes |= dense(f"{part}.{head}", wide, seen)
    return shapes | dense("MultiHeadLinear", dim, heads * wide) | dense("fc3", classes, dim)


def numbers(shapes):
    """How many parameters a layout has, running statistics left out."""
    return sum(
        math.prod(shape) for name, shape in shapes.items() if "running" not in name and shape
    )


def filled(shapes, seed=0):
    """Random weights that leave nothing at 0 or 1; running statistics too."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
            continue
        noise = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            weights[name] = 0.5 + noise.abs()
        elif len(shape) > 1:
            weights[name] = noise * 1.5 / math.sqrt(math.prod(shape[1:]))
        else:
            weights[name] = 0.3 * noise + (1.0 if name.endswith("weight") else 0.0)
    return weights


def tempered(weights, prefix="", length=2114, profile=2.0, counts=5.0):
    """Scale the heads of a BPNet so that logits spread by 2 and log counts lie around 5."""
    filters = weights[f"{prefix}iconv.weight"].shape[0]
    last, total = f"{prefix}fconv.weight", f"{prefix}linear.weight"
    bare = {**weights, last: weights[last][:, :filters], total: weights[total][:, :filters]}
    for name in ("fconv.bias", "linear.bias"):
        bare[prefix + name] = torch.zeros(bare[prefix + name.replace("bias", "weight")].shape[0])
    logits, sums = run_bpnet(bare, one_hot(ids((4, length), 9), 0.0), prefix)
    scaled = {last: weights[last] * profile / logits.std()}
    return {**weights, **scaled, total: weights[total] * counts / sums.mean()}


def source_of(weights, config=None, folder=None):
    return Source("official", weights, config or {}, folder)


def ids(shape, seed=0, unknown=0.03):
    rng = np.random.default_rng(seed)
    rows = rng.integers(4, size=shape).astype(np.uint8)
    rows[rng.random(shape) < unknown] = 4
    return rows


def one_hot(rows, unknown):
    """(B, 4, L) of ids (B, L)."""
    table = torch.cat([torch.eye(4), torch.full((1, 4), unknown)])
    return table[torch.from_numpy(rows).long()].transpose(1, 2)


def worst(found, wanted):
    found, wanted = (torch.as_tensor(x).detach().double() for x in (found, wanted))
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    assert torch.isfinite(wanted).all()
    assert wanted.abs().max() > 1e-2  # two outputs that are all but 0 agree without meaning it
    return float((found - wanted).abs().max() / max(1.0, float(wanted.abs().max())))


def onnx_worst(network, folder, batches, *, wanted=None):
    """Export, and compare at each batch with torch, or with what `wanted` computes."""
    network.eval()
    path = folder / "model.onnx"
    graph.write_graph(network, path, "fp32")
    found = graph.run_graph(path, batches, attention=True)
    differences = []
    for batch, outputs in zip(batches, found, strict=True):
        expected = graph.run_torch(network, batch) if wanted is None else wanted(batch)
        assert outputs.keys() == expected.keys()
        differences += [worst(outputs[name], expected[name]) for name in outputs]
    return max(differences)


# The networks anew


def _conv(w, name, x, **how):
    weight = w[f"{name}.weight"]
    return functional.conv1d(x, weight.flatten(2), w.get(f"{name}.bias"), **how)


def _norm(w, name, x, eps=1e-5):
    weight, bias, mean, variance = (w[f"{name}.{part}"] for part in NORM)
    shape = (1, -1, *[1] * (x.ndim - 2))
    spread = torch.sqrt(variance + eps).view(shape)
    return (x - mean.view(shape)) / spread * weight.view(shape) + bias.view(shape)


def _dense(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _floor(x):
    return functional.threshold(x, 0, 1e-6)


def run_deepsea_2015(w, x):
    for number in ("0", "4", "8"):
        x = _floor(_conv(w, number, x))
        x = functional.max_pool1d(x, 4) if number != "8" else x
    return torch.sigmoid(_dense(w, "14.1", _floor(_dense(w, "12.1", x.flatten(1)))))


def run_deepsea_selene(w, x):
    short = {}
    for name, value in w.items():
        if value.ndim > 1:
            size = value.flatten(1).norm(dim=1).view(-1, *[1] * (value.ndim - 1))
            value = torch.where(size > 0.9, value * 0.9 / (size + 1e-7), value)
        short[name] = value
    for number, after, pooled in ((0, 3, True), (4, 7, True), (9, 11, False)):
        x = torch.relu(_conv(short, f"conv_net.{number}", x))
        x = functional.max_pool1d(x, 4) if pooled else x
        x = _norm(short, f"conv_net.{after}", x)
    x = torch.relu(_dense(short, "classifier.0", x.flatten(1)))
    return torch.sigmoid(_dense(short, "classifier.3", _norm(short, "classifier.2", x)))


def run_deepsea_plain(w, x):
    for number in (0, 4, 8):
        x = torch.relu(_conv(w, f"conv_net.{number}", x))
        x = functional.max_pool1d(x, 4) if number < 8 else x
    x = torch.relu(_dense(w, "classifier.0", x.flatten(1)))
    return torch.sigmoid(_dense(w, "classifier.2", x))


def run_beluga(w, x):
    for number in (0, 2, 6, 8, 12, 14):
        x = torch.relu(_conv(w, f"model.0.{number}", x))
        x = functional.max_pool1d(x, 4) if number in (2, 8) else x
    x = torch.relu(_dense(w, "model.1.2.1", x.flatten(1)))
    return torch.sigmoid(_dense(w, "model.1.4.1", x))


def _recur(w, name, rows, layer, way):
    """One direction of an LSTM over rows (B, T, C), step by step."""
    hidden = w[f"{name}.weight_hh_l{layer}{way}"].shape[1]
    state = cell = torch.zeros(rows.shape[0], hidden)
    steps = range(rows.shape[1])
    out = {}
    for t in reversed(steps) if way else steps:
        gates = rows[:, t] @ w[f"{name}.weight_ih_l{layer}{way}"].T
        gates = gates + state @ w[f"{name}.weight_hh_l{layer}{way}"].T
        gates = gates + w[f"{name}.bias_ih_l{layer}{way}"] + w[f"{name}.bias_hh_l{layer}{way}"]
        enter, forget, new, leave = gates.chunk(4, dim=1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        state = torch.sigmoid(leave) * torch.tanh(cell)
        out[t] = state
    return torch.stack([out[t] for t in steps], dim=1)


def both_ways(w, name, rows, layer=0):
    return torch.cat([_recur(w, name, rows, layer, way) for way in ("", "_reverse")], dim=2)


def run_danq(w, x, *, alone=False, pool=13):
    x = functional.max_pool1d(torch.relu(_conv(w, "nnet.0", x)), pool)
    rows = x.transpose(1, 2)
    if alone:
        parts = [both_ways(w, "bdlstm.0", rows[:, t : t + 1]) for t in range(rows.shape[1])]
        rows = torch.cat(parts, dim=1)
    else:
        rows = both_ways(w, "bdlstm.0", rows)
    x = torch.relu(_dense(w, "classifier.1", rows.flatten(1)))
    return torch.sigmoid(_dense(w, "classifier.3", x))


def run_basset(w, x):
    for i, pool in enumerate((3, 4, 4)):
        x = torch.relu(_norm(w, f"{4 * i + 1}", _conv(w, f"{4 * i}", x)))
        x = functional.max_pool1d(x, pool)
    x = torch.relu(_norm(w, "14", _dense(w, "13.1", x.flatten(1))))
    x = torch.relu(_norm(w, "18", _dense(w, "17.1", x)))
    return torch.sigmoid(_dense(w, "21.1", x))


def run_sei(w, x):
    def pair(x, first, second, act):
        return act(_conv(w, second, act(_conv(w, first, x, padding=4)), padding=4))

    def same(x):
        return x

    a1 = pair(x, "lconv1.0", "lconv1.1", same)
    b1 = pair(a1, "conv1.0", "conv1.2", torch.relu)
    a2 = pair(functional.max_pool1d(a1 + b1, 4), "lconv2.2", "lconv2.3", same)
    b2 = pair(a2, "conv2.1", "conv2.3", torch.relu)
    a3 = pair(functional.max_pool1d(a2 + b2, 4), "lconv3.2", "lconv3.3", same)
    b3 = pair(a3, "conv3.1", "conv3.3", torch.relu)
    x = b3 + torch.relu(_conv(w, "dconv1.1", a3 + b3, dilation=2, padding=4))
    for name, step in (("dconv2.1", 4), ("dconv3.1", 8), ("dconv4.1", 16), ("dconv5.1", 25)):
        x = x + torch.relu(_conv(w, name, x, dilation=step, padding=2 * step))
    count = w["classifier.0.weight"].shape[1] // x.shape[1]
    x = x @ torch.from_numpy(splines(x.shape[2], count)).float()
    x = torch.relu(_dense(w, "classifier.0", x.flatten(1)))
    return torch.sigmoid(_dense(w, "classifier.2", x))


def splines(rows, functions):
    """The basis by scipy: knots at evenly spaced percentiles of the rows, ends repeated."""
    x = np.arange(rows, dtype=float)
    inner = np.percentile(x, 100 * np.linspace(0, 1, functions - 2)[1:-1])
    knots = np.concatenate([[0.0] * 4, inner, [rows - 1.0] * 4])
    return BSpline.design_matrix(x, knots, 3).toarray()


def run_satori(w, x, *, alone, pool=6, exp=False):
    """Logits (B, classes) and maps (B, heads, T, T), window by window."""
    pad = w["layer1.0.weight"].shape[2] // 2
    x = _norm(w, "layer1.1", _conv(w, "layer1.0", x, padding=pad))
    x = functional.max_pool1d(torch.exp(x) if exp else torch.relu(x), pool)
    logits, maps = zip(*(_attend(w, one.T[None], alone) for one in x), strict=True)
    return torch.cat(logits), torch.cat(maps)


def _attend(w, rows, alone):
    for layer in range(2 if "RNN.weight_ih_l0" in w else 0):
        if alone:
            parts = [both_ways(w, "RNN", rows[:, t : t + 1], layer) for t in range(rows.shape[1])]
            rows = torch.cat(parts, dim=1)
        else:
            rows = both_ways(w, "RNN", rows, layer)
    joined, maps = [], []
    for head in range(sum(name.startswith("Q.") and "weight" in name for name in w)):
        q, k, v = (_dense(w, f"{part}.{head}", rows) for part in "QKV")
        shares = torch.exp(q @ k.transpose(1, 2) / math.sqrt(q.shape[2]))
        shares = shares / shares.sum(2, keepdim=True)
        joined.append(torch.relu(shares @ v))
        maps.append(shares)
    z = torch.relu(_dense(w, "MultiHeadLinear", torch.cat(joined, dim=2))).sum(1)
    return _dense(w, "fc3", (z - z.mean()) / z.std()), torch.stack(maps, dim=1)


def run_bpnet(w, x, prefix=""):
    """Profile logits (B, outputs, L - 2 trimming) and log counts (B, 1), with valid padding only.

    An oracle of another kind: nothing is padded, so that what reaches past the edges would show.
    """
    x = torch.relu(_conv(w, f"{prefix}iconv", x))
    layers = sum(name.startswith(f"{prefix}rconvs") and "weight" in name for name in w)
    for i in range(layers):
        step = 2 ** (i + 1)
        y = torch.relu(_conv(w, f"{prefix}rconvs.{i}", x, dilation=step))
        x = x[:, :, step : x.shape[2] - step] + y
    return _conv(w, f"{prefix}fconv", x), _dense(w, f"{prefix}linear", x.mean(2))
