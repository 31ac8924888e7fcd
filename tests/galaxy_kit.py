"""Runs the tests of a Galaxy tool as Galaxy would: `python galaxy_kit.py TOOL.xml FOLDER`.

A program of its own, for the Python of an environment that has planemo: it takes Galaxy's own
reader of tools, Cheetah and Galaxy's assertions on outputs. Galaxy's server is not needed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from Cheetah.Template import Template
from galaxy.tool_util.parser.factory import get_tool_source
from galaxy.tool_util.verify.asserts import verify_assertions


def defaults(page: Any) -> dict[str, Any]:
    """Give the values that parameters have where a test names none."""
    out: dict[str, Any] = {}
    for source in page.parse_input_sources():
        name = source.parse_name()
        if source.parse_input_type() == "conditional":
            out[name] = {}
        elif source.get("type") == "boolean":
            out[name] = source.get("falsevalue", "")
        elif source.get("type") == "data":
            out[name] = None
        elif source.get("type") == "select" and not source.get_bool("multiple", False):
            options = source.parse_static_options()
            out[name] = next((x[1] for x in options if x[2]), options[0][1])
        else:
            out[name] = source.get("value", "")
    return out


def values(tool: Any, test: dict[str, Any], data: Path) -> dict[str, Any]:
    out = defaults(tool.parse_input_pages().page_sources[0])
    for given in test["inputs"]:
        *outer, name = given["name"].split("|")
        value = given["value"]
        inside = out
        for key in outer:
            inside = inside[key]
        is_file = isinstance(value, str) and (data / value).is_file()
        inside[name] = str(data / value) if is_file else value
    return out


def main(path: Path, folder: Path) -> None:
    tool = get_tool_source(str(path))
    tests = tool.parse_tests_to_dict()["tests"]
    for number, test in enumerate(tests):
        work = folder / str(number)
        work.mkdir(parents=True)
        space = values(tool, test, path.parent / "test-data")
        for output in tool.parse_outputs(None)[0]:
            space[output] = str(work / f"{output}.dat")
        command = str(Template(tool.parse_command(), searchList=[space]))
        done = subprocess.run(
            ["bash", "-c", " ".join(command.split("\n"))],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        failed = done.returncode != 0
        if failed != bool(test["expect_failure"]):
            raise SystemExit(
                f"test {number} ended with {done.returncode}: {done.stderr}\n{command}"
            )
        if failed:
            assert done.returncode == int(test["expect_exit_code"]), done.stderr
            verify_assertions(done.stderr.encode(), test["stderr"])
        for output in test["outputs"]:
            made = (work / f"{output['name']}.dat").read_bytes()
            attributes = output["attributes"]
            assert attributes["assert_list"], f"test {number}: {output['name']} is not looked at"
            verify_assertions(made, attributes["assert_list"], attributes.get("decompress"))
        sys.stdout.write(f"{path.name}: test {number} passed: {len(test['outputs'])} outputs\n")


main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
