import re
import shlex
import tomllib

import pytest
import yaml

from jfusion import command
from tests.launch.standins import ODD_CONFIG, ROOT, Machine, is_wrong

IMAGE = "registry.example/me/jfusion:1"
TRAINING = ("--config", "configs/genre_fusion.py", "--workdir", "gs://bucket/run")
RUN = ("run", "demo", "--image", IMAGE, *TRAINING)
GPU = (*RUN, "--on=gpu", "--nodes=2", "--gpus=8")
TPU = (*RUN, "--on=v6e", "--topology=4x4")
ODD = ["", "it's", 'a "b": c, [d] # e', "back\\slash & $(HOME) $$ ${x}", "__NAME__", "- é\u2028"]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def submitted(machine, *words):
    """The JobSet that kubectl is given, and the call."""
    done = machine.run("kubernetes.sh", *words)
    assert done.returncode == 0, done.stderr
    (text,) = machine.inputs()
    assert not re.search("__[A-Z_]+__", text.replace("__NAMES__", "").replace('"__NAME__"', ""))
    return yaml.safe_load(text), machine.calls()[0]


def job_of(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    return replicated["template"]["spec"]


def container_of(jobset):
    (container,) = job_of(jobset)["template"]["spec"]["containers"]
    return container


def expanded(text):
    """What Kubernetes makes of a text that names no variable: $$ is a dollar."""
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", text)
    return text.replace("$$", "$")


def test_gpu_processes_learn_the_coordinator_from_the_environment(machine):
    jobset, call = submitted(machine, *GPU)
    assert call == ["kubectl", "create", "--filename=-"]
    job, container = job_of(jobset), container_of(jobset)
    assert job["parallelism"] == job["completions"] == 2
    assert job["completionMode"] == "Indexed"
    environment = {entry["name"]: entry for entry in container["env"]}
    # A pod's name is JOBSET-JOB-JOBNUMBER-INDEX, and the JobSet's own name is its domain.
    (replicated,) = jobset["spec"]["replicatedJobs"]
    host = f"{jobset['metadata']['name']}-{replicated['name']}-0-0.{jobset['metadata']['name']}"
    assert environment["JAX_COORDINATOR_ADDRESS"]["value"] == f"{host}:8476"
    assert environment["JAX_NUM_PROCESSES"]["value"] == "2"
    field = environment["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert container["command"] == ["python", "-m", "jfusion.main"]
    assert container["args"] == [*TRAINING, "--distributed"]


def test_gpu_pods_have_no_rights(machine):
    jobset, _ = submitted(machine, *GPU)
    pod = job_of(jobset)["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    own = container_of(jobset)["securityContext"]
    assert own == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize(
    ("on", "topology", "hosts", "label"),
    [("v6e", "4x4", 4, "tpu-v6e-slice"), ("v5e", "8x16", 32, "tpu-v5-lite-podslice")],
)
def test_a_tpu_slice_has_a_pod_per_host(machine, on, topology, hosts, label):
    jobset, _ = submitted(machine, *RUN, "--on", on, "--topology", topology)
    job, container = job_of(jobset), container_of(jobset)
    assert job["parallelism"] == job["completions"] == hosts
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert job["template"]["spec"]["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    (pool,) = jobset["metadata"]["annotations"].values()
    assert pool == "cloud.google.com/gke-nodepool"
    assert container["command"][-2].endswith('exec python -m jfusion.main "$@"')
    assert container["args"] == [*TRAINING, "--distributed"]
    assert "env" not in container  # JAX asks GKE's own


@pytest.mark.parametrize("kind", [GPU, TPU])
def test_every_word_reaches_the_pods_as_it_was_given(machine, kind):
    jobset, _ = submitted(machine, *kind, "--config", ODD_CONFIG, "--", *ODD)
    arguments = [expanded(text) for text in container_of(jobset)["args"]]
    assert arguments == ["--config", ODD_CONFIG, *TRAINING[2:], "--distributed", *ODD]


@pytest.mark.parametrize("kind", [GPU, TPU])
def test_what_happens_after_a_pod_ends(machine, kind):
    """An interrupted run goes on without limit, a crashed one three times, a wrong one never."""
    jobset, _ = submitted(machine, *kind)
    job = job_of(jobset)
    pod = job["template"]["spec"]
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60
    rules = job["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    codes = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
    assert {code["containerName"] for code in codes} == {container_of(jobset)["name"]}
    assert {code["operator"] for code in codes} == {"In"}
    assert [code["values"] for code in codes] == [[command.USAGE], [command.PREEMPTED]]
    conditions = [rule["onPodConditions"] for rule in rules if "onPodConditions" in rule]
    assert conditions == [[{"type": "DisruptionTarget", "status": "True"}]]
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3
    wrong, interrupted = policy["rules"]
    for rule in (wrong, interrupted):
        assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert wrong["action"] == "FailJobSet"
    assert interrupted["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    # As in kubernetes/pkg/controller/job/pod_failure_policy.go.
    message = "Container jfusion for pod default/demo-host-0-0-x failed with exit code {} matching"
    (pattern,) = wrong["onJobFailureMessagePatterns"]
    assert re.search(pattern, message.format(command.USAGE))
    assert not re.search(pattern, message.format(command.PREEMPTED))


@pytest.mark.parametrize(("spot", "operator"), [((), "DoesNotExist"), (("--spot",), "Exists")])
@pytest.mark.parametrize("kind", [GPU, TPU])
def test_spot_nodes_only_when_asked(machine, kind, spot, operator):
    jobset, _ = submitted(machine, *kind, *spot, "--namespace=lab", "--service-account=trainer")
    pod = job_of(jobset)["template"]["spec"]
    needed = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = needed["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "cloud.google.com/gke-spot", "operator": operator}]
    assert pod["serviceAccountName"] == "trainer"
    assert machine.calls()[0][:2] == ["kubectl", "--namespace=lab"]


@pytest.mark.parametrize("kind", [GPU, TPU])
def test_a_dry_run_prints_the_manifest_and_does_nothing(machine, kind):
    done = machine.run("kubernetes.sh", *kind, "--dry-run", "--", *ODD)
    assert done.returncode == 0 and not machine.calls()
    first, *manifest, last = done.stdout.removesuffix("\n").split("\n")
    assert first == "kubectl create --filename=- <<'EOF'" and last == "EOF"
    machine.run("kubernetes.sh", *kind, "--", *ODD)
    assert machine.inputs() == ["\n".join(manifest) + "\n"]


WORDS = {
    "image": ("image", "--image", IMAGE, "--extras=cuda,s3"),
    "status": ("status", "demo", "--namespace=lab"),
    "logs": ("logs", "demo"),
    "delete": ("delete", "demo"),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_dry_run_prints_what_a_run_does(machine, name):
    dry = machine.run("kubernetes.sh", *WORDS[name], "--dry-run")
    assert dry.returncode == 0 and not machine.calls()
    assert machine.run("kubernetes.sh", *WORDS[name]).returncode == 0
    assert [shlex.split(line) for line in dry.stdout.splitlines()] == machine.calls()


def test_the_other_commands(machine):
    for words in WORDS.values():
        machine.run("kubernetes.sh", *words)
    build, push, jobset, pods, logs, delete = machine.calls()
    assert build[:2] == ["docker", "build"] and build[-1] == str(machine.repository)
    assert {f"--tag={IMAGE}", "--build-arg=EXTRAS=cuda,s3"} < set(build)
    assert push == ["docker", "push", IMAGE]
    assert jobset == ["kubectl", "--namespace=lab", "get", "jobset", "demo"]
    selector = "--selector=jobset.sigs.k8s.io/jobset-name=demo"
    assert selector in pods
    assert f"{selector},batch.kubernetes.io/job-completion-index=0" in logs
    assert delete == ["kubectl", "delete", "jobset", "demo"]


def test_an_image_that_cannot_be_built_is_not_pushed(machine):
    machine.answer("docker build", 7)
    done = machine.run("kubernetes.sh", *WORDS["image"])
    assert done.returncode == 7 and "exit code 7 from: docker build" in done.stderr
    assert len(machine.calls()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "there is no command ''"),
        (("run",), "run needs the name of the run"),
        (("image", "demo"), "image takes no name"),
        (("image", "--image", IMAGE), "--extras is missing"),
        (("image", "--image=a b", "--extras=cuda"), "--image is 'a b'"),
        (("image", "--image", IMAGE, "--extras=cuda tpu"), "--extras is 'cuda tpu'"),
        (("status", "De_mo"), "the name is 'De_mo'"),
        (("status", "a" * 41), "at most 40"),
        (("run", "demo", *TRAINING), "--image is missing"),
        (RUN, "--on is missing"),
        ((*RUN, "--on=h100"), "--on is 'h100'; it must be gpu, v5e or v6e"),
        ((*RUN, "--on=gpu", "--gpus=8"), "--nodes is missing"),
        ((*RUN, "--on=v5e"), "--topology is missing"),
        ((*RUN, "--on=v5e", "--topology=16"), "--topology is '16'"),
        ((*RUN, "--on=v5e", "--topology=3x3"), "a multiple of four"),
        ((*GPU, "--workdir=/runs/a"), "--workdir is '/runs/a'; it must be gs:// or s3://"),
        ((*GPU, "--service-account=a b"), "--service-account is 'a b'"),
        ((*GPU, "--config=configs/no.py"), "no such file in the repository"),
        ((*GPU, "--", "a\nb"), "an argument holds a control character"),
    ],
)
def test_wrong_arguments(machine, words, message):
    assert is_wrong(machine.run("kubernetes.sh", *words), message)
    assert not machine.calls()


def instructions():
    text = (ROOT / "launch/Dockerfile").read_text().replace("\\\n", "")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_runs_as_nobody_in_particular_and_holds_only_the_code():
    lines = instructions()
    pod = yaml.safe_load((ROOT / "launch/jobset_gpu.yaml").read_text())
    user = job_of(pod)["template"]["spec"]["securityContext"]["runAsUser"]
    assert [line for line in lines if line.startswith("USER")] == [f"USER {user}"]
    assert lines.index(f"USER {user}") < next(
        i for i, line in enumerate(lines) if line.startswith("ENTRYPOINT")
    )
    copied = {w for line in lines if line.startswith("COPY") for w in line.split()[1:-1]}
    ignore = (ROOT / "launch/Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
    extras = "ARG EXTRAS=cuda,gcs,s3"
    assert not any(line.startswith(("ADD", "ARG")) and line != extras for line in lines)


def test_the_extras_of_the_images_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cuda", "tpu", "gcs", "s3"} < extras["optional-dependencies"].keys()
