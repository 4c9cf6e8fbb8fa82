"""What the operating system can do for the speed of a process on its CPU."""

import os
import sys
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Starts this process anew, with its arguments and process id, so that it has huge pages.

    XLA:CPU allocates the memory of a step anew for every step, and the kernel hands it out in pages
    of 4 KiB, one interruption each: a quarter to a half of a training step's time. Linux gives
    pages of 2 MiB to those who ask, and glibc asks if a variable says so when the process starts.

    Nothing happens where that variable is set already (to anything), or where the kernel would not
    listen. To be called first of all, by a process that may start anew: what was done before is
    done again.
    """
    if TUNABLES in os.environ or not _on_request():
        return
    # Older C libraries than glibc 2.35 and others than glibc ignore it.
    environment = {**os.environ, TUNABLES: "glibc.malloc.hugetlb=1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _on_request() -> bool:
    try:
        return "[madvise]" in HUGE_PAGES.read_text()
    except OSError:
        return False  # not Linux, or a kernel without huge pages
