"""Run tests of real daemons, two files at once, and one that failed once more, saying which.

Elections and heartbeats have bounds of their own, which a starved machine can miss. A file that
fails twice is a failure; a test that failed once is named at the end, as a defect to be found.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

# They wait more than they work. Whole files, in order: each has a cloud for all of its tests.
AT_ONCE = ("--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder")


class Failures:
    """A pytest plugin that remembers the tests that failed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.names:
            self.names.append(report.nodeid)


def main(arguments: list[str]) -> int:
    """Run twice if need be; return pytest's exit code of the last run."""
    failures = Failures()
    code = pytest.main([*arguments, *AT_ONCE], plugins=[failures])
    if code != pytest.ExitCode.TESTS_FAILED:
        return code
    files = list(dict.fromkeys(name.partition("::")[0] for name in failures.names))
    print(f"\nOnce more: {' '.join(files)}\n", flush=True)
    code = subprocess.run([sys.executable, "-m", "pytest", *files], check=False).returncode
    if code == 0:
        print("\nUNSTABLE: these failed once, and passed when their file was run again:")
        print("\n".join(f"  {name}" for name in failures.names), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
