"""The page of `apt-assets review` in Chromium, where one is installed."""

import pytest

from apt_assets.method.splits import row_id
from tests import browsing, tiny
from tests.reviewing import asked, case, kept, without_data


@pytest.fixture
def project(tmp_path):
    return without_data(tmp_path)


@pytest.fixture(scope="module")
def browser():
    if reason := browsing.lacking():
        pytest.skip(reason)
    with browsing.chromium() as started:
        yield started


def test_whole_review_with_a_keyboard_alone(browser, desk_of, page_of, project):
    desk = desk_of([case("A?"), case("B?"), case("C?"), case("D?")], [asked("Moon?", "white")])
    shown = browser.new_page()
    errors = []
    shown.on("console", lambda message: errors.append(message.text))
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.goto(page_of(desk).address)

    def press(*keys, to):
        for key in keys:
            shown.keyboard.press(key)
        shown.wait_for_url(f"**/{to}")

    press("Enter", to="cases/1")
    press("g", to="cases/2")
    press("w", *"xgu", "Enter", to="cases/3")
    press("a", to="cases/4")
    press("u", to="cases/3")
    assert shown.query_selector("#decided") is None
    press("x", to="cases/4")
    press("p", to="cases/3")
    assert "left out" in shown.inner_text("#decided")
    press("n", to="cases/4")
    press("w", "Escape", "l", to="cases?page=1")
    press("Enter", to="cases/4")
    press("Tab", "Tab", "Tab", "Enter", to="cases")  # past both tabs to "gold is right"
    assert "All are decided" in shown.inner_text("main")
    assert [line[:3] for line in kept(project)] == [
        ("A?", "gold_is_right", None),
        ("B?", "both_wrong", "xgu"),
        ("C?", "answer_is_right_too", "blue"),
        ("C?", "undo", None),
        ("C?", "leave_out", None),
        ("D?", "gold_is_right", None),
    ]
    assert errors == []
    shown.close()


def test_phone_shows_all_of_a_case_within_its_width_with_buttons_for_a_finger(browser, desk_of, page_of, project):
    long = "Acetylaminofluorenedehydrogenase" * 8
    similar = {row_id(long): [{"prompt": long, "answer": "red", "prediction": long, "grade": 2, "similarity": 0.5}]}
    desk = desk_of([case(long, "red", long), case("B?")], [asked(long, long)], similar=similar)
    address = page_of(desk).address
    shown = browser.new_page(viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True)
    for path in ("cases", "cases/1", "asked", "asked/1"):
        shown.goto(address + path)
        assert shown.evaluate("document.documentElement.scrollWidth") == 360, path
    shown.goto(address + "cases/1")
    sizes = [button.bounding_box() for button in shown.query_selector_all("button, .button")]
    assert min(min(box["width"], box["height"]) for box in sizes) >= 44
    shown.tap("text=leave this row out")
    shown.wait_for_url("**/cases/2")
    assert [line[1] for line in kept(project)] == ["leave_out"]
    shown.close()


def test_hostile_text_runs_nothing_in_a_browser(browser, desk_of, page_of):
    similar = {row_id(tiny.HOSTILE): [{"prompt": tiny.HOSTILE, "answer": "red", "similarity": 0.5}]}
    address = page_of(desk_of([case(tiny.HOSTILE, tiny.HOSTILE, tiny.HOSTILE)], similar=similar)).address
    shown = browser.new_page()
    dialogs = []
    shown.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for path in ("cases", "cases/1"):
        shown.goto(address + path)
        assert shown.query_selector("img") is None
    assert shown.inner_text("#prompt") == tiny.HOSTILE
    assert dialogs == []
    shown.close()


def test_page_of_another_origin_cannot_decide_even_with_the_right_address(browser, desk_of, page_of, project):
    address = page_of(desk_of([case("A?"), case("B?")])).address
    form = f"<form method=post action={address}cases/1><input name=decision value=leave_out></form>"
    shown = browser.new_page()
    shown.route("http://elsewhere.example/", lambda route: route.fulfill(content_type="text/html", body=form))
    shown.goto("http://elsewhere.example/")
    with shown.expect_navigation(wait_until="load"):
        shown.evaluate("document.forms[0].submit()")
    assert shown.inner_text("body").startswith("refused: ")
    assert kept(project) == []
    shown.close()
