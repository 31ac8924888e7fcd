"""plugins/nextflow: what Nextflow would run is run here, and files agree with nf-core's rules.

Nextflow itself is on no registry that the tests reach, so its part (channels, staging) is parsed
only: `pytest -m hosts` with Debian's groovy. The scripts of the processes are run as they are.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from workflow_kit import PLUGINS, SITES, Inputs, check_shards, cut, host, make_inputs, run
from workflow_kit import scored_text as text_of

from glm_annotate import __version__

NEXTFLOW = PLUGINS / "nextflow"
MODULES = NEXTFLOW / "modules" / "nf-core" / "glmannotate"
NAMES = sorted(path.name for path in MODULES.iterdir())
SUBWORKFLOW = NEXTFLOW / "subworkflows" / "nf-core" / "vcf_annotate_glmannotate"


def source(name: str) -> str:
    return (MODULES / name / "main.nf").read_text()


def script(name: str, block: str, **values: object) -> str:
    """Give the Bash of a process, as Groovy makes it of the block `script` or `stub`."""
    _, _, rest = source(name).partition(f"\n    {block}:\n")
    groovy = rest.split('"""')[1]
    unknown = set(re.findall(r"(?<!\\)\$\{([^}]*)\}", groovy)) - set(values)
    assert not unknown, f"{name}: no value for {unknown}"
    filled = re.sub(r"(?<!\\)\$\{([^}]*)\}", lambda m: str(values[m[1]]), groovy)
    return re.sub(r"\\(.)", lambda m: {"t": "\t", "n": "\n"}.get(m[1], m[1]), filled)


def bash(command: str, folder: Path) -> str:
    (folder / "command.sh").write_text(command)
    return run([host("bash"), "-euo", "pipefail", "command.sh"], folder)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, example_dir: Path) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), example_dir, 24)


# --- the files ---------------------------------------------------------------------------------


def emitted(name: str) -> list[str]:
    return re.findall(r"emit: (\w+)", source(name))


@pytest.mark.parametrize("name", NAMES)
def test_meta_describes_the_channels(name):
    meta = yaml.safe_load((MODULES / name / "meta.yml").read_text())
    assert meta["name"] == f"glmannotate_{name}"
    assert sorted(meta["output"]) == sorted(emitted(name))
    block = source(name).partition("    input:\n")[2].partition("\n\n")[0]
    declared = [re.findall(r"(?:val|path)[( ](\w+)", line) for line in block.splitlines()]
    described = [
        [next(iter(x)) for x in channel] if isinstance(channel, list) else list(channel)
        for channel in meta["input"]
    ]
    assert described == declared
    # Versions go to the topic, with the command that prints them.
    command = re.search(r'eval\("(.*?)"\), topic: versions', source(name))
    assert command is not None
    assert command[1] in meta["topics"]["versions"][0][2]
    for channel in (x for x in meta["output"].values() if isinstance(x, list)):
        for element in channel[0]:
            assert all(value["type"] and value["description"] for value in element.values())


@pytest.mark.parametrize("name", NAMES)
def test_modules_have_what_nf_core_asks_for(name):
    text = source(name)
    assert text.startswith(f"process GLMANNOTATE_{name.upper()} {{\n")
    assert "task.ext.when == null || task.ext.when" in text
    assert "\n    stub:\n" in text
    assert "topic: versions" in text
    assert re.findall(r"label '(\w+)'", text)[0].startswith("process_")
    assert ("label 'process_gpu'" in text) == (name in ("vcf", "tracks"))
    environment = yaml.safe_load((MODULES / name / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "bioconda"]
    assert all(re.fullmatch(r"bioconda::\w+=[\d.]+", x) for x in environment["dependencies"])
    test = (MODULES / name / "tests" / "main.nf.test").read_text()
    assert f'process "GLMANNOTATE_{name.upper()}"' in test
    assert f'tag "glmannotate/{name}"' in test
    assert 'options "-stub"' in test


def test_version_command_prints_the_version(tmp_path):
    command = re.search(r'eval\("(glm-annotate.*?)"\)', source("vcf"))
    assert command is not None
    assert bash(command[1], tmp_path).strip() == __version__


def test_subworkflow_uses_the_modules_as_they_are():
    text = (SUBWORKFLOW / "main.nf").read_text()
    meta = yaml.safe_load((SUBWORKFLOW / "meta.yml").read_text())
    included = dict(re.findall(r"include \{ (\w+)\s*\} from '(.*?)'", text))
    assert sorted(meta["components"]) == sorted(
        path.removeprefix("../../../modules/nf-core/").removesuffix("/main")
        for path in included.values()
    )
    for process, path in included.items():
        module = (SUBWORKFLOW / f"{path}.nf").resolve()
        assert f"process {process} {{" in module.read_text()
        for output in re.findall(rf"{process}\.out\.(\w+)", text):
            assert output in emitted(module.parent.name)
    take = re.findall(r"^    (\w+) +//", text.partition("take:")[2].partition("main:")[0], re.M)
    assert [next(iter(x)) for x in meta["input"]] == take
    emit = re.findall(r"^    (\w+) += ", text.partition("emit:")[2], re.M)
    assert [next(iter(x)) for x in meta["output"]] == emit


# --- the scripts -------------------------------------------------------------------------------


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
@pytest.mark.parametrize("per", [1, 3, 1000])
def test_shards(sites, per, tmp_path):
    text = script("shards", "script", args="", vcf="x", records=per)
    program = re.search(r"awk -v per=\d+ '(.*?)' sites.tsv", text, re.DOTALL)
    assert program is not None
    check_shards(cut(program[1], sites, tmp_path, per=per), sites, per)


def test_scripts_score_shards_and_gather_them(inputs, tmp_path):
    inputs.copy(tmp_path)
    text = script("shards", "script", args="", vcf="calls.vcf.gz", records=8)
    assert "shard" in text
    bash(text, tmp_path)
    beds = sorted(tmp_path.glob("shard_*.bed"))
    assert len(beds) == 3
    (tmp_path / "shards").mkdir()
    for bed in beds:
        values = {
            "fasta": "genome.fa",
            "model": "",
            "where": f"--regions-file {bed.name} --targets-file {bed.name}",
            "device": "cpu",
            "task.cpus": 1,
            "prefix": f"test.{bed.stem}",
            "extension": "vcf.gz",
            "args": "-m mito --no-version",
            "vcf": "calls.vcf.gz",
        }
        bash(script("vcf", "script", **values), tmp_path)
        shutil.move(tmp_path / f"test.{bed.stem}.vcf.gz", tmp_path / "shards")
        assert (tmp_path / f"test.{bed.stem}.glm_annotate.json").stat().st_size > 0
    gather = script(
        "gather",
        "script",
        **{"args": "", "args2": "--tbi", "prefix": "test", "vcf": "calls.vcf.gz", "task.cpus": 1},
    )
    bash(gather, tmp_path)
    assert text_of(tmp_path / "test.vcf.gz") == inputs.expected
    assert (tmp_path / "test.vcf.gz.tbi").exists()
    # A shard that is missing is found out.
    for path in (tmp_path / "shards" / "test.shard_00002.vcf.gz", *tmp_path.glob("test.vcf.gz*")):
        path.unlink()
    with pytest.raises(AssertionError, match="has 25 records, its shards have"):
        bash(gather, tmp_path)


def test_script_of_tracks(inputs, tmp_path):
    inputs.copy(tmp_path)
    values = {
        "fasta": "genome.fa",
        "model": "",
        "kinds": "entropy",
        "device": "cpu",
        "task.cpus": 1,
        "prefix": "test",
        "args": "-m mito -r chrM:3240-3250",
        "where": "",
    }
    bash(script("tracks", "script", **values), tmp_path)
    assert [x.name for x in (tmp_path / "test").rglob("*.bw")] == ["entropy.bw"]


@pytest.mark.parametrize(
    ("name", "values", "files"),
    [
        (
            "vcf",
            {"create": "touch", "create_index": "", "prefix": "a", "extension": "bcf"},
            ["a.bcf", "a.glm_annotate.json"],
        ),
        ("tracks", {"prefix": "a"}, ["entropy.bw"]),
        ("shards", {}, ["shard_00001.bed", "shard_00002.bed"]),
        (
            "gather",
            {"prefix": "a", "args2 =~ /(--tbi|-t)/ ? 'tbi' : 'csi'": "tbi"},
            ["a.vcf.gz", "a.vcf.gz.tbi"],
        ),
    ],
)
def test_stubs(name, values, files, tmp_path):
    bash(script(name, "stub", **values), tmp_path)
    made = [x for x in tmp_path.rglob("*") if x.is_file() and x.name != "command.sh"]
    assert sorted(x.name for x in made) == files


# --- the language ------------------------------------------------------------------------------

PARSE = """
import org.codehaus.groovy.control.*
args.each { name ->
    def unit = new CompilationUnit()
    unit.addSource(new File(name))
    unit.compile(Phases.CONVERSION)
    println "parsed ${name}"
}
"""


@pytest.mark.hosts
def test_groovy_parses_everything(tmp_path):
    groovy = host("groovy")
    java = shutil.which("java")
    if java is None:
        pytest.skip("java is not installed")
    files = []
    for path in sorted(NEXTFLOW.rglob("*")):
        if path.suffix not in (".nf", ".test", ".config"):
            continue
        # Debian's Groovy is older than Nextflow's and knows no line break within "${}".
        text = re.sub(
            r'(container )"\$\{.*?\}"\n', r'\1"x"' + "\n", path.read_text(), flags=re.DOTALL
        )
        files.append(tmp_path / "_".join(path.relative_to(NEXTFLOW).parts))
        files[-1].write_text(text)
    (tmp_path / "Parse.groovy").write_text(PARSE)
    home = str(Path(os.path.realpath(java)).parent.parent)
    out = run([groovy, "Parse.groovy", *map(str, files)], tmp_path, JAVA_HOME=home)
    assert out.count("parsed ") == len(files) > 10
    (tmp_path / "wrong.nf").write_text(
        "process X {\n    input:\n    tuple val(meta, path(vcf)\n}\n"
    )
    with pytest.raises(AssertionError, match="ended with 1"):
        run([groovy, "Parse.groovy", "wrong.nf"], tmp_path, JAVA_HOME=home)
