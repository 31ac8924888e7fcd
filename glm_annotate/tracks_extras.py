"""What else `glm-annotate tracks` makes of the files that it has written: a hub, and a picture."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from glm_annotate.errors import UsageError
from glm_annotate.genome import Genome
from glm_annotate.hub import ALLELES, BASES, overlay_of, write_hub
from glm_annotate.hub_stanzas import HubGroup, HubTrack
from glm_annotate.track_files import is_track_file, track_kind
from glm_annotate.tracks_job import SIDES, TracksDone, TracksJob
from glm_annotate.tracks_written import Written

logger = logging.getLogger(__name__)

_MOST_OF_HUB = 2000  # tracks, more than which no browser lists well
_NO_WORD = re.compile(r"[^0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Extras:
    """What is made besides.

    Attributes:
        genome: UCSC's name of the assembly of a hub; None: no hub.
        email: Of the hub.
        plot: Picture; `region`: what it shows, as after -r; `gtf`: its genes.
    """

    genome: str | None = None
    email: str | None = None
    plot: str | None = None
    region: str | None = None
    gtf: str | None = None


def check_extras(job: TracksJob, extras: Extras) -> None:
    """Check, before the work, what can be checked.

    Raises:
        UsageError: Options contradict each other.
        InputError: The picture is there already.
    """
    if extras.genome is None and extras.email is None and extras.plot is None:
        return
    single = is_track_file(job.output)
    kind = track_kind(job.output if single else "x" + job.extension)
    if kind != "bigWig":
        raise UsageError("--hub and --plot are made of bigWigs; leave -O and the name at .bw")
    if extras.genome is not None and single:
        raise UsageError(f"--hub {extras.genome}: -o {job.output} is one file; name a folder")
    if (extras.genome is None) != (extras.email is None):
        raise UsageError("--hub and --email go together: UCSC asks for an address")
    if extras.plot is not None:
        from glm_annotate.tracks_plot import check_plot

        check_plot(job, extras.plot)


def write_extras(job: TracksJob, extras: Extras, done: TracksDone) -> Iterator[str]:
    """Write the hub and the picture, and say what was written.

    Raises:
        GlmAnnotateError: As `hub.write_hub` and `locus_plot.draw_locus`.
    """
    if extras.genome is not None and extras.email is not None:
        tracks = list(hub_tracks(job, done.written))
        if len(tracks) > _MOST_OF_HUB:
            raise UsageError(
                f"--hub {extras.genome}: {len(tracks)} tracks are more than a browser lists well "
                f"({_MOST_OF_HUB}); choose some with --track-regex or -r"
            )
        name = _NO_WORD.sub("_", os.path.basename(os.path.abspath(job.output))).strip("_")
        path = write_hub(
            job.output,
            name=name if name[:1].isalpha() else f"hub_{name}",
            short_label=name,
            long_label=f"glm_annotate: {', '.join(job.kinds)} of {', '.join(_tags(done.written))}",
            email=extras.email,
            genome=extras.genome,
            tracks=tracks,
            force=job.force,
        )
        yield f"{path}: track hub"
    if extras.plot is not None:
        from glm_annotate.tracks_plot import write_plot

        yield write_plot(job, extras, done, Genome(job.fasta))


def _tags(written: Sequence[Written]) -> list[str]:
    return list(dict.fromkeys(x.tag for x in written))


def hub_tracks(job: TracksJob, written: Sequence[Written]) -> Iterator[HubTrack]:
    """Describe the files of a run as tracks of a hub, in the order of their models."""
    groups: dict[tuple[str | int, ...], list[Written]] = {}
    for number, x in enumerate(written):
        groups.setdefault(_overlaid(x) or (number,), []).append(x)
    for group in groups.values():
        yield from _hub_tracks(job, group)


def _overlaid(x: Written) -> tuple[str, ...] | None:
    """Tell what is drawn in one overlay: bases of mutagenesis, or REF, ALT and their difference."""
    if x.kind in SIDES:
        return x.tag, x.allele, x.name
    return (x.tag, x.kind) if x.kind == "ism" and x.name in BASES else None


def _hub_tracks(job: TracksJob, group: Sequence[Written]) -> Iterator[HubTrack]:
    """Describe the files of an overlay, or a file by itself."""
    x = group[0]
    paths = [os.path.relpath(y.path, job.output) for y in group]
    if x.kind in SIDES:
        # The file's name is a word, and no two tracks have one.
        file = os.path.basename(x.path).partition(".")[0]
        word = _NO_WORD.sub("_", f"{x.tag}_{x.allele}_{file}")
        files = {y.kind: path for y, path in zip(group, paths, strict=True)}
        label = f"{x.tag} {x.allele}: {x.about}"
        yield from overlay_of(word, files, long_label=label, colours=ALLELES)
    elif _overlaid(x) is not None:
        files = {y.name: path for y, path in zip(group, paths, strict=True)}
        yield from overlay_of(f"{x.tag}_ism", files, long_label=f"{x.tag}, {x.about}")
    elif x.kind == "predict":
        shared = HubGroup(f"{x.tag}_predict", f"{x.tag}, predicted tracks")
        yield HubTrack(f"{x.tag}_{x.name}", paths[0], x.about, x.name, assay=x.assay, group=shared)
    else:
        name = f"{x.tag}_{x.kind}" if x.name == x.kind else f"{x.tag}_{x.kind}_{x.name}"
        yield HubTrack(name, paths[0], f"{x.tag}, {x.about}, {x.name}", name)
