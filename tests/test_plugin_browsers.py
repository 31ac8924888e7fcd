"""Files for JBrowse 2 and IGV: what they say, what JBrowse's command says, and IGV opens one."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import plugin_programs
import pyBigWig
import pytest

SCRIPT = plugin_programs.PLUGINS / "browsers" / "browser_files.py"
LENGTH = 16569


def write(browser, output, *arguments, cwd=None):
    return subprocess.run(
        [sys.executable, SCRIPT, browser, *map(str, arguments), "-o", output],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory, run_cli, example_dir):
    """A folder with the example genome, its scored variants, and bigWigs as `tracks` lays them."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("chrM.fa", "chrM.fa.fai"):
        (folder / name).write_bytes((example_dir / name).read_bytes())
    run_cli(
        "vcf", example_dir / "mtdna_variants.vcf", "-f", folder / "chrM.fa", "-m", "mito",
        "-o", folder / "scored.vcf.gz", "-W=tbi", check=True,
    )  # fmt: skip
    for i, name in enumerate(("entropy", "ism/A", "ism/C", "ism/G", "ism/T", "ism/mean")):
        path = folder / "tracks" / "MITO" / f"{name}.bw"
        path.parent.mkdir(parents=True, exist_ok=True)
        with pyBigWig.open(str(path), "w") as out:
            out.addHeader([("chrM", LENGTH)])
            out.addEntries("chrM", 3200, values=[float(i - 2)] * 100, span=1, step=1)
    return folder


def arguments(site):
    return ("-f", site / "chrM.fa", "--vcf", site / "scored.vcf.gz", "--tracks", site / "tracks")


def uris(node):
    if isinstance(node, dict):
        if "uri" in node:
            yield node["uri"]
        node = list(node.values())
    if isinstance(node, list):
        for x in node:
            yield from uris(x)


def test_jbrowse_config_names_every_file_once_and_relative(site):
    output = site / "config.json"
    assert write("jbrowse", output, *arguments(site), "--locus", "chrM:3200-3300").returncode == 0
    config = json.loads(output.read_text())
    named = list(uris(config))
    there = {str(x.relative_to(site)) for x in site.rglob("*") if x.is_file()} - {"config.json"}
    assert sorted(named) == sorted(there - {"session.xml"})
    (assembly,) = config["assemblies"]
    assert assembly["name"] == "chrM"
    kinds = [(x["type"], x["name"]) for x in config["tracks"]]
    assert kinds == [
        ("VariantTrack", "scored.vcf.gz"),
        ("QuantitativeTrack", "MITO entropy"),
        ("MultiQuantitativeTrack", "MITO ism"),
        ("QuantitativeTrack", "MITO ism mean"),
    ]
    four = config["tracks"][2]["adapter"]["subadapters"]
    assert [(x["source"], x["bigWigLocation"]["uri"]) for x in four] == [
        (base, f"tracks/MITO/ism/{base}.bw") for base in "ACGT"
    ]
    ids = [x["trackId"] for x in config["tracks"]]
    assert len(set(ids)) == 4
    assert all(x["assemblyNames"] == ["chrM"] for x in config["tracks"])
    (view,) = config["defaultSession"]["views"]
    assert view["init"] == {"assembly": "chrM", "loc": "chrM:3200-3300", "tracks": ids}


def test_paths_follow_the_output_and_addresses_stay(site):
    (site / "deep").mkdir(exist_ok=True)
    output = site / "deep" / "c.json"
    vcf = "https://example.org/x.vcf.gz"
    done = write("jbrowse", output, "-f", "chrM.fa", "--vcf", vcf, "--assembly", "b", cwd=site)
    assert done.returncode == 0, done.stderr
    config = json.loads(output.read_text())
    assert list(uris(config)) == ["../chrM.fa", "../chrM.fa.fai", vcf, f"{vcf}.tbi"]
    assert config["assemblies"][0]["name"] == "b"
    assert "defaultSession" not in config
    output.unlink()
    output.parent.rmdir()


def test_igv_session_has_every_track(site):
    output = site / "session.xml"
    assert write("igv", output, *arguments(site)).returncode == 0
    session = ET.parse(output).getroot()
    assert (session.get("genome"), session.get("locus")) == ("chrM.fa", "All")
    resources = {x.get("path") for x in session.iter("Resource")}
    leaves = [x for x in session.iter("Track") if not len(x)]
    assert {x.get("id") for x in leaves} == resources
    assert len(leaves) == 7
    (merged,) = session.findall("Panel/Track/Track/..")
    assert [x.get("name") for x in merged] == [f"MITO ism {base}" for base in "ACGT"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--vcf", "{}/none.vcf.gz"), "none.vcf.gz is not there"),
        (("--vcf", "{}/chrM.fa"), "has no index (.tbi or .csi"),
        (("--tracks", "{}/none"), "has no bigWig"),
    ],
)
def test_what_is_not_there_is_said(site, tmp_path, wrong, message):
    given = [x.format(site) for x in wrong]
    done = write("jbrowse", tmp_path / "c.json", "-f", site / "chrM.fa", *given)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "c.json").exists()


@pytest.mark.hosts
@pytest.mark.timeout(120)
def test_adapters_are_those_of_jbrowse_itself(site):
    jbrowse = plugin_programs.program("jbrowse", "npm install -g @jbrowse/cli")
    ours, theirs = site / "config.json", site / "jbrowse.json"
    assert write("jbrowse", ours, *arguments(site)).returncode == 0
    add = ["--load", "inPlace", "--target", theirs]
    calls = [
        ["add-assembly", "chrM.fa", "--name", "chrM", *add],
        ["add-track", "scored.vcf.gz", "--assemblyNames", "chrM", *add],
        ["add-track", "tracks/MITO/entropy.bw", "--assemblyNames", "chrM", *add],
    ]
    for call in calls:
        subprocess.run([jbrowse, *map(str, call)], cwd=site, check=True, capture_output=True)
    mine, known = json.loads(ours.read_text()), json.loads(theirs.read_text())
    theirs.unlink()
    key = "adapter"
    assert mine["assemblies"][0]["sequence"][key] == known["assemblies"][0]["sequence"][key]
    for i in (0, 1):
        track, other = mine["tracks"][i], known["tracks"][i]
        assert [track[x] for x in ("type", key)] == [other[x] for x in ("type", key)]


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Answers requests for ranges of bytes, as genome browsers send them."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not wanted or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        first = int(wanted[1])
        part = data[first : int(wanted[2]) + 1 if wanted[2] else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return self.wfile.write(part)


@pytest.mark.hosts
@pytest.mark.browser
@pytest.mark.timeout(180)
def test_igv_opens_the_session(site, repo_dir):
    browser_kit = pytest.importorskip("browser_kit")
    session = site / "session.xml"
    assert write("igv", session, *arguments(site), "--locus", "chrM:3210-3290").returncode == 0
    script = repo_dir / "glm_annotate" / "report_assets" / "igv.min.js"
    page = site / "page.html"
    page.write_text(
        '<!doctype html><meta charset="utf-8"><div id="root"></div>'
        f"<script>{script.read_text(encoding='utf-8')}</script><script>"
        'igv.createBrowser(root, {sessionURL: "session.xml"})'
        ".then(x => { window.opened = x; }, x => { window.failed = String(x); });</script>",
        encoding="utf-8",
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with browser_kit.chromium() as browser:
            view = browser.new_page()
            view.goto(f"http://127.0.0.1:{server.server_port}/page.html")
            view.wait_for_function("() => window.opened || window.failed", timeout=90_000)
            assert view.evaluate("() => window.failed") is None
            tracks = view.evaluate(
                "() => opened.trackViews.map(x => [x.track.type, x.track.name]).filter(x => x[1])"
            )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        page.unlink()
    assert sorted(map(tuple, tracks)) == [
        ("merged", "MITO ism"),
        ("variant", "scored.vcf.gz"),
        ("wig", "MITO entropy"),
        ("wig", "MITO ism mean"),
    ]
