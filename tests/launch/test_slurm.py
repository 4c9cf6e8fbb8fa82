import shlex
import signal
import subprocess

import pytest

from jfusion import command
from tests.launch.standins import ODD_CONFIG, Machine, is_wrong

TRAINING = ("--config", "configs/genre_fusion.py", "--workdir", "/shared/run")
JOB = (*TRAINING, "--nodes=2", "--gpus=4", "--time=4:00:00")


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    machine.environment["SLURM_JOB_ID"] = "17"
    return machine


def test_a_job_has_a_process_for_every_gpu(machine):
    assert machine.run("slurm.sh", *JOB).returncode == 0
    (call,) = machine.calls()
    script = str(machine.repository / "launch/slurm.sbatch")
    batch, step = call[: call.index(script)], call[call.index("srun") :]
    assert batch[0] == "sbatch"
    assert set(batch[1:]) == {
        *("--job-name=jfusion", "--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4"),
        *("--cpus-per-task=8", "--time=4:00:00", f"--chdir={machine.repository}", "--requeue"),
        *("--open-mode=append", "--signal=TERM@180"),
    }
    assert call[len(batch) : -len(step)] == [script, "50"]
    python = str(machine.repository / ".venv/bin/python")
    assert step == [
        *("srun", "--gpu-bind=none", "--cpus-per-task=8", "--kill-on-bad-exit=0", "--wait=600"),
        *(python, "-m", "jfusion.main", *TRAINING, "--distributed"),
    ]


def test_options_and_words_reach_the_job_as_they_were_given(machine):
    words = ("--workdir", "/sha red/it's", "--nodes", "1", "--gpus", "1", "--time", "1-12")
    more = ("--partition=a b", "--account=me", "--name=n", "--cpus=3", "--grace=60", "--restarts=7")
    rest = ["--config.x='1'", "", "$HOME *"]
    done = machine.run("slurm.sh", "--config", ODD_CONFIG, *words, *more, "--", *rest)
    assert done.returncode == 0
    (call,) = machine.calls()
    assert {"--partition=a b", "--account=me", "--job-name=n", "--signal=TERM@60"} < set(call)
    assert call.count("--cpus-per-task=3") == 2 and call[call.index("srun") - 1] == "7"
    assert call[-8:] == ["--config", ODD_CONFIG, *words[:2], "--distributed", *rest]


def test_a_dry_run_prints_the_command_and_does_nothing(machine):
    done = machine.run("slurm.sh", *JOB, "--dry-run", "--", "it's")
    assert done.returncode == 0 and not machine.calls()
    machine.run("slurm.sh", *JOB, "--", "it's")
    assert [shlex.split(line) for line in done.stdout.splitlines()] == machine.calls()


def test_a_refused_job_is_told(machine):
    machine.answer("sbatch", 3)
    done = machine.run("slurm.sh", *JOB)
    assert done.returncode == 3 and "exit code 3 from: sbatch" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--config is missing"),
        (TRAINING, "--nodes is missing"),
        ((*TRAINING, "--nodes=2", "--gpus=4"), "--time is missing"),
        ((*JOB, "more"), "'more' belongs to no option"),
        ((*JOB, "--nodes=0"), "--nodes is '0'; it must be a whole number"),
        ((*JOB, "--gpus=all"), "--gpus is 'all'"),
        ((*JOB, "--time=soon"), "--time is 'soon'"),
        ((*JOB, "--python=/no/python"), "--python is '/no/python'; there is no such program"),
        ((*JOB, "--config=configs/no.py"), "no such file in the repository"),
        ((*JOB, "--quick"), "there is no option --quick"),
    ],
)
def test_wrong_arguments(machine, words, message):
    assert is_wrong(machine.run("slurm.sh", *words), message)
    assert not machine.calls()


@pytest.mark.parametrize(
    ("code", "before", "again"),
    [
        (0, None, False),
        (command.USAGE, None, False),
        (1, None, False),
        (command.PREEMPTED, None, True),
        (command.PREEMPTED, "2", True),
        (command.PREEMPTED, "3", False),
    ],
)
def test_a_job_is_queued_again_if_it_was_stopped(machine, code, before, again):
    if before:
        machine.environment["SLURM_RESTART_COUNT"] = before
    machine.answer("srun", code)
    done = machine.run("slurm.sbatch", "3", "srun", "a b", "it's")
    assert done.returncode == code
    requeue = [["scontrol", "requeue", "17"]] if again else []
    assert machine.calls() == [["srun", "a b", "it's"], *requeue]
    assert ("submit it anew" in done.stderr) == (before == "3")


def test_a_cancelled_job_stays_cancelled(machine):
    """scancel sends SIGTERM to the script, too, while the processes save and end with 75."""
    job = "kill -TERM $PPID; exit 75"
    script = str(machine.repository / "launch/slurm.sbatch")
    done = subprocess.run(
        ["bash", script, "3", "bash", "-c", job],
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == -signal.SIGTERM and not machine.calls()
