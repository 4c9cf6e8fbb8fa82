import os
import platform
import subprocess
import sys

import pytest

from jfusion import host

PROGRAM = """
import os, sys
from pathlib import Path
from jfusion import host
host.HUGE_PAGES, host.DEVICES = map(Path, sys.argv[1:3])
print(os.getpid(), sys.argv[3:], os.environ.get(host.TUNABLES))
sys.stdout.flush()
host.restart_with_tuned_memory()
print("after", os.getpid())
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv(host.TUNABLES, raising=False)
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    (tmp_path / "dev").mkdir()

    def start(*arguments, pages="always [madvise] never\n", **environment):
        if pages:
            (tmp_path / "enabled").write_text(pages)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path / "enabled", tmp_path / "dev", *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    return start


def test_starts_once_more_with_the_same_id_and_arguments(run):
    first, second, last = run("--x=1 2", "*")
    process = first.split()[0]
    assert first == f"{process} ['--x=1 2', '*'] None"
    assert second == f"{process} ['--x=1 2', '*'] {host.KEEP}:{host.ASK}"
    assert last == f"after {process}"


@pytest.mark.parametrize(
    "pages", ["[always] madvise never", "always madvise [never]", None], ids=str
)
def test_asks_for_large_pages_only_where_that_is_how_to_get_them(pages, run):
    assert run(pages=pages)[1].endswith(f"[] {host.KEEP}")


def test_a_persons_own_setting_stands(run):
    lines = run(**{host.TUNABLES: ""})
    assert len(lines) == 2 and lines[0].endswith("[] ")


def test_leaves_a_machine_with_an_accelerator_alone_unless_the_cpu_computes(run, tmp_path):
    (tmp_path / "dev" / "nvidia0").write_text("")
    assert len(run()) == 2
    assert len(run(JAX_PLATFORMS="cpu")) == 3


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_stays_with_the_process():
    program = """
import resource, sys, threading
def work():
    for _ in range(5):
        bytearray(256 * 2**20)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = [
        int(
            subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, host.TUNABLES: tunables},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for tunables in ("", host.KEEP)
    ]
    assert faults[1] < faults[0] / 4
