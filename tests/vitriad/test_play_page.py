"""The page of `vitriad play` in a browser: with a mouse, with the keyboard alone, for those who listen to it."""

import base64
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from backends import INSTALLED
from chromium import browser
from playwright.sync_api import Error, expect
from serving import serving
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from vitriad import models
from vitriad.playing.app import application
from vitriad.playing.players import TITLES, Player, open_player
from vitriad.web import WebLimits

THREE = next(file for file in models.digit_files() if file.name.startswith("3"))
LIMITS = WebLimits(body_bytes=200_000)
WINDOWS = {"desktop": (1280, 900), "phone": (375, 740)}
MARKUP = "<img src=x onerror=alert(1)>"


expect.set_options(timeout=120_000)


@pytest.fixture(scope="module")
def port():
    """Models: digits-vit and digits-vit-mae in every backend, one whose names are markup, and what does less."""
    players = [open_player(name) for name in models.NAMES]
    config = deepcopy(players[0].config)
    config.id2label = {i: f"{MARKUP} {label}" for i, label in config.id2label.items()}
    hostile = replace(players[0], name=MARKUP, config=config)
    blind = replace(players[0], looking=None)  # as an exported program of classes
    silent = replace(players[0], kind="encoder", answering={})
    with serving(lambda port: application([*players, hostile, blind, silent], port, LIMITS), LIMITS) as number:
        yield number


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture
def visit(chromium, port):
    """Opens the page with a model; at the end, nothing was asked of another address and nothing went wrong."""
    pages, problems, asked = [], [], []

    def opened(model=0, window="desktop", scheme="light"):
        width, height = WINDOWS[window]
        page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        pages.append(page)
        page.goto(f"http://127.0.0.1:{port}/")
        settled(page)
        if model:
            page.locator("#models span").nth(model).click()
            settled(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert [url for url in asked if not url.startswith((f"http://127.0.0.1:{port}/", "data:image/png;base64,"))] == []
    assert [text for text in problems if "422" not in text and "ERR_INTERNET_DISCONNECTED" not in text] == []


def settled(page):
    expect(page.locator("#status")).to_contain_text("patches.")


def drawn(page):
    """What the canvas shows."""
    return page.locator("#map").evaluate("canvas => canvas.toDataURL()")


def hidden(page):
    """Whether each patch is said to be hidden."""
    cells = page.locator("#patches [role=gridcell]")
    return cells.evaluate_all("cells => cells.map(cell => cell.getAttribute('aria-selected') === 'true')")


def test_a_digit_is_classified_by_every_backend_side_by_side(visit):
    page = visit()
    expect(page.get_by_role("columnheader")).to_have_count(1 + len(INSTALLED))
    for name in INSTALLED:
        expect(page.get_by_role("columnheader", name=TITLES[name])).to_contain_text(" ms")
    first = page.get_by_role("row").nth(1)
    expect(first.get_by_role("rowheader")).to_have_text("3")
    for bar in first.get_by_role("cell").all():
        share = float(bar.locator(".bar").evaluate("bar => bar.style.getPropertyValue('--share')").rstrip("%"))
        np.testing.assert_allclose(share, float(bar.inner_text().rstrip("%")), atol=0.051)
        assert share > 50
    said = page.locator("#classes-note").inner_text()
    assert said.startswith("Largest difference between two backends: ") == (len(INSTALLED) > 1)


@pytest.mark.long
def test_images_are_chosen_pasted_and_dropped(visit):
    page = visit()
    digit = next(file for file in models.digit_files() if file.name.startswith("8"))
    page.get_by_label("Choose an image").set_input_files(digit)
    expect(page.locator("#status")).to_contain_text(digit.name)
    expect(page.get_by_role("rowheader").first).to_have_text("8")
    moved = """([text, type]) => {
      const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], `${type}.png`, { type: "image/png" }));
      const event = type === "paste"
        ? new ClipboardEvent(type, { clipboardData: data, bubbles: true })
        : new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    }"""
    for number, kind in enumerate(("paste", "drop")):
        file = models.digit_files()[number * 2]
        page.evaluate(moved, [base64.b64encode(file.read_bytes()).decode(), kind])
        expect(page.locator("#status")).to_contain_text(f"{kind}.png")
        expect(page.get_by_role("rowheader").first).to_have_text(file.name[0])


@pytest.mark.long
def test_layers_and_heads_are_gone_through_with_the_keyboard(visit):
    page = visit()
    pictures = {drawn(page)}
    page.get_by_role("radio", name="Rollout").focus()
    page.keyboard.press("ArrowRight")
    layer, head = page.get_by_role("slider", name="Layer"), page.get_by_role("slider", name="Head")
    expect(layer).to_have_attribute("aria-valuetext", "2 (0 to 2)")
    expect(head).to_have_attribute("aria-valuetext", "mean of all")
    for number in range(4):
        pictures.add(drawn(page))
        head.focus()
        page.keyboard.press("ArrowRight")
        expect(head).to_have_attribute("aria-valuetext", str(number))
    layer.focus()
    page.keyboard.press("ArrowLeft")
    expect(layer).to_have_attribute("aria-valuetext", "1 (0 to 2)")
    pictures.add(drawn(page))
    expect(page.locator("#map")).to_have_attribute("aria-label", "Attention, layer 1, head 3." + said_peak(page))
    for name in ("Features", "Image"):
        page.locator("#views").get_by_text(name, exact=True).click()
        expect(layer).to_be_hidden()
        pictures.add(drawn(page))
    assert len(pictures) == 8


def said_peak(page):
    text = page.locator("#look-note").inner_text()
    return text[text.index(" Highest in row") :]


def test_patches_are_hidden_by_clicks_keys_and_the_slider(visit):
    page = visit(1)
    expect(page.locator("#hidden-said")).to_have_text("12 of 16 (75%)")
    before, painted = hidden(page), page.locator("#paint-painted")
    was = painted.get_attribute("src")
    number = before.index(True)
    page.locator("#patches [role=gridcell]").nth(number).click()
    expect(page.locator("#hidden-said")).to_have_text("11 of 16 (69%)")
    expect(painted).not_to_have_attribute("src", was)
    assert hidden(page) == [each and i != number for i, each in enumerate(before)]
    was = painted.get_attribute("src")
    page.keyboard.press("Space")
    expect(painted).not_to_have_attribute("src", was)
    assert hidden(page) == before
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    row = number // 4 + (number < 12)
    expect(page.locator("#patches :focus")).to_have_attribute("aria-label", f"row {row + 1}, column 1")
    settled(page)
    was = painted.get_attribute("src")
    page.get_by_role("slider", name="Hidden patches").fill("8")
    expect(painted).not_to_have_attribute("src", was)
    expect(page.locator("#hidden-said")).to_have_text("8 of 16 (50%)")
    half, was = hidden(page), painted.get_attribute("src")
    page.get_by_role("button", name="Hide others").click()
    expect(painted).not_to_have_attribute("src", was)
    assert hidden(page) != half and sum(hidden(page)) == sum(half) == 8
    expect(page.locator("#paint-table tbody tr")).to_have_count(len(INSTALLED))


@pytest.mark.long
def test_one_patch_stays_hidden_and_one_visible(visit):
    page = visit(1)
    page.get_by_role("slider", name="Hidden patches").fill("1")
    expect(page.locator("#hidden-said")).to_have_text("1 of 16 (6%)")
    expect(page.locator("#patches [aria-selected=true]")).to_have_count(1)
    page.locator("#patches [aria-selected=true]").click()
    expect(page.get_by_role("alert")).to_have_text("One patch has to stay hidden.")
    expect(page.locator("#patches [aria-selected=true]")).to_have_count(1)


@pytest.mark.long
def test_a_bad_file_is_named_and_nothing_old_stays(visit):
    page = visit()
    chosen = page.get_by_label("Choose an image")
    chosen.set_input_files({"name": "letter.png", "mimeType": "image/png", "buffer": b"hello"})
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("letter.png: cannot be decoded")
    for part in ("#classes", "#look"):
        expect(page.locator(part)).to_be_hidden()
    chosen.set_input_files({"name": "large.png", "mimeType": "image/png", "buffer": bytes(LIMITS.body_bytes + 1)})
    expect(alert).to_have_text("large.png: larger than 0.2 MB.")
    chosen.set_input_files(THREE)
    settled(page)
    expect(alert).to_be_empty()
    expect(page.locator("#classes")).to_be_visible()


@pytest.mark.long
def test_a_server_that_is_gone_is_said(visit):
    page = visit()
    page.context.set_offline(True)
    page.get_by_label("Choose an image").set_input_files(THREE)
    expect(page.get_by_role("alert")).to_have_text("The server does not answer. Is vitriad play still running?")
    page.context.set_offline(False)


def test_names_of_models_and_classes_are_texts(visit):
    page = visit(2)
    expect(page.locator("#models span").nth(2)).to_have_text(MARKUP)
    expect(page.get_by_role("rowheader").first).to_have_text(f"{MARKUP} 3")
    expect(page.locator("img[src=x]")).to_have_count(0)


def test_the_policy_holds_in_the_browser(chromium, port):
    page = chromium.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    with pytest.raises(Error, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>bold</b>'")
    asked = "fetch('http://localhost:1/').then(() => 'sent', error => error.name)"
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    assert page.evaluate(asked) == "TypeError"
    assert any("Content Security Policy" in text for text in refused)
    page.close()


def test_a_page_of_another_site_gets_no_answer_and_no_work_done(chromium, port, monkeypatch):
    read, asked = [], []
    monkeypatch.setattr(Player, "read", lambda self, content, limits: read.append(content))
    other = Starlette(routes=[Route("/", lambda _: HTMLResponse("<title>another site</title>"))])
    url = f"http://127.0.0.1:{port}/api/models/0/seen"
    send = (
        """([url, mode]) => fetch(url, { method: "POST", mode, body: "x" }).then(() => "read", error => error.name)"""
    )
    with serving(lambda _: other, LIMITS) as elsewhere:
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{elsewhere}/")
        page.on("requestfailed", lambda request: asked.append(request.url))
        assert [page.evaluate(send, [url, mode]) for mode in ("no-cors", "cors")] == ["TypeError"] * 2
        page.close()
    assert (read, asked) == ([], [url, url])  # it was asked, and did nothing


@pytest.mark.parametrize(("model", "shown"), [(3, "#classes"), (4, "#look")])
def test_what_a_model_does_not_give_is_not_shown(visit, model, shown):
    page = visit(model)
    visible = [part for part in ("#classes", "#paint", "#look") if page.locator(part).is_visible()]
    assert visible == [shown]
    assert violations(page) == []


@pytest.mark.every_day("desktop-light-0", "phone-dark-1")
@pytest.mark.parametrize("model", [0, 1, 2])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", WINDOWS)
def test_axe_finds_nothing_and_nothing_sticks_out(visit, window, scheme, model):
    page = visit(model, window, scheme)
    page.get_by_text("Heads", exact=True).click()
    assert violations(page) == []
    page.get_by_label("Choose an image").set_input_files({"name": "a", "mimeType": "image/png", "buffer": b"hello"})
    expect(page.get_by_role("alert")).not_to_be_empty()
    assert violations(page) == []


def violations(page):
    found = [each["id"] for each in Axe().run(page).response["violations"]]
    wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return found + ["wider than the window"] * wide


def test_axe_can_find_something(visit):
    page = visit()
    page.evaluate("document.querySelector('#source label').style.color = '#0f7d78'")
    assert "color-contrast" in violations(page)


@pytest.mark.long
def test_everything_is_reached_with_the_tab_key_in_the_order_of_the_page(visit):
    page = visit(1)  # the choice of models has the focus
    found = ["model"]
    for _ in range(len(models.digit_files()) + 8):
        page.keyboard.press("Tab")
        active = page.evaluate("[document.activeElement].map(({ id, name, tagName }) => id || name || tagName)[0]")
        found += [active] * (active != found[-1])
    assert found[:7] == ["model", "file", "BUTTON", "hidden-count", "another", "DIV", "view"]
