"""Every environment variable that ARL reads is documented."""

import re
from pathlib import Path

from arl.environment import VARIABLES

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "components", "pipelines", "k8s", "bin")


def test_every_variable_is_listed_and_used() -> None:
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.is_file()]
    files = [file for file in files if file.suffix in ("", ".py", ".yaml", ".sh")]
    files.remove(ROOT / "src" / "arl" / "environment.py")
    texts = [file.read_text(encoding="utf-8", errors="ignore") for file in files]
    used = {name for text in texts for name in re.findall(r"\bARL_[A-Z_]*[A-Z]\b", text)}
    listed = {variable.name for variable in VARIABLES}
    assert used <= listed
    assert {name for name in listed if name.startswith("ARL_")} - used <= {"ARL_REAL_DATA"}
    assert all(any(name in text for text in texts) for name in listed if name != "ARL_REAL_DATA")
