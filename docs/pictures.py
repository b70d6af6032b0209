"""Run the code of gallery.md, and write the picture of each figure to docs/gallery; that of the report needs chromium.

python docs/pictures.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

FOLDER = Path(__file__).resolve().parent
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HEADLESS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1500")


def main() -> None:
    """Draw all pictures."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (FOLDER / "gallery.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (FOLDER / "gallery").mkdir(exist_ok=True)
    names: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for block in blocks:
            exec(compile(block, "gallery.md", "exec"), names)  # noqa: S102 - our own page
            drawn = re.search(r"sh\.pl\.(\w+)", block)
            if drawn and plt.get_fignums():
                plt.gcf().savefig(FOLDER / "gallery" / f"{drawn[1]}.png", dpi=110, bbox_inches="tight")
                plt.close("all")
                print(drawn[1], flush=True)
            elif drawn and drawn[1] == "report" and BROWSER:
                picture, page = FOLDER / "gallery" / "report.png", Path("report.html").resolve().as_uri()
                options = [*HEADLESS, "--virtual-time-budget=3000", f"--screenshot={picture}"]
                subprocess.run([BROWSER, *options, page], check=True, capture_output=True)  # noqa: S603 - our own page
                Image.open(picture).quantize(128).save(picture, optimize=True)
                print("report", flush=True)
        os.chdir(FOLDER)


if __name__ == "__main__":
    main()
