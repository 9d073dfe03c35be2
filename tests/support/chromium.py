"""A headless Chromium for the tests that need one; Debian's, never a downloaded one."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1000",
)
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER) and os.environ.get("CI") != "true", reason="no Chromium here"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium leaves the driver's pipes to the collector
]


def start(profile: Path, preferences: dict[str, Any] | None = None) -> Any:
    """Return a driver that is to be quit; preferences are Chromium's own."""
    assert CHROMIUM and DRIVER, "this test needs Chromium and its driver (Debian: chromium, chromium-driver)"
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", preferences or {})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
