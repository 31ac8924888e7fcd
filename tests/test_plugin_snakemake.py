"""plugins/snakemake: wrappers and workflow, run by Snakemake where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from workflow_kit import PLUGINS, SITES, check_shards, cut, host, make_inputs, run, scored_text

SNAKEMAKE = PLUGINS / "snakemake"
WRAPPERS = SNAKEMAKE / "wrappers"
SNAKEFILE = SNAKEMAKE / "workflow" / "Snakefile"
PROFILES = sorted(path.parent.name for path in SNAKEMAKE.glob("profiles/*/config.yaml"))
NAMES = sorted(path.parent.name for path in WRAPPERS.glob("bio/glm_annotate/*/wrapper.py"))


@pytest.mark.parametrize("name", NAMES)
def test_wrapper_has_the_layout_of_the_wrapper_repository(name):
    folder = WRAPPERS / "bio" / "glm_annotate" / name
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    assert meta["name"] == f"glm_annotate {name}"
    assert set(meta) >= {"description", "authors", "input", "output", "params", "notes"}
    environment = yaml.safe_load((folder / "environment.yaml").read_text())
    assert environment["channels"] == ["conda-forge", "bioconda", "nodefaults"]
    code = (folder / "wrapper.py").read_text()
    compile(code, "wrapper.py", "exec")
    for line in ("__author__", "__license__", "snakemake.log_fmt_shell"):
        assert line in code
    # What the code reads is described, and the other way round.
    for kind in ("input", "output", "params"):
        described = {next(iter(x)) for x in meta[kind]}
        read = set(re.findall(rf"snakemake\.{kind}\.(?!get\b)(\w+)", code))
        read |= set(re.findall(rf'snakemake\.{kind}\.get\("(\w+)"', code))
        loops = re.findall(rf"for name in \((.*?)\):\n +options \+= .*{kind}\.get\(name\)", code)
        read |= {x for loop in loops for x in re.findall(r'"(\w+)"', loop)}
        assert read == described
    assert f'"master/bio/glm_annotate/{name}"' in (folder / "test" / "Snakefile").read_text()


def test_configuration_fits_its_schema():
    schema = yaml.safe_load((SNAKEMAKE / "workflow" / "config.schema.yaml").read_text())
    config = yaml.safe_load((SNAKEMAKE / "config" / "config.yaml").read_text())
    assert set(config) == set(schema["properties"])
    used = set(re.findall(r"config\[[\"'](\w+)[\"']\]", SNAKEFILE.read_text()))
    assert used == set(config)


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_speak_of_rules_that_exist(profile):
    settings = yaml.safe_load((SNAKEMAKE / "profiles" / profile / "config.yaml").read_text())
    assert settings["executor"] == profile
    rules = re.findall(r"^rule (\w+):", SNAKEFILE.read_text(), re.MULTILINE)
    assert set(settings["set-resources"]) == {"score"} <= set(rules)


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
@pytest.mark.parametrize("shards", [1, 4])
def test_shards(sites, shards, tmp_path):
    program = re.search(r"awk -v records.*? '(.*?)'\n", SNAKEFILE.read_text(), re.DOTALL)
    assert program is not None
    files = [str(tmp_path / f"{i}-of-{shards}.bed") for i in range(1, shards + 1)]
    text = program[1].replace("{{", "{").replace("}}", "}")
    beds = cut(text, sites, tmp_path, records=len(sites), files=" ".join(files))
    assert [str(x) for x in beds] == files
    check_shards(beds, sites, max(1, -(-len(sites) // shards)))


# --- run by Snakemake --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, example_dir):
    return make_inputs(tmp_path_factory.mktemp("inputs"), example_dir, 24)


def configured(folder: Path) -> list[str]:
    (folder / "config.yaml").write_text(
        "calls: {mtdna: calls.vcf.gz}\nref: genome.fa\nmodels: [mito]\n"
        "extra: --no-version\nshards: 3\n"
    )
    return [host("snakemake"), "-s", str(SNAKEFILE), "--configfile", "config.yaml"]


@pytest.mark.hosts
@pytest.mark.timeout(300)
def test_workflow_runs_on_this_machine(inputs, tmp_path):
    inputs.copy(tmp_path)
    run([*configured(tmp_path), "--cores", "1", "--set-threads", "score=1"], tmp_path)
    assert scored_text(tmp_path / "results" / "mtdna.vcf.gz") == inputs.expected
    assert (tmp_path / "results" / "mtdna.vcf.gz.csi").exists()
    summaries = sorted((tmp_path / "results" / "summaries").glob("*.json"))
    assert sum(json.loads(x.read_text())["records"] for x in summaries) == 25


@pytest.mark.hosts
@pytest.mark.timeout(300)
def test_wrappers_run(inputs, tmp_path):
    inputs.copy(tmp_path)
    shutil.copy(tmp_path / "calls.vcf.gz", tmp_path / "a.vcf")
    (tmp_path / "regions.bed").write_text("chrM\t3239\t3250\n")
    for name, target in (("vcf", "scored/a.vcf.gz"), ("tracks", "entropy.bw")):
        text = (WRAPPERS / "bio" / "glm_annotate" / name / "test" / "Snakefile").read_text()
        (tmp_path / "Snakefile").write_text(text.replace('"master/', f'"file://{WRAPPERS}/'))
        run([host("snakemake"), "--cores", "1", target], tmp_path)
        assert (tmp_path / target).stat().st_size > 300
    assert scored_text(tmp_path / "scored" / "a.vcf.gz") == inputs.expected
    assert len((tmp_path / "scored" / "a.tsv").read_text().splitlines()) > 25


@pytest.mark.hosts
@pytest.mark.timeout(180)
def test_snakefiles_are_formatted_and_linted(tmp_path):
    files = [SNAKEFILE, *WRAPPERS.glob("bio/glm_annotate/*/test/Snakefile")]
    run([host("snakefmt"), "--check", *map(str, files)], tmp_path)
    for name in ("calls.vcf.gz", "calls.vcf.gz.tbi", "genome.fa"):
        (tmp_path / name).touch()
    assert "good condition" in run([*configured(tmp_path), "--lint"], tmp_path)


# A folder stands for the bucket: jobs of these executors share no file system.
STORE = ["--default-storage-provider", "fs", "--default-storage-prefix", "store"]
MORE = {
    "slurm": [],
    "kubernetes": STORE,
    "aws-batch": [*STORE, "--aws-batch-job-queue", "queue", "--aws-batch-job-role", "role"],
}


@pytest.mark.hosts
@pytest.mark.timeout(180)
@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_plan_the_workflow(profile, tmp_path):
    (tmp_path / "store").mkdir()
    for folder in (tmp_path, tmp_path / "store"):
        for name in ("calls.vcf.gz", "calls.vcf.gz.tbi", "genome.fa"):
            (folder / name).touch()
    command = [*configured(tmp_path), "--profile", str(SNAKEMAKE / "profiles" / profile)]
    # The executor and its options are known to Snakemake only where its plugin is installed.
    modules = [
        f"snakemake_executor_plugin_{profile.replace('-', '_')}",
        "snakemake_storage_plugin_fs",
    ]
    python = str(Path(command[0]).parent / "python")
    for module in modules:
        found = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
        if found.returncode:
            pytest.skip(f"{module} is not installed")
    out = run([*command, *MORE[profile], "--dry-run"], tmp_path)
    resources = re.findall(r"rule score:.*?resources: (.*?)\n", out, re.DOTALL)
    assert len(resources) == 3
    wanted = {"slurm": "gres=gpu:1", "kubernetes": "gpu=1", "aws-batch": "_gpus=1"}[profile]
    assert all(wanted in line.split(", ") for line in resources)


@pytest.mark.hosts
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_slurm_profile_runs_with_a_gpu_each(inputs, tmp_path):
    """On the cluster that `tests/one_node_slurm.sh` makes, whose GPUs are none."""
    for program in ("sinfo", "squeue", "scontrol"):
        host(program)
    if subprocess.run(["sinfo", "-h"], capture_output=True, check=False).returncode:
        pytest.skip("no Slurm answers; as root: bash tests/one_node_slurm.sh start FOLDER")
    inputs.copy(tmp_path)
    command = [*configured(tmp_path), "--profile", str(SNAKEMAKE / "profiles" / "slurm")]
    command += ["--set-threads", "score=1", "--set-resources", "score:mem_mb=1000"]
    command += ["score:runtime=10", "score:gres='gpu:1'", "--latency-wait", "10"]
    command += ["--slurm-status-command", "squeue", "--slurm-keep-successful-logs"]
    command += ["--slurm-init-seconds-before-status-checks", "5"]
    command += ["--seconds-between-status-checks", "5", "--slurm-no-account"]
    before = subprocess.run(
        ["scontrol", "show", "jobs"], capture_output=True, text=True, check=True
    )
    run(command, tmp_path)
    assert scored_text(tmp_path / "results" / "mtdna.vcf.gz") == inputs.expected
    jobs = subprocess.run(["scontrol", "show", "jobs"], capture_output=True, text=True, check=True)
    ours = [x for x in jobs.stdout.split("\n\n") if x and x not in before.stdout]
    with_gpu = [x for x in ours if "TresPerNode=gres:gpu:1" in x and "JobState=COMPLETED" in x]
    assert len(with_gpu) == 3, jobs.stdout
