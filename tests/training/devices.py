"""Processes of their own with simulated devices, for a function of the tests or for a command."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Compiled sooner, for slower steps. (With --xla_backend_optimization_level=0 some gradients of the
# fusion with BatchNorm are wrong, on a single device, too.)
QUICK = "--xla_llvm_disable_expensive_passes=true"


def environment(count):
    """The environment of a process with so many devices."""
    flags = f"--xla_force_host_platform_device_count={count} {QUICK}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def call(count, function, *arguments):
    """What `package.module.function` returns (JSON-ready) on so many devices."""
    module, name = function.rsplit(".", 1)
    program = (
        "import sys, json, jax; jax.config.update('jax_numpy_rank_promotion', 'raise');"
        f"from {module} import {name};"
        f"print(json.dumps({name}(*json.loads(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(arguments)],
        cwd=ROOT,
        env=environment(count),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def together(commands: Sequence[Sequence[str]], **variables) -> list[subprocess.CompletedProcess]:
    """Runs Python commands as the processes of one program, each with two devices.

    Args:
        commands: The arguments of each.
        variables: Of their environment.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    variables |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(len(commands))}
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment(2) | variables | {"JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, command in enumerate(commands)
    ]
    try:
        with ThreadPoolExecutor(len(started)) as pool:  # a full pipe would hold its process up
            told = list(pool.map(lambda process: process.communicate(timeout=200), started))
    finally:
        for process in started:
            process.kill()
            process.communicate()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(started, told, strict=True)
    ]
