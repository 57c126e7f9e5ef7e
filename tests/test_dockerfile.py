"""The Dockerfile: what it copies is there, its base is pinned and public, and it keeps to what linters ask for."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.test_dependencies import EXTRAS, PROJECT

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions(text: str) -> list[tuple[str, str]]:
    """(name, arguments) of each instruction; comments are left out and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


STEPS = instructions(TEXT)


def arguments(name: str) -> list[str]:
    return [rest for step, rest in STEPS if step == name]


def test_every_copied_file_exists_and_reaches_the_builder() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#!"]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [word for rest in arguments("COPY") for word in rest.split()[:-1]]
    assert {"pyproject.toml", "setup.py", "README.md", "conf", "nemo_cosmos"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in kept or not any(fnmatch.fnmatch(source, pattern) for pattern in ignored), source
    assert set(kept) == set(sources), "nothing else goes to the builder"


def test_what_the_package_needs_to_be_built_is_copied() -> None:
    copied = {word for rest in arguments("COPY") for word in rest.split()[:-1]}
    named = {PROJECT["readme"], "setup.py", "pyproject.toml", "conf", "nemo_cosmos", "LICENSE"}
    assert named <= copied


def test_the_base_is_a_public_pinned_tag() -> None:
    assert STEPS[0][0] == "ARG" and STEPS[1] == ("FROM", "${NEMO_IMAGE}")
    image = re.fullmatch(r"NEMO_IMAGE=(nvcr\.io/nvidia/nemo):([\d.]+)", STEPS[0][1])
    assert image, STEPS[0]
    assert "nvidian" not in TEXT and ":latest" not in TEXT and len(arguments("FROM")) == 1


def test_pins_come_from_one_place() -> None:
    """No instruction names a version: pip reads those of pyproject.toml."""
    assert not [rest for rest in arguments("RUN") if re.search(r"[<>=]=\s*\d", rest)]
    printed = run_pins("requirements").split("\n")
    assert printed == [*PROJECT["dependencies"], *EXTRAS["launch"]]


def run_pins(*words: str) -> str:
    command = [sys.executable, str(ROOT / "tools/container_pins.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="images have Python 3.12; the tool reads TOML with its library")
def test_compiled_packages_of_the_image_stay(tmp_path: Path) -> None:
    kept = run_pins("kept").split("\n")
    assert f"torch=={version('torch')}" in kept and f"numpy=={version('numpy')}" in kept
    assert not [line for line in kept if line.startswith(("nemo", "megatron", "lightning"))]
    file = tmp_path / "kept.txt"
    file.write_text("\n".join(kept))
    assert run_pins("check", str(file)) == ""
    file.write_text("torch==0.0.1\n")
    with pytest.raises(subprocess.CalledProcessError):
        run_pins("check", str(file))
    install = next(rest for rest in arguments("RUN") if "-r /opt" in rest)
    assert re.search(r"kept > (\S+) .*PIP_CONSTRAINT=\1 pip install .*check \1", install)


def test_requirements_are_installed_before_the_source_is_copied() -> None:
    """So that a change of the source does not install them again."""
    order = [f"{name} {rest}" for name, rest in STEPS]
    requirements, package = (
        next(i for i, line in enumerate(order) if word in line) for word in ("-r /opt", "--no-deps")
    )
    assert requirements < order.index("COPY nemo_cosmos nemo_cosmos") < package


PROBLEMS = {
    "sudo": r"^RUN .*\bsudo\b",
    "MAINTAINER": r"^MAINTAINER",
    "ADD instead of COPY": r"^ADD ",
    "cd instead of WORKDIR": r"^RUN (.*&& )?cd ",
    "relative WORKDIR": r"^WORKDIR (?!/|\$)",
    "shell form of CMD or ENTRYPOINT": r"^(CMD|ENTRYPOINT) (?!\[)",
    "pip with a cache": r"^RUN .*pip install (?!.*--no-cache-dir)",
    "apt lists that stay": r"^RUN .*apt-get install(?!.*rm -rf /var/lib/apt/lists)",
    "apt without --no-install-recommends": r"^RUN .*apt-get install(?!.*--no-install-recommends)",
    "apt-get upgrade": r"^RUN .*(apt-get (dist-)?upgrade|apt install)",
    "a moving base": r"^FROM \S+(:latest|[^:}]+)$",
    "curl into a shell": r"^RUN .*(curl|wget)[^|]*\| *(ba)?sh",
    "a secret": r"^(ENV|ARG) .*(TOKEN|PASSWORD|SECRET|API_KEY)",
}
"""What a linter of Dockerfiles finds fault with."""


@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_problem_of_the_usual_kinds(problem: str) -> None:
    assert not [f"{name} {rest}" for name, rest in STEPS if re.search(PROBLEMS[problem], f"{name} {rest}")]


def test_the_problems_are_found() -> None:
    bad = "FROM python\nADD a b\nWORKDIR x\nRUN cd /a && sudo apt-get install git\nRUN pip install x\nCMD bash\n"
    lines = [f"{name} {rest}" for name, rest in instructions(bad)]
    found = {problem for problem, pattern in PROBLEMS.items() if any(re.search(pattern, line) for line in lines)}
    assert len(found) == 9


def test_commands_are_lists() -> None:
    (command,) = arguments("CMD")
    assert json.loads(command)[0] == "nemo-cosmos"


def test_it_runs_as_the_user_who_is_asked_for() -> None:
    assert arguments("USER") == ["${USER_ID}:${GROUP_ID}"]
    assert {"USER_ID=0", "GROUP_ID=0"} <= set(arguments("ARG"))
    names = [name for name, _ in STEPS]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
