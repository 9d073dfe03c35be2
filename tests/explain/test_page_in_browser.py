"""The page in a real headless browser: a click on a patch changes the pictures."""

import pytest

from rfclip.explain.figures import PLOTS
from rfclip.explain.report import write
from tests.support import chromium

PICTURES = "return [...document.querySelectorAll('#interactive canvas')].map(canvas => canvas.toDataURL())"
pytestmark = chromium.MARKS


@pytest.fixture
def page(explanation, tmp_path):
    return write(explanation, tmp_path / "out", "photo", {"Method": "a test" * 20}, ["labels", "budget"])[0].as_uri()


def open_page(browser, page):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page)
    WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.body.dataset.ready === 'yes'"))


def test_a_click_shows_the_attention_of_another_patch(browser, page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    narrow = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}  # the picture is shown smaller
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    open_page(browser, page)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    widths = "return [...document.querySelectorAll('figure img')].map(image => [image.width, image.naturalWidth])"
    assert all(shown == min(natural, 1200) for shown, natural in browser.execute_script(widths))
    before = browser.execute_script(PICTURES)
    assert len(before) == 2 + 2 * 3  # the picture, the colour bar, before and after in three layers
    picture = browser.find_element(By.ID, "picture")
    assert browser.find_element(By.ID, "chosen").text == "Chosen: row 1, column 6"

    width, height = picture.size["width"], picture.size["height"]
    assert width < 340 and width / height == pytest.approx(1.5, abs=0.01)
    offset = (round((1.5 / 6 - 0.5) * width), round((2.5 / 4 - 0.5) * height))
    ActionChains(browser).move_to_element_with_offset(picture, *offset).click().perform()
    assert browser.find_element(By.ID, "chosen").text == "Chosen: row 3, column 2"
    after = browser.execute_script(PICTURES)
    changed = [one != other for one, other in zip(before, after, strict=True)]
    assert changed == [True, False] + [True] * 6

    picture.send_keys(Keys.ARROW_RIGHT)
    assert browser.find_element(By.ID, "chosen").text == "Chosen: row 3, column 3"
    assert browser.execute_script(PICTURES)[2:] != after[2:]
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_colours_are_those_of_the_arrays(browser, page, explanation):
    open_page(browser, page)
    canvas = "document.querySelectorAll('#layers canvas')[5]"  # block 2, after
    script = f"""
        const canvas = {canvas}, size = canvas.width / 6, context = canvas.getContext('2d');
        return [...Array(24).keys()].map(index => [...context.getImageData(
            (index % 6 + 0.5) * size, (Math.floor(index / 6) + 0.5) * size, 1, 1).data])"""
    drawn = browser.execute_script(script)
    data = browser.execute_script("return JSON.parse(document.getElementById('data').textContent)")
    values = explanation.after[2, 5] * 24 / data["top"]  # the patch in row 1, column 6
    for pixel, value in zip(drawn, values, strict=True):
        expected = [
            data["colours"][min(255, max(0, round(255 * min(value, 1) ** 0.5) + slack))] for slack in (-1, 0, 1)
        ]
        assert "#{:02x}{:02x}{:02x}".format(*pixel[:3]) in expected


def test_without_javascript_the_page_is_readable(page, tmp_path):
    from selenium.webdriver.common.by import By

    driver = chromium.start(tmp_path / "profile", {"profile.managed_default_content_settings.javascript": 2})
    try:
        driver.get(page)
        assert not driver.find_element(By.ID, "interactive").is_displayed()
        for name in ("labels", "budget"):
            section = driver.find_element(By.ID, name)
            assert section.is_displayed() and PLOTS[name].title in section.text
            assert section.find_element(By.TAG_NAME, "img").size["width"] > 300
    finally:
        driver.quit()
