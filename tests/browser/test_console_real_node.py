"""The main job by hand: a document through a whole node's playground, and the same to a forbidden place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
from pages import text_pdf
from playwright.sync_api import Page, sync_playwright
from running_node import ALLOD, running_node
from test_console_pages import ARGUMENTS, CHROMIUM

ELSEWHERE = "mistral-ocr-latest"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium package"),
]


def _send(page: Page, model: str) -> None:
    document = {"name": "letter.pdf", "mimeType": "application/pdf", "buffer": text_pdf("Befund", "Hb 13,1")}
    page.set_input_files("#document", document)
    page.select_option("#model", model)
    page.check("input[value=restricted]", force=True)
    page.check("input[value=health]", force=True)
    page.click("form.send button")


def test_a_document_is_read_here_refused_elsewhere_and_both_receipts_verify(tmp_path: Path) -> None:
    home = tmp_path / "home"
    subprocess.run([*ALLOD, "init", "--home", str(home)], check=True, capture_output=True)
    (home / "sites" / "mistral.toml").write_text(
        'catalogue = "mistral"\n[provider]\nkey = "env:ALLOD_TEST_NO_SUCH_KEY"\n'
        f'[provider.models."{ELSEWHERE}"]\nkind = "ocr"\n'
    )
    with running_node(home) as node, sync_playwright() as p:
        node.wait_ready()
        browser = p.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{node.url}/console/playground/document")
        page.fill("#key", node.admin_key)
        page.click("main button[type=submit]")  # and back to the page that was asked for

        _send(page, "allod-ocr")
        page.wait_for_selector(".answer")
        assert "Hb 13,1" in page.inner_text(".answer")
        assert page.inner_text("#result-title").startswith("Answered by allod-ocr at site local")
        assert page.locator(".map .station.done").count() == 8

        _send(page, ELSEWHERE)
        page.wait_for_selector("#result-title.bad")
        assert page.inner_text("#result-title").startswith("Refused: restricted (health) data")
        assert page.locator(".map .barrier").count() == 1
        assert "3.1-own-machines" in page.inner_text(".stations .reasons")

        for row in (0, 1):
            page.goto(f"{node.url}/console/")
            page.locator(".receipt-link").nth(row).click()
            page.click("text=Verify this receipt")
            page.wait_for_selector(".verdict")
            assert page.inner_text(".verdict").strip() == "This receipt verifies."
        browser.close()
