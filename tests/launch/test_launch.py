"""`nemo-cosmos launch`: the scripts it writes, what they do, and what it refuses before anything is started."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from nemo_cosmos.commands.launch import launch
from nemo_cosmos.errors import InputError
from nemo_cosmos.interrupts import SAVED_AFTER_USR1
from nemo_cosmos.launch.read import read_launch

SEVEN = "experiment=video2world_7b_example_hdvila"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a home of NeMo-Run."""
    monkeypatch.chdir(tmp_path)
    for name in ("OUTPUT_ROOT", "DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NEMORUN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    launch(list(words), dry_run=True)
    return capsys.readouterr().out


def flags(script: str) -> dict[str, str]:
    """{option: value} of the #SBATCH lines."""
    lines = re.findall(r"^#SBATCH --(\S+)$", script, flags=re.M)
    return {name: shlex.split(value)[0] if value else "" for name, _, value in (line.partition("=") for line in lines)}


def last_srun(script: str) -> list[str]:
    """Words of the line that trains."""
    return shlex.split(re.findall(r"^srun .*-m nemo_cosmos .*$", script, flags=re.M)[-1])


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_the_loggers_stay_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    dry_run(capsys, SEVEN, "executor=slurm", "nodes=1", "gpus_per_node=8", "executor.account=me")
    assert (root.level, root.handlers) == before


def test_batch_script_of_four_nodes(capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path) -> None:
    script = dry_run(
        capsys, SEVEN, "executor=slurm", "nodes=4", "gpus_per_node=8", "data.global_batch=8", "trainer.max_steps=10",
        "executor.account=me", "executor.partition=gpu", "executor.qos=high", "executor.time=12:00:00",
        "executor.container_image=/images/nemo-cosmos.sqsh", "executor.container_mounts=[/data:/data:ro]",
        "executor.setup=[module load enroot]", "executor.env.NCCL_DEBUG='INFO and more'",
        "executor.mail_user=me@example.org", "executor.mail_type=END",
    )  # fmt: skip
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    found = flags(script)
    assert found | {"output": ""} == {
        "account": "me", "partition": "gpu", "qos": "high", "time": "12:00:00", "nodes": "4", "ntasks-per-node": "1",
        "gpus-per-node": "8", "signal": "USR1@600", "open-mode": "append", "mail-user": "me@example.org",
        "mail-type": "END", "job-name": "nemo-cosmos.video2world_7b_example_hdvila", "output": "",
    }  # fmt: skip
    assert found["output"].startswith(f"{home}/experiments/video2world_7b_example_hdvila/")
    words = last_srun(script)
    assert after(words, "--container-image") == "/images/nemo-cosmos.sqsh"
    mounts = after(words, "--container-mounts").split(",")
    assert mounts[:2] == ["/data:/data:ro", f"{tmp_path}:{tmp_path}"] and mounts[2].endswith(":/nemo_run")
    assert "--container-workdir" in words and "--kill-on-bad-exit=1" in words
    assert after(words, "env") == f"--chdir={tmp_path}"
    assert after(words, f"--chdir={tmp_path}") == "--ignore-signal=USR1"
    assert [after(words, f"--{name}") for name in ("nnodes", "nproc-per-node", "rdzv-backend", "rdzv-endpoint")] == [
        "4", "8", "c10d", "$head_node_ip:29500",
    ]  # fmt: skip
    assert words[words.index("-m") :] == [
        "-m", "nemo_cosmos", "train", SEVEN, "data.global_batch=8", "trainer.max_steps=10",
    ]  # fmt: skip
    assert words.index("env") < words.index("torchrun") < words.index("-m")
    lines = script.splitlines()
    assert "module load enroot" in lines and "export NCCL_DEBUG='INFO and more'" in lines
    assert "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600" in lines and "export PATH" not in script
    assert not home.exists(), "nothing is left behind"


def test_batch_script_without_container(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = dry_run(
        capsys, SEVEN, "executor=slurm", "executor.gres=gpu:h100:8", "executor.signal=null", "executor.exclusive=true",
        "executor.cpus_per_task=64", "executor.mem=0", "executor.workdir=/scratch/me",
        "executor.srun_args=['--mpi=pmix']",
        "executor.rdzv_port=31000", "nodes=2", "data.global_batch=2", f"executor.log_dir={tmp_path}/logs",
    )  # fmt: skip
    found = flags(script)
    assert (found["gres"], found["exclusive"], found["cpus-per-task"], found["mem"]) == ("gpu:h100:8", "", "64", "0")
    assert not {"gpus-per-node", "signal", "account"} & found.keys()
    assert found["output"].startswith(f"{tmp_path}/logs/experiments/")
    words = last_srun(script)
    assert "--container-image" not in words and "--ignore-signal=USR1" not in words and "--mpi=pmix" in words
    assert "--chdir=/scratch/me" in words and "$head_node_ip:31000" in words
    assert "trap" not in script and "export PATH=" in script


def test_what_a_shell_would_read_arrives_as_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    odd = [r"output_dir='${oc.env:TMPDIR,/tmp}/a b'", "model.overrides={num_layers: 4}", 'name="it costs $5"']
    for executor in ("slurm", "docker"):
        script = dry_run(capsys, SEVEN, *odd, f"executor={executor}", "trainer.max_steps=3", "output_dir=out")
        words = last_srun(script) if executor == "slurm" else shlex.split(script)
        assert words[-6:] == [SEVEN, *odd, "trainer.max_steps=3", "output_dir=out"]


def test_tokenizers_are_launched_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = last_srun(dry_run(capsys, "executor=slurm", "experiment=demo_tokenizer", "gpus_per_node=1"))
    assert words[words.index("-m") :] == ["-m", "nemo_cosmos", "tokenizer", "train", "experiment=demo_tokenizer"]


def test_through_a_login_node(capsys: pytest.CaptureFixture[str]) -> None:
    ssh = ["executor.ssh.host=login", "executor.ssh.user=me", "executor.ssh.job_dir=/home/me/jobs"]
    script = dry_run(capsys, SEVEN, "executor=slurm", "executor.workdir=/home/me/run", *ssh)
    assert flags(script)["output"].startswith("/home/me/jobs/video2world_7b_example_hdvila/")
    assert "--chdir=/home/me/run" in last_srun(script)
    assert "export PATH" not in script  # That of this machine.


def test_docker_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = shlex.split(
        dry_run(
            capsys,
            SEVEN,
            "executor=docker",
            "gpus_per_node=8",
            "executor.volumes=[/data:/data:ro]",
            "data.path=/data/shards",
            "executor.user=1000:1000",
        )
    )
    image = words.index("nemo-cosmos")
    assert words[:3] == ["docker", "run", "--rm"]
    assert {"--ipc=host", "--gpus=8", "--ulimit=memlock=-1", "--ulimit=stack=67108864", "--user=1000:1000"} < {
        *words[:image]
    }
    volumes = [words[i + 1] for i, word in enumerate(words[:image]) if word == "-v"]
    assert volumes == [f"{tmp_path}:/workspace/run", "/data:/data:ro"] and after(words, "-w") == "/workspace/run"
    assert "HF_HOME=/cache/huggingface" in words
    assert words[image + 1] == "torchrun" and after(words, "--nproc-per-node") == "8"
    assert words[-4:] == ["nemo_cosmos", "train", SEVEN, "data.path=/data/shards"]


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [("auto", ["--gpus=2"]), ("all", ["--gpus=all"]), ("none", []), ("device=0,3", ['--gpus="device=0,3"'])],
)
def test_gpus_of_a_container(gpus: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = dry_run(
        capsys, "experiment=demo_video2world", "executor=docker", "gpus_per_node=2", f"executor.gpus={gpus}"
    )
    assert [word for word in shlex.split(words) if word.startswith("--gpus")] == expected


def test_what_starts_here_is_the_line_that_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "shards").mkdir()
    words = ["experiment=demo_video2world", "gpus_per_node=2", "data.path=shards", "executor.env.NCCL_DEBUG=INFO"]
    shown = shlex.split(dry_run(capsys, *words))
    started: list[str] = []
    monkeypatch.setattr(os, "execvp", lambda file, arguments: started.extend(arguments))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(AssertionError, match="stands for"):
        launch(words, dry_run=False)
        raise AssertionError("stands for the process that would have been replaced")
    for line in (shown, started):
        del line[line.index("--rdzv-id") + 1]  # Drawn anew.
    assert started == shown and shown[:3] == ["env", "NCCL_DEBUG=INFO", "torchrun"]


def test_the_summary_names_layout_memory_and_place(capsys: pytest.CaptureFixture[str]) -> None:
    launch([SEVEN, "executor=slurm", "nodes=4", "data.global_batch=4"], dry_run=True)
    said = capsys.readouterr().err
    assert "slurm, 4 × 8 GPUs: parallel.context=8 (4 replicas)" in said
    assert re.search(r"memory +4\d\.\d GiB \+ 3 on the fullest GPU", said)
    assert "checkpoints/posttraining/diffusion_video2world/video2world_7b_example_hdvila" in said
    assert "data.path=datasets/hdvila_shards is not on this machine" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("executor=skypilot", "executor=skypilot: expected local, docker, slurm"),
        ("executor=slurm executor.acount=me", r"did you mean executor\.account"),
        ("executor=local executor.account=me", r"unknown configuration key 'executor\.account'"),
        ("executor=slurm nodes=many", "nodes: Value 'many'"),
        ("executor=slurm nodes=0", "nodes=0: expected at least 1"),
        ("executor=docker nodes=2", "nodes=2: executor=docker starts processes on this machine alone"),
        ("executor=slurm gpus_per_node=3", "3 processes are not divisible by"),
        ("executor=slurm nodes=2", r"data\.global_batch=1 is not divisible"),
        ("executor=slurm trainer.devices=4", r"trainer\.devices=4, but 8 processes"),
        ("executor=slurm trainer.num_nodes=2", r"trainer\.num_nodes=2, but 8 processes are to run on each of 1"),
        ("executor=slurm optimizer.lrr=1", "did you mean optimizer.lr"),
        ("executor=local", r"data\.path=datasets/hdvila_shards: nothing is there"),
        ("executor=docker data.path=/data/x", r"not in the container.*executor\.volumes=\[/data:/data\]"),
        ("executor=docker output_dir=/out/x", "output_dir=/out/x is not in the container"),
        ("executor=slurm executor.container_image=i data.path=/d/x", r"executor\.container_mounts=\[/d:/d\]"),
        ("executor=slurm executor.time=soon", r"executor\.time='soon': expected a time"),
        ("executor=slurm executor.time=10", "comes before the job begins"),
        ("executor=slurm executor.signal=TERM@60", "expected USR1@SECONDS"),
        ("executor=slurm executor.container_mounts=[/a:/b]", "have no effect without executor.container_image"),
        ("executor=slurm executor.container_image=i executor.container_mounts=[a]", "expected /HOST:/CONTAINER"),
        ("executor=slurm executor.mail_user=me", "go together"),
        ("executor=slurm executor.ssh.user=me", r"executor\.ssh\.user has no effect"),
        ("executor=slurm executor.ssh.host=login", r"needs executor\.ssh\.user"),
        ("executor=slurm executor.account='me;reboot'", "expected one word"),
        ("executor=slurm executor.env.path=x", "capital letters"),
        ("executor=slurm executor.env.HF_TOKEN=abc", "looks like a secret"),
        ("executor=slurm resume=false", "queued again would stop at its own checkpoint"),
        ("executor=slurm data.path=/big/nemo_run/shards", "which NeMo-Run replaces"),
        ("executor=docker executor.volumes=[data]", "expected HOST:/CONTAINER"),
        ("executor=docker executor.ulimits=[memlock]", "expected NAME=SOFT"),
        ("executor=docker executor.gpus=device=0,1", r"names 2 GPUs, gpus_per_node=8"),
        ("executor=docker executor.gpus=many", "expected auto, all, none or device=LIST"),
    ],
)
def test_refused_before_anything_is_started(words: str, message: str, home: Path) -> None:
    with pytest.raises(InputError, match=message):
        launch([SEVEN, *shlex.split(words)], dry_run=False)
    assert not home.exists()


def test_an_experiment_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose an experiment"):
        launch(["executor=slurm"], dry_run=True)
    with pytest.raises(InputError, match="did you mean demo_tokenizer"):
        launch(["executor=slurm", "experiment=demo_tokenizr"], dry_run=True)


def test_later_words_win_and_the_run_gets_the_rest() -> None:
    how, settings = read_launch(
        ["nodes=2", "executor=docker", "seed=1", "nodes=3", "executor=slurm", "trainer.max_steps=2"]
    )
    assert (type(how).__name__, how.nodes, settings) == ("SlurmLaunch", 3, ["seed=1", "trainer.max_steps=2"])


def test_without_the_programs_of_an_executor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no sbatch on PATH"):
        launch([SEVEN, "executor=slurm"], dry_run=False)
    with pytest.raises(InputError, match="docker is not on PATH"):
        launch([SEVEN, "executor=docker"], dry_run=False)


def test_without_nemo_run_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_cosmos.recipes.extra.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"nemo_cosmos\[launch\]"):
        launch([SEVEN, "executor=slurm"], dry_run=True)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the programs of Slurm that a batch script calls; `called` lists what they were asked."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    programs = {
        "sbatch": 'echo "sbatch $@" >> "$CALLED"; [ -z "$REFUSED" ] || { echo "$REFUSED" >&2; exit 1; }; echo 77',
        "scontrol": 'echo "scontrol $@" >> "$CALLED"; if [ "$1" = show ]; then echo node1; fi',
        "srun": 'case "$*" in *hostname*) echo 127.0.0.1; exit;; esac; echo "$SAYS" > "${2/\\%j/77}"; exit 1',
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLED", str(folder / "called"))
    return folder


def submitted(home: Path) -> Path:
    (script,) = home.glob("experiments/*/*/*_sbatch.sh")
    return script


def test_a_job_is_submitted(cluster: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch([SEVEN, "executor=slurm"], dry_run=False)
    assert "submitted  job 77" in capsys.readouterr().out
    assert f"sbatch --requeue --parsable {submitted(home)}" in (cluster / "called").read_text()


def test_what_sbatch_refuses_is_said_in_one_line(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSED", "sbatch: error: invalid\npartition")
    with pytest.raises(InputError, match="sbatch refused the job: sbatch: error: invalid partition"):
        launch([SEVEN, "executor=slurm"], dry_run=False)


@pytest.mark.parametrize(
    ("said", "options", "again"),
    [
        ("[default0]:SIGUSR1: ended at step 7, which is saved", [], True),
        ("[default0]:SIGUSR1: ended at step 7, which is saved", ["executor.requeue=false"], False),
        ("SIGTERM: ended at step 7, which is saved", [], False),
        ("error: data.path=x does not exist", [], False),
        ("error: something", ["executor.retries=1"], True),
    ],
)
def test_when_a_job_is_queued_again(
    said: str, options: list[str], again: bool, cluster: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch script as bash runs it, when training has ended with status 1."""
    launch([SEVEN, "executor=slurm", *options], dry_run=False)
    monkeypatch.setenv("SAYS", said)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node1")
    done = subprocess.run(["bash", str(submitted(home))], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert ("scontrol requeue 77" in (cluster / "called").read_text()) is again


def test_the_batch_script_knows_what_training_says(capsys: pytest.CaptureFixture[str]) -> None:
    from nemo_cosmos.interrupts import Interrupts

    interrupts = Interrupts()
    interrupts.ended_with_save(10, 123, is_first=True)
    interrupts.stay()
    assert re.search(SAVED_AFTER_USR1, capsys.readouterr().out)
