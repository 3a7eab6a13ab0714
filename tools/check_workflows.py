"""The workflow files of the public repository: they parse, actionlint accepts them, and what they run is here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def problems(root: Path) -> list[str]:
    """One sentence per fault; a path that a ``run:`` line executes must exist."""
    found = []
    for path in sorted((root / ".github" / "workflows").glob("*.yml")):
        where = path.relative_to(root)
        try:
            workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            found.append(f"{where}: {error}")
            continue
        if not isinstance(workflow, dict) or not workflow.get("jobs"):
            found.append(f"{where}: no jobs")
            continue
        for name, job in workflow["jobs"].items():
            for step in job.get("steps", []):
                for script in re.findall(r"(?<!\S)((?:\./)?(?:tools|\.ci)/[\w./-]+)", step.get("run", "")):
                    if not (root / script).is_file():
                        found.append(f"{where}: job {name} runs {script}, which is not there")
    return found


def main() -> int:
    """Check the tree this script lies in."""
    found = problems(ROOT)
    print("\n".join(found) if found else "workflows: parsed")
    actionlint = shutil.which("actionlint", path=str(Path(sys.executable).parent)) or shutil.which("actionlint")
    status = subprocess.run([actionlint], cwd=ROOT).returncode if actionlint else 0
    return 1 if found or status else 0


if __name__ == "__main__":
    sys.exit(main())
