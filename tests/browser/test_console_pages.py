"""The console in a real browser: accessible, inert to hostile text, silent, whole without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")
from console_process import console_process  # noqa: E402
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
AXE = (Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js").read_text("utf-8")
ANSWERED, BROKEN, REFUSED, HOSTILE = (f"receipts/r-01KAK{n:021d}" for n in (1, 2, 3, 6))
PAGES = [
    "", ANSWERED, REFUSED, HOSTILE, "playground", "playground/document", "nowhere", "models/ministral-3b",
    "models/house-test",
]  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium package"),
]


@pytest.fixture(scope="module")
def console() -> Iterator[str]:
    """The address of a console over the tests' own node."""
    with console_process() as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


class Watch:
    """Everything a page must not do: break its content policy, run what it shows, contact anyone else."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.complaints: list[str] = []
        origin = base.partition("/console")[0]
        context.on(
            "request", lambda r: r.url.startswith(origin) or self.complaints.append(f"contacted {r.url}")
        )
        context.on("dialog", lambda d: (self.complaints.append(f"dialog {d.message}"), d.dismiss()))
        context.on("weberror", lambda e: self.complaints.append(f"script error {e.error}"))
        context.on("console", self._console)

    def _console(self, message: Any) -> None:
        if message.type == "error" and "status of 4" not in message.text:
            self.complaints.append(message.text)


def sign_in(context: BrowserContext, base: str, key: str = "allod_own_1") -> Page:
    page = context.new_page()
    page.goto(base)
    page.fill("#key", key)
    page.click("main button[type=submit]")
    page.wait_for_selector("#state")
    return page


def violations(page: Page) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [f"{v['id']}: {n['html'][:160]} {n['failureSummary'][:200]}" for v in found for n in v["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "dark")])
def test_every_page_passes_axe(console: str, chromium: Browser, width: int, scheme: Any) -> None:
    with chromium.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
    ) as context:
        page = context.new_page()
        page.goto(console)
        found = violations(page)
        page.close()
        page = sign_in(context, console)
        for path in PAGES:
            page.goto(console + path)
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            found += [f"{path or 'node'}: {v}" for v in violations(page)]
        page.goto(console + ANSWERED)
        page.click("#verify-title ~ form button")
        page.wait_for_selector(".verdict")
        found += violations(page)
        for data_class in ("internal", "restricted"):
            page.goto(console + "playground")
            page.fill("#prompt", "Good morning")
            page.check(f"input[value={data_class}]", force=True)
            page.click("form.send button")
            page.wait_for_selector("#result-title")
            found += violations(page)
        page.goto(console)
        page.click(".not button")
        found += violations(page)
        assert not found, "\n".join(sorted(set(found)))


def test_hostile_text_stays_text_and_the_content_policy_holds(console: str, chromium: Browser) -> None:
    with chromium.new_context() as context:
        watch = Watch(context, console)
        context.add_init_script(
            "window.broken = [];"
            "addEventListener('securitypolicyviolation', e => window.broken.push(e.violatedDirective))"
        )
        page = sign_in(context, console, "allod_xss_1")
        page.goto(console + "playground")
        page.fill("#prompt", "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>")
        page.click("form.send button")
        page.wait_for_selector("#result-title")
        assert "<script>window.pwned=1</script>" in page.inner_text(".answer")
        assert page.evaluate("[window.pwned === undefined, window.broken.length]") == [True, 0]
        page.goto(console + "playground/document")
        page.set_input_files(
            "#document", {"name": '"><script>.pdf', "mimeType": "x/y", "buffer": b"%PDF-1.7 x"}
        )
        page.click("form.send button")
        page.wait_for_selector("#page-2")
        page.context.clear_cookies()
        page = sign_in(context, console)
        for path in PAGES:
            page.goto(console + path)
            assert page.evaluate("[window.pwned === undefined, window.broken.length]") == [True, 0], path
            assert page.locator("main script, main img, [onerror], [style]").count() == 0, path
        page.goto(console + HOSTILE)
        assert "<img src=x onerror=alert(1)>" in page.inner_text("h1")
        assert "{{7*7}}" in page.inner_text("h1")
        assert watch.complaints == []


def test_the_whole_job_is_done_by_keyboard(console: str, chromium: Browser) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(console)
        page.keyboard.type("allod_own_1")  # the field has the focus from the start
        page.keyboard.press("Enter")
        page.wait_for_selector("#state")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"

        page.locator(".not button").first.focus()
        page.keyboard.press("Enter")
        why = page.locator(".why:popover-open")
        assert "machines of the organisation itself" in why.inner_text()
        page.keyboard.press("Escape")
        assert page.locator(".why:popover-open").count() == 0
        assert page.evaluate("document.activeElement.matches('.not button')")

        page.goto(console + "playground")
        page.focus("#prompt")
        page.keyboard.type("Good morning")
        page.focus("input[name=data_class]")
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        assert page.is_checked("input[value=restricted]")
        page.focus("form.send button")
        page.keyboard.press("Enter")
        page.wait_for_selector("#result-title")
        page.wait_for_function("() => document.activeElement.id === 'result-title'")
        assert page.inner_text("#result-title").startswith("Refused")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#verify-title")
        assert "Refused" in page.inner_text("h1")


def test_focus_is_always_visible(console: str, chromium: Browser) -> None:
    with chromium.new_context() as context:
        page = sign_in(context, console)
        unseen = []
        for _ in range(40):
            page.keyboard.press("Tab")
            style = page.evaluate(
                "(() => { const e = document.activeElement, s = getComputedStyle(e);"
                " return [e.outerHTML.slice(0, 80), s.outlineStyle, parseFloat(s.outlineWidth)] })()"
            )
            if style[1] == "none" or style[2] < 2:
                unseen.append(style)
        assert unseen == []


def test_everything_works_without_javascript(console: str, chromium: Browser) -> None:
    with chromium.new_context(java_script_enabled=False) as context:
        page = sign_in(context, console)
        assert page.locator(".exchanges tbody tr").count() > 0
        assert page.is_hidden("text=Pause updates")
        page.click("a.receipt-link >> nth=1")
        page.click("text=Verify this receipt")
        assert "This receipt verifies" in page.inner_text("#verification")
        page.goto(console + BROKEN)
        page.click("text=Verify this receipt")
        assert "does NOT verify" in page.inner_text("#verification")
        page.goto(console + "playground")
        page.fill("#prompt", "Good morning")
        page.click("form.send button")
        assert page.inner_text(".answer") == "You said: Good morning"
        assert page.input_value("#prompt") == "Good morning"
        page.goto(console + "playground/document")
        page.set_input_files("#document", {"name": "a.pdf", "mimeType": "x/y", "buffer": b"%PDF-1.7 x"})
        page.click("form.send button")
        assert "Arztbrief" in page.inner_text(".answer >> nth=0")
        page.click("text=Sign out")
        assert page.is_visible("#key")


@pytest.mark.parametrize("language", ["en", "fr", "de"])
def test_at_320_pixels_nothing_scrolls_sideways(console: str, chromium: Browser, language: str) -> None:
    with chromium.new_context(viewport={"width": 320, "height": 640}) as context:
        page = sign_in(context, f"{console}?lang={language}")
        wide = []
        for path in PAGES:
            page.goto(f"{console}{path}?lang={language}")
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wide.append(path)
        assert wide == []
        assert page.get_attribute("html", "lang") == language


def test_new_exchanges_arrive_by_themselves_and_are_announced_once(console: str, chromium: Browser) -> None:
    with chromium.new_context() as context:
        page = sign_in(context, console)
        before = page.locator(".exchanges tbody tr").first.get_attribute("id")
        assert page.inner_text("#exchange-news") == ""
        page.locator(".receipt-link").first.focus()
        other = context.new_page()
        other.goto(console + "playground")
        other.fill("#prompt", "Good morning")
        other.click("form.send button")
        other.wait_for_selector("#result-title")
        news = "() => document.querySelector('#exchange-news').textContent === '1 new exchange'"
        page.wait_for_function(news, timeout=9_000)
        assert page.locator(".exchanges tbody tr").first.get_attribute("id") != before
        assert page.evaluate("document.activeElement.matches('.receipt-link')")
        page.goto(console + "?live=off")
        assert page.locator("#exchanges[hx-get]").count() == 0
