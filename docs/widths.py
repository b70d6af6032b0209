"""Open each page of the built site in chromium; fail if one is too wide, lacks a picture or loads from elsewhere.

`make docs` runs this; without selenium and chromium it says so and checks nothing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

SITE = Path(__file__).resolve().parent / "_build" / "html"
WIDTHS = (1280, 390)
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
# Elements may be wider than the column only inside something that scrolls.
SCRIPT = """
const found = [], wide = document.documentElement.clientWidth
if (document.documentElement.scrollWidth > wide + 1) found.push(`page is ${document.documentElement.scrollWidth} wide`)
const column = document.querySelector('article.bd-article') || document.body
const right = Math.min(column.getBoundingClientRect().right, wide) + 2
for (const element of column.querySelectorAll('*')) {
  const box = element.getBoundingClientRect()
  if (!box.width || box.right <= right) continue
  let scrolls = false
  for (let each = element; each && each !== column; each = each.parentElement)
    scrolls ||= ['auto', 'scroll'].includes(getComputedStyle(each).overflowX) ||
      (each !== element && getComputedStyle(each).overflowX === 'hidden')
  if (!scrolls) found.push(`${element.tagName} is cut: ${element.textContent.slice(0, 40)}`)
}
for (const image of document.images) if (!image.naturalWidth) found.push(`no picture: ${image.src}`)
for (const entry of performance.getEntriesByType('resource'))
  if (!/^(file|data|blob):/.test(entry.name)) found.push(`loads ${entry.name}`)
return found.slice(0, 5)
"""


def main() -> None:
    """Visit all pages at each width."""
    if not (BROWSER and DRIVER and importlib.util.find_spec("selenium")):
        print("Widths of pages are not checked: that needs selenium, chromium and chromedriver.")
        return
    from selenium import webdriver  # noqa: PLC0415
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--allow-file-access-from-files"):
        options.add_argument(argument)
    if os.name == "posix" and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # chromium's sandbox does not start for root, as in a container
    wrong = []
    with webdriver.Chrome(options=options, service=Service(DRIVER)) as driver:
        for page in sorted(SITE.rglob("*.html")):
            if "_static" in page.parts:
                continue
            for width in WIDTHS:
                metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
                driver.get(page.as_uri())
                wrong += [f"{page.relative_to(SITE)}, {width}: {what}" for what in driver.execute_script(SCRIPT)]
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
