"""Screenshot of a run's page for the documentation, by headless Chromium.

    python bench/figures_report.py RUN [--out docs/figures/refine_report.png] [--height 2600]

RUN is a folder of ``verglas refine``; its page is written again first.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from verglas.report.refine import write_refine_page

from common import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "refine_report.png")
    parser.add_argument("--height", type=int, default=2600)
    args = parser.parse_args()
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if browser is None:
        raise SystemExit("no Chromium on PATH (Debian: apt-get install chromium)")
    page = write_refine_page(args.run)
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size=1100,{args.height}",
                f"--screenshot={args.out.resolve()}",
                page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=180,
        )
    print(args.out)


if __name__ == "__main__":
    main()
