"""What the reports of the benchmarks have in common: the machine, the commit, and sections of the documents."""

import os
import pathlib
import platform
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
GIB = 1 << 30


def commit():
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return f"{os.cpu_count()} cores ({processor()}), {memory:.0f} GiB"


def build():
    return os.environ.get("FLOE_BUILD", "the binary given by FLOE_BIN")


def put(begin, end, text, page="benchmarks.md"):
    """Replaces the section between two markers of a page in docs, or adds it at the end."""
    path = ROOT / "docs" / page
    before, found, rest = path.read_text().partition(begin)
    after = rest.partition(end)[2] if found else ""
    path.write_text(before.rstrip("\n") + "\n\n" + text + (after or "\n"))
