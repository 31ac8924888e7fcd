"""What a bundle of a supervised run says: its card and its tracks, from the config alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from glm_annotate.card import Provenance
from glm_annotate.errors import InputError
from glm_annotate.track_table import Track, TrackTable
from glm_annotate.track_transforms import NO_TRANSFORM
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.families.predictor import Predicted, Predictor
from glm_annotate.train.supervised.config import (
    LabelsConfig,
    RegressionConfig,
    SpeciesConfig,
    SupervisedConfig,
    TrackConfig,
)
from glm_annotate.train.supervised.stored import transform_of

if TYPE_CHECKING:
    from glm_annotate.train.checkpoints import Checkpoint


def track_table(config: SupervisedConfig) -> TrackTable:
    """List the tracks of all species, or of the columns of a table, in the network's order.

    Raises:
        InputError: There is none, an identifier stands twice, strand pairs are not mutual, or the
            table of targets has not been read.
    """
    if config.tracks is not None:
        tracks = [_track(x, s) for s in config.tracks.species for x in _listed(s)]
    elif config.regression is not None:
        tracks = [_number(name, config.regression) for name in _values(config.regression)]
    elif config.labels is not None:
        tracks = [Track(name, units="probability") for name in _classes(config.labels)]
    else:
        raise InputError("supervised.contacts: maps have no table of tracks")
    if not tracks:
        raise InputError("supervised: no tracks; list them, or name a table of targets")
    try:
        return TrackTable(tuple(tracks))
    except ValueError as error:
        raise InputError(f"supervised: {error}") from error


def _listed(species: SpeciesConfig) -> tuple[TrackConfig, ...]:
    if species.targets is not None:
        raise InputError(
            f"{species.targets}: the table of targets has not been read into the config"
        )
    return species.track


def _values(config: RegressionConfig) -> tuple[str, ...]:
    return config.value if config.table else config.key


def _classes(config: LabelsConfig) -> tuple[str, ...]:
    if not config.classes:
        raise InputError("supervised.labels.classes: name them, in the order of the tracks")
    return config.classes


def _track(track: TrackConfig, species: SpeciesConfig) -> Track:
    squashed = track.version != "none" and not track.log1p
    assay, _, rest = track.description.partition(":")
    return Track(
        track.identifier,
        track.description,
        track.assay or assay.strip(),
        track.biosample or rest.strip() or species.name,
        track.strand_pair,
        "log(1 + value)" if track.log1p else track.units,
        transform=transform_of(track) if squashed else NO_TRANSFORM,
        clip_soft=track.clip_soft if squashed else None,
        scale=track.scale if squashed and track.scale != 1 else None,
    )


def _number(name: str, config: RegressionConfig) -> Track:
    shift = f" - {config.offset:g}" if config.offset else ""
    units = f"({name}{shift}) x {config.scale:g}" if shift or config.scale != 1 else name
    return Track(name, units=units)


def tracks_of(config: SupervisedConfig) -> tuple[Mapping[str, str], ...]:
    """Give the rows of tracks.tsv, as `Predicted.tracks` has them; none for contact maps.

    Raises:
        InputError: See `track_table`.
    """
    if config.contacts is not None:
        return ()
    rows = []
    for track in track_table(config).tracks:
        values: dict[str, str | float | None] = {
            "identifier": track.identifier,
            "description": track.description,
            "assay": track.assay,
            "biosample": track.biosample,
            "strand_pair": track.strand_pair,
            "units": track.units,
            "transform": track.transform.text,
            "clip_soft": track.clip_soft,
            "scale": track.scale,
        }
        rows.append({key: str(x) for key, x in values.items() if x not in (None, "")})
    return tuple(rows)


def supervised_run(
    path: str, state: Checkpoint, context: int | None = None
) -> tuple[Predicted, Callable[[Provenance], dict[str, Any]]]:
    """Make what is exported of a supervised run: its averaged weights, card and tracks.

    Args:
        path: How messages call the checkpoint.
        state: The checkpoint.
        context: Bases of the window that the user asked for; None: as trained.

    Returns:
        The predictor, and what completes the provenance that an author wrote.

    Raises:
        InputError: The weights do not fit the config, or another window is asked for.
    """
    run = state.settings()
    config, family = run.supervised, FAMILIES[run.family]
    network = family.build(run.model)
    if config is None or not isinstance(network, Predictor):
        raise InputError(f"{path}: not a run with [supervised]")
    try:
        network.load_state_dict(state.average)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: the weights do not fit its own config: {reason}") from error
    network.eval()
    card = card_of_run(config, network)
    if context not in (None, card["context"]):
        raise InputError(
            f"{path}: found --context {context}, the network was trained on windows of "
            f"{card['context']} bases; leave --context out"
        )
    tag = re.sub(r"^[0-9]+|[^A-Z0-9]", "", run.name.upper()) or "TRACKS"
    named = {"name": run.name, "tag": tag, "logits_shift": 0, **card}

    def provenance(given: Provenance) -> dict[str, Any]:
        own = {
            "step": state.step,
            "windows": state.step * run.optim.batch,
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "training_hours": round(state.seconds / 3600, 3),
            "held_out_figures": {k: round(v, 5) for k, v in sorted(state.quality.items())},
            "sha256_of_data": dict(state.data),
        }
        held_out = "; ".join(f"{k}: {', '.join(names)}" for k, names in state.valid.items())
        return {
            **given.model_dump(),
            "citation": given.citation or family.citation,
            "held_out": " ".join(x for x in (given.held_out, held_out) if x),
            "quality": {**given.quality, **own},
            "compute_pfs_days": float(f"{state.compute.get('pfs_days_6nd', 0.0):.4g}"),
        }

    return Predicted((network,), named, tracks_of(config)), provenance


def card_of_run(config: SupervisedConfig, network: Predictor) -> dict[str, Any]:
    """Give the card keys that a supervised run determines: encoder, window, bins, strand, scores.

    Raises:
        InputError: The network does not fit the config.
    """
    # Here, because `windows` runs the network and the table alone does not need it.
    from glm_annotate.train.supervised.windows import ENCODER, shape_of

    encoder = ENCODER.model_dump(mode="json", exclude_none=True)
    length = int(network.length or 0)
    card: dict[str, Any] = {
        "context": length,
        "anchor": max(length // 2 - 1, 0),
        "encoder": encoder,
        "strand": "both",
    }
    if config.contacts is not None:
        return card | _contacts_card(config, network, encoder)
    shape = shape_of(network, config.tracks.bin if config.tracks else None)
    if shape.bins == 1:
        scores = ("SAD", "LFC") if config.labels is not None else ("SAD",)
    else:
        scores = ("LOGSED", "SAD")
    return card | {
        "bin_size": shape.size,
        "crop": shape.crop // shape.size,
        "scores": list(scores),
    }


def _contacts_card(
    config: SupervisedConfig, network: Predictor, encoder: dict[str, Any]
) -> dict[str, Any]:
    from glm_annotate.train.supervised.maps import map_shape

    contacts = config.contacts
    if contacts is None:
        raise InputError("supervised.contacts: missing")
    shape = map_shape(network, contacts)
    channels = [
        {"name": x.name, "source": "bigwig", "transform": x.transform, "missing": x.missing}
        for x in contacts.signals
    ]
    upper = network.outputs["contacts"][1] == "pair"
    return {
        "encoder": encoder | ({"channels": channels} if channels else {}),
        "crop": shape.crop,
        "contacts": {
            "bin_size": shape.size,
            "diagonal": shape.diagonal,
            "layout": "upper" if upper else "square",
            "symmetric": upper,
        },
        "scores": ["CONTACT_L1", "INSULATION"],
    }
