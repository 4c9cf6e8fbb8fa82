"""What the operating system can do for the speed of a process on its CPU."""

import os
import platform
import sys
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
# One heap that only grows: what is freed is not given back, but taken again.
KEEP = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776:glibc.malloc.arena_max=1"
ASK = "glibc.malloc.hugetlb=1"
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
DEVICES = Path("/dev")
ACCELERATORS = ("nvidia[0-9]*", "accel*", "vfio/[0-9]*", "kfd")


def restart_with_tuned_memory() -> None:
    """Starts this process anew, with its arguments and process id, so that its memory is fast.

    XLA:CPU allocates the memory of a step anew for every step. glibc would get it from the kernel
    and give it back each time, and the kernel fills it with zeros, page by page: a tenth to a half
    of a training step's time. So glibc is told to keep it, and the process may
    come to hold more than it needs at once. Where pages of 2 MiB are for those who
    ask, it is also told to ask.

    Nothing happens where glibc's variable is set already (to anything), with another C library, or
    where an accelerator computes. To be called first of all, by a process that may start anew: what
    was done before is done again.
    """
    if TUNABLES in os.environ or platform.libc_ver()[0] != "glibc" or _has_accelerator():
        return
    tunables = f"{KEEP}:{ASK}" if _on_request() else KEEP
    os.execve(
        sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, TUNABLES: tunables}
    )


def _has_accelerator() -> bool:
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(found for pattern in ACCELERATORS for found in DEVICES.glob(pattern))


def _on_request() -> bool:
    try:
        return "[madvise]" in HUGE_PAGES.read_text()
    except OSError:
        return False  # not Linux, or a kernel without huge pages
