"""The figures in the READMEs are those of the committed results files."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_generated_tables_are_current():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "update_readmes.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"run scripts/update_readmes.py: {done.stdout}{done.stderr}"
