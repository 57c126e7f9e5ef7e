"""The command line: what `--help` may import, and how mistakes end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from nemo_cosmos import cli
from nemo_cosmos.cli import app
from nemo_cosmos.commands import doctor
from nemo_cosmos.errors import InputError

HEAVY = {"torch", "numpy", "av", "transformers", "diffusers", "nemo", "megatron", "lightning", "matplotlib", "hydra"}


def verbs() -> list[list[str]]:
    """Every command and sub-command, as the words after `nemo-cosmos`."""

    def walk(command: object, words: list[str]) -> Iterator[list[str]]:
        yield words
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, [*words, name])

    return [words for words in walk(typer.main.get_command(app), []) if words]


def test_help_imports_nothing_heavy() -> None:
    """`--help` of every verb stays under a second because it loads neither torch nor anything of that size."""
    code = (
        "import json, sys\n"
        "from typer.testing import CliRunner\n"
        "from nemo_cosmos.cli import app\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    assert CliRunner().invoke(app, [*words, '--help']).exit_code == 0, words\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps([[], *verbs()])], capture_output=True, text=True, check=True
    )
    assert HEAVY.isdisjoint(json.loads(result.stdout))


@pytest.mark.parametrize("words", verbs(), ids=" ".join)
def test_help_of_a_verb_has_an_example(words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    commands = "Commands" in result.output  # A group says by its sub-commands what to type.
    assert "Example" in result.output or commands


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["train", "experiment=demo_video2world", "trainer.max_stepz=3"], "did you mean trainer.max_steps?"),
        (["train", "experiment=demo_video2wrld"], "did you mean demo_video2world?"),
        (["experiments", "show", "nothing"], "Shipped experiments: camera_control_7b_dl3dv"),
        (["experiments", "diff", "demo_video2world", "nothing"], "Shipped experiments: camera_control_7b_dl3dv"),
    ],
)
def test_mistake_ends_with_one_line_and_status_2(arguments: list[str], answer: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "nemo_cosmos", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert answer in result.stderr
    assert not list(tmp_path.iterdir())


def test_processes_of_one_launcher_say_a_mistake_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail() -> None:
        raise InputError("the shard is broken")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: the shard is broken\n"


def test_a_package_left_out_of_a_training_node_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_video() -> None:
        raise ModuleNotFoundError("No module named 'av'", name="av")

    monkeypatch.setattr(cli, "app", read_video)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install av" in error


def test_dryrun_prints_the_resolved_configuration() -> None:
    arguments = ["train", "--dryrun", "experiment=video2world_7b_example_hdvila", "trainer.max_steps=7"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "max_steps: 7" in result.output and "preset: predict1-7b-video2world" in result.output


def test_experiments_lists_networks_parameters_and_what_is_trained_on_what() -> None:
    result = CliRunner().invoke(app, ["experiments"], env={"COLUMNS": "240"})
    assert result.exit_code == 0
    line = next(line for line in result.output.splitlines() if " video2world_14b_example_hdvila " in line)
    assert "14,267,169,792" in line
    rows = {cells[1].strip(): [cell.strip() for cell in cells[4:9]] for line in result.output.splitlines()
            if len(cells := re.split("[│|]", line)) > 9}  # fmt: skip
    assert rows["video2world_7b_example_hdvila"] == ["all weights", "56,320", "8", "4 × 80 GB or 2 × 141 GB", "58"]
    assert rows["text2world_14b_example_hdvila_lora"] == ["adapters of rank 8", "56,320", "1 to 8", "1 × 80 GB", "64"]
    assert rows["predict2_video2world_lora_training_2b_cosmos_nemo_assets"][1] == "84,480"
    assert rows["predict2_text2image_training_14b_cosmos_nemo_assets"][1:3] == ["3,520", "4 to 8"]
    assert rows["video2world_instruction_bridge_57frames"][1] == "2,560"
    waymo = "predict2_multiview_training_2b_{}_10fps_7views_29frames_waymo5views"
    assert rows[waymo.format("720p")][1] == "140,800" and rows[waymo.format("480p")][1] == "63,600"
    assert rows["predict2_multiview_training_2b_720p_10fps_7views_29frames_rig7views"][1] == "197,120"
    assert rows["camera_control_7b_dl3dv"][1] == "28,160"
    assert rows["demo_video2world"][3] == "a CPU"


def test_doctor_trains_saves_and_resumes() -> None:
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    said = "in bf16 on" if torch.cuda.is_available() else "in fp32 on the CPU"
    assert re.search(
        rf"ok  training: 2 steps from (noise|nemo-cosmos-tiny) through NeMo, .*{said}.*, loss -?[0-9.]+, [0-9.]+ s",
        result.output,
    )
    assert re.search(r"ok  save: .* step 2, [0-9.]+ MiB", result.output)
    assert re.search(r"ok  load: resumed at step 2 .* loss -?[0-9.]+, [0-9.]+ s", result.output)


def test_doctor_fails_with_the_reason_when_the_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_cosmos.tiny.FOLDER", Path("nowhere"))
    monkeypatch.setattr(doctor, "NETWORK", "{num_layers: 2, hidden_size: 65}")
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "fail  training run: " in result.output and "hidden_size" in result.output
    assert "not ready to train" in result.output


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0 and result.output.startswith("nemo-cosmos 0.")
