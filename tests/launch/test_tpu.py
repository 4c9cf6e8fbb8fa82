import shlex

import pytest

from jfusion import command
from tests.launch.standins import ODD_CONFIG, Machine, is_wrong

ZONE = ("--zone", "us-east5-b")
TRAINING = ("--config", "configs/genre_fusion.py", "--workdir", "gs://bucket/run")
WATCH = ("watch", "demo", *ZONE, "--type=v6e-16", "--poll=0", *TRAINING)
VM = ["gcloud", "compute", "tpus", "tpu-vm"]
QUEUE = ["gcloud", "compute", "tpus", "queued-resources"]
ARGUMENTS = [*TRAINING, "--distributed"]
# What the calls are recognized by.
REQUESTS, MACHINES, REPORT = "queued-resources list", "tpu-vm list", "tpu_worker.sh status"
KINDS = {
    "create": "queued-resources create",
    "delete": "queued-resources delete",
    "setup": "tpu_worker.sh setup",
    "start": "tpu_worker.sh start",
    "tail": "tail -n 50",
}


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def story(machine):
    """What was done, without the looks at how things stand."""
    lines = [" ".join(call) for call in machine.calls()]
    kinds = [next((k for k, text in KINDS.items() if text in line), "") for line in lines]
    return [kind for kind in kinds if kind]


def remote(call):
    """The words of the command that a call runs on the workers."""
    (text,) = (a.removeprefix("--command=") for a in call if a.startswith("--command="))
    return shlex.split(text)


def worker(*states):
    return "".join(f"jfusion-worker: {state}\n" for state in states)


@pytest.mark.parametrize(
    ("options", "runtime", "more"),
    [
        (["--type", "v6e-16"], "v2-alpha-tpuv6e", []),
        (["--type=v5litepod-16", "--spot"], "v2-alpha-tpuv5-lite", ["--spot"]),
        (["--type=v5p-16", "--runtime=mine"], "mine", []),
        (["--type=v5p-16", "--service-account=a@b"], "v2-alpha-tpuv5", ["--service-account=a@b"]),
    ],
)
def test_a_slice_is_asked_for(machine, options, runtime, more):
    assert machine.run("tpu.sh", "create", "demo", *ZONE, *options).returncode == 0
    (call,) = machine.calls()
    accelerator = options[0].removeprefix("--type=") if "=" in options[0] else options[1]
    assert call == [
        *(*QUEUE, "create", "demo", "--node-id=demo", "--zone=us-east5-b"),
        *(f"--accelerator-type={accelerator}", f"--runtime-version={runtime}", *more),
    ]


def test_setup_sends_the_last_commit_to_every_worker(machine):
    assert machine.run("tpu.sh", "setup", "demo", *ZONE, "--project=mine").returncode == 0
    archive, copy, install = machine.calls()
    assert archive[:4] == ["git", "-C", str(machine.repository), "archive"]
    assert archive[-1] == "HEAD"
    (path,) = (a.removeprefix("--output=") for a in archive if a.startswith("--output="))
    place = ["--zone=us-east5-b", "--project=mine", "--quiet", "--worker=all"]
    assert copy == [*VM, "scp", path, "demo:jfusion.tar.gz", *place]
    assert install[:-1] == [*VM, "ssh", "demo", *place]
    assert remote(install)[-3:] == ["bash", "jfusion/launch/tpu_worker.sh", "setup"]


def test_every_word_reaches_the_workers_as_it_was_given(machine):
    rest = ["--config.data.path=gs://b/it's", "", 'a "b" $(date) `date` \\', "*"]
    workdir = 'gs://bucket/it\'s a "run" & $HOME'
    options = ("--config", ODD_CONFIG, "--workdir", workdir)
    done = machine.run("tpu.sh", "run", "demo", *ZONE, *options, "--", *rest)
    assert done.returncode == 0
    (call,) = machine.calls()
    assert call[:-1] == [*VM, "ssh", "demo", "--zone=us-east5-b", "--quiet", "--worker=all"]
    script = ["bash", "jfusion/launch/tpu_worker.sh", "start"]
    assert remote(call) == [*script, *options, "--distributed", *rest]


def test_logs_status_and_delete(machine):
    machine.answer(REQUESTS, "other\tFAILED\ndemo\tACTIVE\n")
    machine.answer(REPORT, worker("running", "exited 75", "running"))
    assert machine.run("tpu.sh", "logs", "demo", *ZONE, "--worker=3").returncode == 0
    assert "--worker=3" in machine.calls()[-1] and "jfusion-run/log" in remote(machine.calls()[-1])
    done = machine.run("tpu.sh", "status", "demo", *ZONE)
    assert done.stdout == "demo: ACTIVE\nworkers: exited 75, running\n"
    assert machine.run("tpu.sh", "delete", "demo", *ZONE).returncode == 0
    expected = [*QUEUE, "delete", "demo", "--zone=us-east5-b", "--force", "--quiet"]
    assert machine.calls()[-1] == expected


def test_the_status_of_a_slice_that_is_not_there(machine):
    machine.answer(REQUESTS, "demo-2\tACTIVE\n")
    assert machine.run("tpu.sh", "status", "demo", *ZONE).stdout == "demo: absent\n"
    assert len(machine.calls()) == 1


@pytest.mark.parametrize("way", ["suspended", "machine"])
def test_a_preempted_slice_is_replaced_and_the_run_goes_on(machine, way):
    active, nothing = "demo\tACTIVE\n", ""
    waiting = "demo\tWAITING_FOR_RESOURCES\n"
    ends = {"suspended": ["demo\tSUSPENDING\n", "demo\tSUSPENDED\n"], "machine": [active]}[way]
    before, after = [nothing, waiting, active, active], [nothing, active, active]
    machine.answer(REQUESTS, *before, *ends, *after)
    ready, lost = "other\tPREEMPTED\ndemo\tREADY\n", "demo\tPREEMPTED\n"
    machine.answer(MACHINES, ready, ready, *([lost] if way == "machine" else []), ready)
    new = worker("new", "new")
    machine.answer(REPORT, new, worker("running"), new, worker("exited 0", "exited 0"))
    done = machine.run("tpu.sh", *WATCH, "--spot", "--", "--config.seed=1")
    assert done.returncode == 0, done.stderr
    once = ["create", "setup", "start"]
    assert story(machine) == [*once, "delete", *once, "delete"]
    starts = [remote(call)[2:] for call in machine.calls() if KINDS["start"] in " ".join(call)]
    assert starts == [["start", *ARGUMENTS, "--config.seed=1"]] * 2
    creations = [call for call in machine.calls() if KINDS["create"] in " ".join(call)]
    assert creations[0] == creations[1] and "--spot" in creations[0]
    assert "demo: WAITING_FOR_RESOURCES" in done.stderr and "is finished" in done.stderr
    assert "may be there" not in done.stderr


def test_a_stopped_run_is_started_again_without_limit(machine):
    machine.answer(REQUESTS, "demo\tACTIVE\n")
    stops = [worker(f"exited {command.PREEMPTED}"), worker("lost", "exited 75"), worker("idle")]
    machine.answer(REPORT, *stops * 2, worker("exited 0"))
    assert machine.run("tpu.sh", *WATCH).returncode == 0
    assert story(machine) == ["setup", "start"] * 6 + ["delete"]


def test_a_watch_that_comes_later_leaves_a_run_alone(machine):
    machine.answer(REQUESTS, "demo\tACTIVE\n")
    machine.answer(REPORT, worker("running"), worker("running", "exited 1"), worker("exited 0"))
    assert machine.run("tpu.sh", *WATCH, "--keep").returncode == 0
    assert story(machine) == []


@pytest.mark.parametrize(
    ("answers", "message", "starts"),
    [
        ((worker("exited 0", f"exited {command.USAGE}"),), "config, a path or the data", 0),
        ((worker("exited 1"), worker("exited 255", "exited 75"), worker("exited 134")), "134", 2),
        ((255,), "no answer from demo, 10 times", 0),
        (("Permission denied\n",), "no answer from demo, 10 times", 0),
    ],
    ids=["usage", "crashes", "unreachable", "silent"],
)
def test_a_run_that_cannot_go_on_is_given_up_and_not_billed(machine, answers, message, starts):
    machine.answer(REQUESTS, "demo\tACTIVE\n")
    machine.answer(REPORT, *answers)
    done = machine.run("tpu.sh", *WATCH)
    assert done.returncode == 1
    assert message in done.stderr and "giving up" in done.stderr
    assert story(machine) == ["setup", "start"] * starts + ["tail", "delete"]


def test_only_failures_in_a_row_count(machine):
    preempted = ["demo\tSUSPENDED\n", ""]
    machine.answer(REQUESTS, *["demo\tACTIVE\n"] * 2, *preempted, "demo\tACTIVE\n")
    crashes, silence = [worker("exited 1")] * 2, [255] * 9
    machine.answer(REPORT, *crashes * 2, *silence, worker("running"), *silence, worker("exited 0"))
    done = machine.run("tpu.sh", *WATCH)
    assert done.returncode == 0, done.stderr
    twice = ["setup", "start"] * 2
    assert story(machine) == [*twice, "delete", "create", *twice, "delete"]


def test_a_run_that_lasted_an_hour_clears_the_count_of_crashes(machine):
    machine.answer(REQUESTS, "demo\tACTIVE\n")
    machine.answer(REPORT, *[worker("exited 1")] * 5, worker("exited 0"))
    machine.replace("date")
    machine.answer("date +%s", *(str(3700 * (i // 2)) for i in range(10)))
    done = machine.run("tpu.sh", *WATCH)
    assert done.returncode == 0, done.stderr
    assert story(machine) == ["setup", "start"] * 5 + ["delete"]


def test_a_request_that_fails_is_made_again_twice(machine):
    machine.answer(REQUESTS, *["", "demo\tFAILED\n"] * 3)
    done = machine.run("tpu.sh", *WATCH)
    assert done.returncode == 1 and "the request for demo failed" in done.stderr
    assert story(machine) == ["create", "delete", "create", "delete", "create", "tail", "delete"]


def test_a_setup_that_fails_counts_and_starts_nothing(machine):
    machine.answer(REQUESTS, "demo\tACTIVE\n")
    machine.answer(REPORT, worker("new"))
    machine.answer("tpu-vm scp", 3)
    done = machine.run("tpu.sh", *WATCH, "--keep")
    assert done.returncode == 1
    assert "exit code 3 from: gcloud compute tpus tpu-vm scp" in done.stderr
    assert "demo is kept, and billed until: launch/tpu.sh delete demo" in done.stderr
    assert story(machine) == ["tail"]


def test_a_look_that_fails_is_repeated(machine):
    machine.answer(REQUESTS, 1, "demo\tACTIVE\n")
    machine.answer(MACHINES, ("Reauthentication failed", 1), "demo\tREADY\n")
    machine.answer(REPORT, worker("exited 0"))
    done = machine.run("tpu.sh", *WATCH)
    assert done.returncode == 0 and "Reauthentication failed" in done.stderr
    assert story(machine) == ["delete"]


def test_a_request_that_is_refused_ends_the_watch(machine):
    machine.answer("create", 4)
    done = machine.run("tpu.sh", *WATCH)
    assert done.returncode == 4 and story(machine) == ["create"]
    assert "exit code 4 from: gcloud compute tpus queued-resources create demo" in done.stderr
    assert "demo may be there and billed" in done.stderr


def test_a_slice_that_cannot_be_deleted_is_told(machine):
    machine.answer(REQUESTS, "demo\tACTIVE\n")
    machine.answer(REPORT, worker("exited 0"))
    machine.answer("delete", 5)
    done = machine.run("tpu.sh", *WATCH)
    assert done.returncode == 1 and "still billed" in done.stderr


@pytest.mark.parametrize("name", ["create", "setup", "run", "status", "logs", "delete"])
def test_a_dry_run_prints_what_a_run_does_and_does_nothing(machine, name):
    words = (name, "demo", *ZONE, "--type=v6e-16", "--config", ODD_CONFIG, *TRAINING[2:])
    dry = machine.run("tpu.sh", "--dry-run", *words, "--", "it's")
    assert dry.returncode == 0 and not machine.calls() and not dry.stderr
    machine.answer(REQUESTS, "demo\tACTIVE\n")
    machine.run("tpu.sh", *words, "--", "it's")
    printed = [shlex.split(line) for line in dry.stdout.splitlines()]
    assert [line for line in printed if line[0] != "mkdir"] == machine.calls() != []


def test_a_dry_watch_prints_every_command_of_an_uneventful_one(machine):
    dry = machine.run("tpu.sh", "--dry-run", *WATCH)
    assert dry.returncode == 0 and not machine.calls() and not dry.stderr
    assert not (machine.repository / "build").exists()
    machine.answer(REQUESTS, "", "demo\tACTIVE\n")
    machine.answer(REPORT, worker("new"), worker("exited 0"))
    assert machine.run("tpu.sh", *WATCH).returncode == 0
    printed = [shlex.split(line) for line in dry.stdout.splitlines()]
    printed.remove(["mkdir", "-p", str(machine.repository / "build")])
    assert {tuple(line) for line in printed} == {tuple(call) for call in machine.calls()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give a command and the name of a slice"),
        (("watch",), "give a command and the name of a slice"),
        (("status", "demo", "other", *ZONE), "give a command and the name of a slice"),
        (("dance", "demo", *ZONE), "there is no command 'dance'"),
        (("status", "Demo", *ZONE), "the name is 'Demo'"),
        (("status", "demo"), "--zone is missing"),
        (("status", "demo", "--zone"), "--zone needs a value"),
        (("status", "demo", "--zone", "--keep"), "--zone needs a value"),
        (("status", "demo", "--zone="), "--zone needs a value"),
        (("status", "demo", "--zone", "mars"), "--zone is 'mars'; it must be a zone"),
        (("status", "demo", *ZONE, "--speed=9"), "there is no option --speed"),
        (("status", "demo", *ZONE, "--type spot", "x"), "there is no option --type spot"),
        (("create", "demo", *ZONE), "--type is missing"),
        (("create", "demo", *ZONE, "--type=h100"), "--type is 'h100'"),
        (("create", "demo", *ZONE, "--type=v9-16"), "give --runtime"),
        (("run", "demo", *ZONE), "--config is missing"),
        (("run", "demo", *ZONE, *TRAINING[:2]), "--workdir is missing"),
        (("run", "demo", *ZONE, *TRAINING[:2], "--workdir=runs/a"), "gs://BUCKET/FOLDER"),
        (("run", "demo", *ZONE, "--config=configs/no.py:a", *TRAINING[2:]), "no such file"),
        ((*WATCH, "--poll=often"), "--poll is 'often'"),
        (("logs", "demo", *ZONE, "--worker=all"), "--worker is 'all'"),
    ],
)
def test_wrong_arguments(machine, words, message):
    assert is_wrong(machine.run("tpu.sh", *words), message)
    assert not machine.calls()
