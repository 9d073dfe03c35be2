"""The demo, started as a user starts it and clicked through in a headless Chromium."""

import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support import chromium
from tests.support.demo_process import address_in, running

ROOT = Path(__file__).parents[2]
pytestmark = chromium.MARKS
PATIENCE = 120  # seconds
READY = "return document.body.dataset.ready === 'yes'"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo's address; it runs until the module's tests are done."""
    with running(tmp_path_factory.mktemp("demo")) as said:
        yield address_in(said)


@pytest.fixture
def page(browser: Any, address: str) -> Any:
    browser.get(address)
    until(browser, lambda: find(browser, "#go"))
    return browser


def find(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def until(browser: Any, condition: Any) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, PATIENCE).until(lambda _: condition())


def enter(browser: Any, frame: str) -> None:
    """Go into a page that is shown in the demo, once it is drawn."""
    until(browser, lambda: find(browser, frame))
    browser.switch_to.frame(find(browser, frame)[0])
    until(browser, lambda: browser.execute_script(READY))


def said(browser: Any) -> str:
    return browser.find_element("tag name", "body").text


def preview_size(browser: Any) -> list[int]:
    return browser.execute_script(
        "const image = document.querySelector('#preview img'); return [image.naturalWidth, image.naturalHeight]"
    )


def send(browser: Any, picture: Path) -> None:
    """Upload a picture."""
    find(browser, "#upload input[type=file]")[0].send_keys(str(picture))


def test_upload_segment_and_explain(page: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    from rfclip.demo.studio import sample

    Image.fromarray(sample("drawn scene")[:, :200]).save(tmp_path / "mine.png")
    send(page, tmp_path / "mine.png")
    until(page, lambda: "mine.png: 200 x 240 pixels" in find(page, "#preview")[0].text)
    assert preview_size(page) == [200, 240]
    button = find(page, "#go")[0].rect
    assert button["y"] + button["height"] < 900  # to be reached without scrolling
    assert not find(page, "#opacity")  # it is beside the result
    find(page, "#go")[0].click()

    enter(page, "#result iframe")
    legend = [entry.text.split("\n") for entry in find(page, "#legend button")]
    assert {name for name, _ in legend} <= {"sky", "grass", "cat", "building"}
    assert sum(float(share.rstrip("%")) for _, share in legend) == pytest.approx(100, abs=0.3)
    canvas = find(page, "#canvas")[0]
    assert page.execute_script("return [arguments[0].width, arguments[0].height]", canvas) == [200, 240]
    ActionChains(page).move_to_element_with_offset(canvas, 5, 5).perform()
    assert re.fullmatch(r"(sky|grass|cat|building), probability [01][.]\d\d", find(page, "#under")[0].text)

    canvas.send_keys(Keys.ARROW_LEFT * 30 + Keys.ARROW_DOWN * 30)
    assert re.match("(sky|grass|cat|building), probability", find(page, "#under")[0].text)

    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    for name in ("overlay", "labels"):
        find(page, f"a[download='{name}.png']")[0].click()
        until(page, (tmp_path / f"{name}.png").is_file)
        with Image.open(tmp_path / f"{name}.png") as saved:
            assert saved.size == (200, 240)

    drawn = "return [...arguments[0].getContext('2d').getImageData(0, 0, 200, 240).data]"
    opaque = page.execute_script(drawn, canvas)
    page.execute_script(
        "const s = document.getElementById('opacity'); s.value = 0; s.dispatchEvent(new Event('input'))"
    )
    picture = page.execute_script(drawn, canvas)
    assert picture != opaque
    assert picture[:3] == sample("drawn scene")[0, 0].tolist()
    find(page, "#legend button")[0].click()
    assert find(page, "#legend button")[0].get_attribute("aria-pressed") == "true"
    page.switch_to.default_content()

    find(page, "button[role=tab]")[1].click()
    until(page, lambda: find(page, "#why")[0].is_displayed())
    find(page, "#why")[0].click()
    enter(page, "#explanation iframe")
    assert "What RefocusCLIP does with the picture" in said(page)
    assert find(page, "#picture")
    page.switch_to.default_content()
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_new_picture_makes_the_result_old_and_the_sample_comes_back(page: Any, tmp_path: Path) -> None:
    def sample_button() -> Any:
        return find(page, "#samples input")[0]

    Image.new("RGB", (17000, 20), "red").save(tmp_path / "slim.png")
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    find(page, "#go")[0].click()
    until(page, lambda: find(page, "#result iframe"))
    until(
        page, lambda: page.execute_script("return document.querySelector('#result').getBoundingClientRect().top < 400")
    )
    assert not find(page, "#result[data-stale]")

    send(page, tmp_path / "slim.png")
    until(page, lambda: preview_size(page) == [1000, 62])
    until(page, lambda: find(page, "#result[data-stale]"))
    assert not sample_button().is_selected()
    find(page, "#go")[0].click()
    until(page, lambda: not find(page, "#result[data-stale]"))
    enter(page, "#result iframe")
    assert find(page, "#canvas")[0].size["height"] == 12
    page.switch_to.default_content()

    page.execute_script("arguments[0].click()", sample_button())
    until(page, lambda: preview_size(page) == [320, 240])
    assert sample_button().is_selected()
    until(page, lambda: "slim" not in find(page, "#upload")[0].text)
    assert find(page, "#result[data-stale]")


def test_refusals_are_shown_and_the_page_stays(page: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    send(page, tmp_path / "bad.png")
    until(page, lambda: "bad.png cannot be read as a picture" in said(page))
    assert preview_size(page) == [320, 240]

    words = find(page, "#words textarea, #words input")[0]
    words.clear()
    words.send_keys("/etc/<b>passwd</b>.txt")
    find(page, "#go")[0].click()
    until(page, lambda: "the page reads no vocabulary files" in said(page))
    assert find(page, "#go")[0].is_enabled()


@pytest.mark.parametrize("path", ["/gradio_api/file=/etc/passwd", "/gradio_api/file=" + str(ROOT / "setup.py")])
def test_files_of_this_machine_are_not_served(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(address + path)
    assert refused.value.code in (403, 404)
    refused.value.close()


def test_a_taken_port_is_one_sentence(address: str) -> None:
    command = [sys.executable, str(ROOT / "tools/demo.py"), "--model=tiny", f"--port={address.rpartition(':')[2]}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
