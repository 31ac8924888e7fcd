"""The documentation says what the program does: commands, options, fields, keys, errors, links."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from glm_annotate import __version__, card, vocab
from glm_annotate.bundle import shipped
from glm_annotate.cli import commands
from glm_annotate.fields import SCORED
from glm_annotate.scores import SCORES, parse_score
from glm_annotate.train import config
from glm_annotate.train.finetune import config as finetune
from glm_annotate.variants import Skip

REPO = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path.relative_to(REPO).as_posix()
    for folder in (".", "docs", "example_data")
    for path in (REPO / folder).glob("*.md")
)
COMMANDS = [
    (page, command)
    for page in PAGES
    for block in re.findall(
        r"^```(?:console)?\n(.*?)^```", (REPO / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    for command in re.findall(r"^(?:\$ )?(glm-annotate .*)$", block, re.MULTILINE)
]
# What a line of usage writes for the user to fill in is no command.
TYPED = [(page, command) for page, command in COMMANDS if "[" not in command]
MASKED = card.ModelCard.model_validate(
    {
        "name": "any",
        "tag": "ANY",
        "objective": "masked",
        "context": 512,
        "anchor": 256,
        "encoder": {"kind": "kmer", "vocab": {"mask_id": 9}},
        "inputs": {"rows": {"name": "rows", "axes": ["batch", "length"]}},
        "outputs": {
            name: {"name": name, "axes": ["batch", "length", "x"]}
            for name in ("logits", "embedding")
        },
        "embedding": {"dim": 4},
    }
)


def read(page: str) -> str:
    return (REPO / page).read_text(encoding="utf-8")


def table_under(text: str, head: str) -> list[list[str]]:
    """Give the cells of the rows of the table whose header line begins with `head`."""
    lines = text[text.index(f"\n| {head} |") + 1 :].splitlines()
    rows = []
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", without_blocks(text))


# --- commands ----------------------------------------------------------------------------------


def parse(words: Sequence[str]) -> dict[str, object]:
    """Parse a command line as the program does, without running it; raises click's errors."""
    command: click.Command = commands
    left = list(words)
    while isinstance(command, click.Group):
        flags = {name for parameter in command.params for name in parameter.opts}
        while left[0].startswith("-"):
            assert left[0] in flags, f"{left[0]} is no option before the command"
            left.pop(0)
        assert left[0] in command.commands, f"no command {left[0]}"
        command = command.commands[left.pop(0)]
    return command.make_context("glm-annotate", left).params


def test_the_parser_of_these_tests_finds_faults():
    assert parse(["-q", "vcf", "x", "-f", "a", "-m", "b"])["fasta"] == "a"
    for wrong in ("vcf x -f a -m b --frob", "vcf x -m b", "vcf x -f a -m b --precision fp8"):
        with pytest.raises(click.UsageError):
            parse(wrong.split())
    for wrong in ("frob x", "models frob", "--frob vcf x -f a -m b"):
        with pytest.raises(AssertionError):
            parse(wrong.split())
    assert len(TYPED) > 15


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_commands_parse(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (settings,) = re.findall(r"^```toml\n(.*?)^```", read("docs/vcf.md"), re.MULTILINE | re.DOTALL)
    (tmp_path / "run.toml").write_text(settings)
    words = []
    for word in shlex.split(line, comments=True):
        if word in ("|", ">", "<"):
            break
        words.append(word)
    given = parse(words[1:])
    for text in given.get("scores") or ():
        for score in text.split(","):
            parse_score(score, MASKED)
    for name, path in given.items():
        if isinstance(path, str) and path.startswith(("example_data/", "recipes/")):
            assert (REPO / path).exists(), f"{page}: {name} {path}"


def every_command(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        yield name, command
        for sub in command.commands.values():
            yield from every_command(sub, f"{name} {sub.name}".strip())
    else:
        yield name, command


OPTIONS = [
    (name, option)
    for name, command in every_command(commands)
    for parameter in command.params
    if isinstance(parameter, click.Option)
    for option in parameter.opts
]


VCF_OPTIONS = {option for name, option in OPTIONS if name == "vcf"}


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_is_documented(name, option):
    text = read("docs/vcf.md")
    if name and name != "vcf":  # the row of that command, or its page
        (row,) = re.findall(rf"^\| `glm-annotate {name}\b.*$", text, re.MULTILINE)
        pages = [read(f"docs/{page}") for page in re.findall(r"\]\(([\w/]+\.md)", row)]
        # What a page has in common with `vcf` is told there.
        shared = set(codes(text)) & VCF_OPTIONS if pages else set()
        assert option in set(codes("".join([row, *pages]))) | shared
    else:
        assert option in codes(text)


def test_options_that_are_documented_exist():
    known = {option for _, option in OPTIONS} | {"-h", "--help"}
    pages = [str(path.relative_to(REPO)) for path in (REPO / "docs").rglob("*.md")]
    for page in (*pages, "README.md"):
        # The first column of a table of options, and options in running text.
        found = {word for word in codes(read(page)) if re.fullmatch(r"--?[a-zA-Z][a-z-]*", word)}
        assert found <= known, page


# --- fields, scores, statuses --------------------------------------------------------------------


def test_every_status_is_documented_once():
    text = read("docs/vcf.md")
    whole = [codes(row[0])[0] for row in table_under(text, "status")]
    single = [codes(row[0])[0] for row in table_under(text, "reason")]
    assert set(whole) | set(single) == {SCORED, *map(str, Skip)}
    assert len(set(whole)) == len(whole)
    assert set(whole) & set(single) == {"TOO_LONG"}
    short = {word for row in table_under(read("README.md"), "status") for word in codes(row[0])}
    assert short == set(map(str, Skip))


def test_every_score_is_documented():
    text = read("docs/scores.md")
    rows = {codes(row[0])[0]: row for row in table_under(text, "score")}
    assert list(rows) == list(SCORES)
    for name, score in SCORES.items():
        _, objectives, kind, output = rows[name]
        every = len(score.evidence) == 4
        assert objectives == ("any" if every else ", ".join(score.evidence))
        assert (kind, output) == (score.kind, score.output)
        section = re.search(rf"^##+ {name}$(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
        assert section is not None
        assert ">>>" in section[1], f"{name} has no worked example"
        assert all(f"`{key}=" in text for key in score.keys)
    short = [word for row in table_under(read("README.md"), "score") for word in codes(row[0])]
    assert short == list(SCORES)


def test_worked_examples():
    result = doctest.testfile(str(REPO / "docs/scores.md"), module_relative=False)
    assert result.attempted > 15
    assert result.failed == 0


# --- keys ----------------------------------------------------------------------------------------

PARTS: dict[str, dict[str, type[BaseModel]]] = {
    "docs/bundles.md": {
        name: getattr(module, name)
        for module, names in {
            card: "ModelCard WindowRule GraphTensor EmbeddingRule ContactRule Scope ScopeContig "
            "Provenance",
            vocab: "EncoderSpec Vocab Channel",
        }.items()
        for name in names.split()
    },
    "docs/training.md": {
        name: getattr(config, name)
        for name in (
            *("TrainConfig", "DataConfig", "GroupConfig", "GenesConfig", "MaskConfig"),
            *("ContrastiveConfig", "OptimConfig", "RunConfig"),
        )
    },
    "docs/training/finetune.md": {
        name: getattr(finetune, name)
        for name in ("FinetuneConfig", "HeadConfig", "LoraConfig", "ExamplesConfig")
    },
}


@pytest.mark.parametrize(
    ("page", "name"), [(page, name) for page, parts in PARTS.items() for name in parts]
)
def test_tables_of_keys_are_the_models(page, name):
    fields = PARTS[page][name].model_fields
    check_keys(page, name, fields)


TRAINABLE = {
    "gpn": "GpnConfig",
    "gpn_songlab_blocks": "GpnSonglabConfig",
    "dnabert": "DnabertConfig",
    "dnabert2": "Dnabert2Config",
    "nucleotide_transformer": "NucleotideTransformerConfig",
    "gena_lm": "GenaConfig",
    "gena_bigbird": "BigBirdConfig",
    "caduceus_blocks": "CaduceusConfig",
}


@pytest.mark.parametrize("module", TRAINABLE)
def test_the_tables_of_the_families_are_their_configs(module):
    pytest.importorskip("torch")
    name = TRAINABLE[module]
    config = getattr(importlib.import_module(f"glm_annotate.train.families.{module}"), name)
    check_keys("docs/training.md", name, config.model_fields)


def test_the_page_of_models_is_what_its_script_makes(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(REPO / "docs"))
    assert read("docs/models.md") == importlib.import_module("make_models").page(), "make docs"


def check_keys(page: str, name: str, fields: dict) -> None:
    """Compare keys, what is required, and defaults that are numbers or texts."""
    text = read(page)
    _, _, rest = text.partition(f"<!-- keys: {name} -->")
    assert rest, f"{page} has no table of {name}"
    head, _, *rows = rest.strip().split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [codes(row[0])[0] for row in cells] == list(fields)
    if "default" not in head:
        return
    for row, (key, field) in zip(cells, fields.items(), strict=True):
        assert (row[1] == "required") == field.is_required() or key == "sha256", key
        if isinstance(field.default, bool):
            assert row[1] == str(field.default).lower(), key
        elif isinstance(field.default, int | float):
            assert float(row[1]) == field.default, key
        elif isinstance(field.default, str):
            assert row[1] == f'"{field.default}"', key


# --- errors --------------------------------------------------------------------------------------

ERRORS = ("InputError", "BundleError", "UsageError")
# Faults of a test or of a developer's call, not of a user's file.
NOT_FOR_USERS = {"toys.py"}


def template(node: ast.AST) -> str:
    """Write a message with … for what is filled in."""
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            parts = (template(x) if isinstance(x, ast.Constant) else "…" for x in node.values)
            return re.sub("…+", "…", "".join(parts))
        case _:
            return "…"


def messages() -> set[str]:
    """Collect the messages of all errors in the package."""
    found = set()
    for path in (REPO / "glm_annotate").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_error = (
                isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ERRORS
            )
            if is_error and node.args and path.name not in NOT_FOR_USERS:
                found.add(template(node.args[0]))
    return found


MESSAGES = messages()
PHRASES = [
    re.findall(r"^\| `(.*?)` \|", section, re.MULTILINE)
    for section in read("docs/troubleshooting.md").split("\n## Warnings")
]


def test_every_error_has_a_remedy():
    # A message of placeholders alone is another error's, passed on with the file's name.
    spoken = {message for message in MESSAGES if re.search(r"\w{3}", message)}
    assert len(spoken) > 100
    silent = [x for x in sorted(spoken) if not any(phrase in x for phrase in PHRASES[0])]
    assert not silent


@pytest.mark.parametrize("phrase", PHRASES[0])
def test_remedies_are_of_errors_that_exist(phrase):
    elsewhere = {
        "Missing option": click.MissingParameter(param_type="option").format_message(),
        "see the card's JSON schema": (REPO / "glm_annotate/bundle.py").read_text(),
        "out of memory": (REPO / "glm_annotate/cli.py").read_text(),
    }
    assert phrase in elsewhere.get(phrase, "") or any(phrase in x for x in MESSAGES)


@pytest.mark.parametrize("phrase", PHRASES[1])
def test_warnings_exist(phrase):
    sources = (path.read_text("utf-8") for path in (REPO / "glm_annotate").rglob("*.py"))
    assert any(phrase in source for source in sources)


# --- the pages -----------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (REPO / page).parent / name if name else REPO / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text("utf-8")), target


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_tidy(page):
    text = read(page)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert not re.search(r"[ \t]+$", text, re.MULTILINE), "blanks at a line's end"
    assert text.count("\n```") % 2 == 0


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\(([^)#\s]+)", read("README.md")))
    assert set(PAGES) - {"README.md"} <= linked


def test_versions_agree():
    assert f"\nversion: {__version__}\n" in read("CITATION.cff")
    assert re.search(rf"^## {re.escape(__version__)}\b", read("CHANGELOG.md"), re.MULTILINE)


def test_the_example_of_the_readme_is_what_the_shipped_model_says(run_cli):
    if "mito" not in shipped():
        pytest.skip("no shipped model yet")
    text = read("README.md").partition("<!-- example:begin -->")[2]
    line = re.search(r"^\$ glm-annotate (.*?) \|", text, re.MULTILINE)
    expected = re.search(r"^chrM\t.*$", text, re.MULTILINE)
    assert line is not None
    assert expected is not None
    found = run_cli(*shlex.split(line[1]), cwd=REPO, check=True).stdout.splitlines()[-1]
    # Numbers may differ in the last digits from one processor to the other.
    number = r"-?\d+\.\d+"
    assert re.sub(number, "#", found) == re.sub(number, "#", expected[0]), found
    for ours, theirs in zip(
        re.findall(number, found), re.findall(number, expected[0]), strict=True
    ):
        assert float(ours) == pytest.approx(float(theirs), abs=1e-3), found
