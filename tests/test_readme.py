"""What the documentation tells a user to type exists, and links lead somewhere."""

from __future__ import annotations

import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from nemo_cosmos.cli import app
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from tests.documented import PAGES, ROOT, Command, documented_commands

COMMANDS = documented_commands()
TOOLS = {"pip", "git", "docker", "cd", "export", "huggingface-cli", "hf", "tensorboard", "pytest"}
"""Programs of others that a page may name."""
OWN = (
    "nemo-cosmos-tiny",
    "my_clips",
    "first_frame.jpg",
    "clips",
    "videos",
    "datasets/hdvila",
    "datasets/cosmos_nemo_assets",
    "datasets/groot",
    "datasets/bridge",
    "datasets/drives",
    "my_rig.yaml",
    "datasets/DL3DV-ALL-4K",
    "datasets/first_frames",
    "datasets/waymo",
    "datasets/rig7views",
    "datasets/multiview",
    "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
)
"""What a reader brings along, as the text beside the command says, or the package."""
INPUTS = {
    "validate": ["shards"], "preview": ["shards", "tokenizer"], "prepare": ["source", "tokenizer"],
    "generate": ["model", "tokenizer", "visual_input", "source", "batch"],
    "convert": ["source", "vae", "adapter"], "tokenizer stats": ["tokenizer", "videos"],
    "tokenizer export": ["source"], "demo": ["data"],
}  # fmt: skip
OUTPUTS = {
    "prepare": ["out"], "convert": ["target"], "tokenizer export": ["target"], "sample-data": ["out"],
    "generate": ["output"], "preview": ["out"],
}  # fmt: skip
"""Parameters of the verbs that name files, as the functions call them."""
SCRIPT_INPUTS = {
    "get_t5_embeddings.py": ["dataset_path"],
    "get_t5_embeddings_from_cosmos_nemo_assets.py": ["dataset_path"],
    "get_t5_embeddings_from_groot_dataset.py": ["dataset_path", "meta_csv"],
    "extract_images_from_videos.py": ["input_dataset_dir"],
    "prepare_batch_input_json.py": ["dataset_path"],
    "prepare_dataset.py": ["dataset_path", "tokenizer_dir"],
    "camera_control.py": ["checkpoint_dir", "nemo_checkpoint", "conditioned_image_or_video_path"],
    "video2world.py": ["checkpoint_dir", "input_image_or_video_path"],
    "text2world.py": ["checkpoint_dir"],
    "text2image.py": ["checkpoint_dir"],
    "video2world_predict2.py": ["checkpoint_dir", "input_path"],
    "multiview.py": ["input_path"],
    "video2world_multiview.py": ["checkpoint_dir", "input_image_or_video_path"],
    "text2world_multiview.py": ["checkpoint_dir"],
    "nemo_cosmos.inference.video_cli": ["video_pattern", "checkpoint_enc", "checkpoint_dec"],
}
SCRIPT_OUTPUTS = {
    "download_diffusion_checkpoints.py": "checkpoints", "download_tokenizer_checkpoints.py": "checkpoints",
    "download_diffusion_example_data.py": "datasets/hdvila",
    "download_predict2_checkpoints.py": "checkpoints",
    "extract_images_from_videos.py": "datasets/cosmos_nemo_assets_images",
    "prepare_batch_input_json.py": "outputs/batch.json",
    "prepare_dataset.py": "camera_ctrl_dataset_cached",
}  # fmt: skip
SCRIPT_OUTPUT_FLAGS = {"prepare_dataset.py": "output_path"}
"""By which another place is named."""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}-{command.text[:60]}")
def test_documented_command_exists_with_its_options(command: Command) -> None:
    program, arguments = command.program
    if program == "nemo-cosmos":
        parse_verb(command)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif program.endswith(".py") or program.startswith("nemo_cosmos."):
        for word in arguments:
            if word.startswith("--"):
                assert word.split("=")[0] in help_of(program), f"{command.page}: {program} has no {word}"
    elif program.startswith("tests."):
        assert (ROOT / program.replace(".", "/")).with_suffix(".py").is_file(), f"{command.page}: {program}"
    else:
        assert program in TOOLS, f"{command.page}: {program}"


@cache
def help_of(program: str) -> str:
    """What a script of this repository, or a module, says to --help; benchmarks are read, for they start slowly."""
    if program.startswith("bench/"):
        return (ROOT / program).read_text(encoding="utf-8")
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), pytest.raises(SystemExit) as ended:
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", [program, "--help"])
        patch.setattr(sys, "path", [str((ROOT / program).parent), *sys.path])
        if program.endswith(".py"):
            runpy.run_path(str(ROOT / program), run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    assert not ended.value.code, program
    return said.getvalue()


@cache
def parse_verb(command: Command) -> tuple[str, dict[str, Any]]:
    """Parses a command line as the program does, without running it: the verb, and its parameters by name.

    Where the command is shortened or a mere mention, the verb and the options that it names must exist.
    """
    found = typer.main.get_command(app)
    words: list[str] = []
    _, arguments = command.program
    while hasattr(found, "commands") and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in found.commands, f"{command.page}: no verb {arguments[0]}"
        words.append(arguments[0])
        found, arguments = found.commands[arguments[0]], arguments[1:]
    verb = " ".join(words)
    if not words or not arguments or command.shortened or not command.complete:
        known = {option for parameter in found.params for option in parameter.opts}
        assert {word.split("=")[0] for word in arguments if word.startswith("-")} <= known
        return verb, {}
    parameters = found.make_context(words[-1], list(arguments)).params
    overrides = parameters.get("overrides")
    if verb == "train":
        config: Any = load_config(TrainConfig, overrides)
        read = [config.data.path, config.model.init_from, config.data.tokenizer_path]
    elif verb == "tokenizer train":
        config = load_config(TokenizerTrainConfig, overrides, root="tokenizer_train")
        read = [weights for weights in [config.loss.flow.weights] if weights != "hub"]
    else:
        return verb, parameters
    return verb, {"read": {name for name in read if name}, "made": {config.output_dir}}


@pytest.mark.parametrize("page", sorted({command.page for command in COMMANDS}))
def test_each_file_that_a_command_names_is_made_by_an_earlier_one(page: str) -> None:
    """A file stands in the repository, is brought along, or is made by a command above it or on another page."""
    elsewhere = {made for command in COMMANDS if command.page != page for made in files_of(command)[1]}
    above: set[str] = {*elsewhere, "outputs/demo", "nemo-cosmos-tiny"}
    here: set[str] = set()
    for command in COMMANDS:
        if command.page != page or not command.complete or command.shortened:
            continue
        needed, made = files_of(command)
        for name in needed:
            known = (ROOT / name).exists() or any(is_below(name, other) for other in {*OWN, *above})
            assert known, f"{page}: nothing makes {name}, which this needs: {command.text}"
        if "convert" in command.words:
            assert here.isdisjoint(made), f"{page}: {made} would be there already: {command.text}"
        above |= made
        here |= made


def is_below(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}/")


@cache
def files_of(command: Command) -> tuple[set[str], set[str]]:
    """What a command reads and what it makes."""
    program, arguments = command.program
    if command.shortened or not command.complete:
        return set(), set()
    if program == "nemo-cosmos":
        verb, parameters = parse_verb(command)
        given = [parameters.get(name) for name in INPUTS.get(verb, [])]
        needed = {str(one) for value in given if value for one in (value if isinstance(value, list) else [value])}
        made = {str(parameters[name]) for name in OUTPUTS.get(verb, []) if parameters.get(name)}
        return needed | parameters.get("read", set()), made | parameters.get("made", set())
    name = Path(program).name if program.endswith(".py") else program
    needed = {arguments[arguments.index(f"--{flag}") + 1] for flag in SCRIPT_INPUTS.get(name, [])
              if f"--{flag}" in arguments}  # fmt: skip
    flag = f"--{SCRIPT_OUTPUT_FLAGS.get(name, '')}"
    if flag in arguments:
        return needed, {arguments[arguments.index(flag) + 1]}
    return needed, {SCRIPT_OUTPUTS[name]} if name in SCRIPT_OUTPUTS else set()


@pytest.mark.parametrize(
    "command",
    [
        c
        for c in COMMANDS
        if c.page == "README.md" and c.complete and ("--dryrun" in c.text or "experiments" in c.text)
    ],
    ids=lambda command: command.text,
)
def test_light_command_of_the_readme_runs(command: Command) -> None:
    result = CliRunner().invoke(app, command.program[1])
    assert result.exit_code == 0, result.output


def test_commands_are_found_wherever_they_stand() -> None:
    """Fenced blocks with and without a language, indented ones, sentences, help texts and comments of experiments."""
    pages = {command.page for command in COMMANDS if command.complete}
    assert {
        "README.md", "docs/checkpoints.md", "docs/lora.md", "docs/tokenizers.md", "nemo_cosmos/commands/prepare.py",
        "examples/video2world.py", "tools/wheelhouse.py", "conf/experiment/demo_video2world.yaml",
    } <= pages  # fmt: skip
    assert any(not command.complete for command in COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_verbs_of_the_readme_are_all_verbs() -> None:
    named = set(re.findall(r"`nemo-cosmos ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert set(typer.main.get_command(app).commands) <= named  # type: ignore[attr-defined]


def test_version_pins_of_the_makefile_and_package_agree() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^TORCH := torch==\d+\.\d+\.\d+$", makefile, flags=re.M)
    assert '"torch>=' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
