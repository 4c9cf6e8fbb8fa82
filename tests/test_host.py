import os
import subprocess
import sys

import pytest

from jfusion import host

PROGRAM = """
import os, sys
from pathlib import Path
from jfusion import host
host.HUGE_PAGES = Path(sys.argv[1])
print(os.getpid(), sys.argv[2:], os.environ.get(host.TUNABLES))
sys.stdout.flush()
host.restart_with_huge_pages()
print("after", os.getpid())
"""


def run(pages, environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(pages), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.delenv(host.TUNABLES, raising=False)
    return dict(os.environ) | {"PYTHONPATH": ":".join(sys.path)}


def test_starts_once_more_with_the_same_id_and_arguments(tmp_path, environment):
    pages = tmp_path / "enabled"
    pages.write_text("always [madvise] never\n")
    first, second, last = run(pages, environment, "--x=1 2", "*")
    process = first.split()[0]
    assert first == f"{process} ['--x=1 2', '*'] None"
    assert second == f"{process} ['--x=1 2', '*'] glibc.malloc.hugetlb=1"
    assert last == f"after {process}"


@pytest.mark.parametrize(
    "setting", ["[always] madvise never", "always madvise [never]", None], ids=str
)
def test_stays_where_the_kernel_decides(setting, tmp_path, environment):
    pages = tmp_path / "enabled"
    if setting:
        pages.write_text(setting)
    assert len(run(pages, environment)) == 2


def test_a_persons_own_setting_stands(tmp_path, environment):
    pages = tmp_path / "enabled"
    pages.write_text("always [madvise] never\n")
    lines = run(pages, environment | {host.TUNABLES: ""})
    assert len(lines) == 2 and lines[0].endswith("[] ")
