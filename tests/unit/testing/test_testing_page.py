"""Every block of docs/testing.md is a test file that passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("without_coverage")

PAGE = Path(__file__).parents[3] / "docs" / "testing.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_each_block_passes_under_pytest(pytester: pytest.Pytester) -> None:
    for number, block in enumerate(BLOCKS):
        (pytester.path / f"test_block_{number}.py").write_text(block)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.parseoutcomes().keys() == {"passed"}
    tests = sum(len(re.findall(r"^ *def test_", block, re.MULTILINE)) for block in BLOCKS)
    assert result.parseoutcomes()["passed"] >= tests > len(BLOCKS)


def test_the_block_for_unittest_passes_without_pytest(pytester: pytest.Pytester) -> None:
    [block] = [block for block in BLOCKS if "unittest.main()" in block]
    script = pytester.path / "hello_test.py"
    script.write_text(block)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
