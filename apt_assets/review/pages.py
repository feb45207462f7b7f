"""The pages of a desk as HTML; every text of a row or a model is escaped (report/html.py)."""

from collections.abc import Mapping
from typing import Any

from apt_assets.landing.asked import Asked
from apt_assets.method.check import Check
from apt_assets.report.html import Table, render
from apt_assets.review.desk import KINDS, Desk
from apt_assets.review.queue import Answer, Case, Item

SHOWN = 50  # items of a page of the list
TITLES = {"cases": "bad cases", "asked": "asked questions", "grades": "answers to grade"}
LONGEST = 20_000  # characters of a text on the page
DECIDED = {
    "gold_is_right": "gold is right",
    "answer_is_right_too": "answer is right too",
    "both_wrong": "both wrong",
    "leave_out": "left out",
    "new_row": "lands as a row",
    "no_row": "no row",
}


def list_page(desk: Desk, kind: str, page: int, nonce: str) -> str:
    items = desk.items(kind)
    pages = max(-(-len(items) // SHOWN), 1)
    page = min(max(page, 1), pages)
    first = (page - 1) * SHOWN
    rows = [line_of(desk, number, item) for number, item in enumerate(items[first : first + SHOWN], first + 1)]
    return render(
        "review_list.html",
        **head(desk, kind, nonce),
        base="",
        rows=rows,
        page=page,
        pages=pages,
        start=desk.following(kind, 0),
    )


def approval_page(desk: Desk, nonce: str) -> str:
    passed = desk.approvals.last()
    told = None
    if passed is not None:
        told = {
            "iteration": int(passed.iteration),
            "of": passed.of,
            "scale": passed.scale,
            "checks": [Check(**check).sentence() for check in passed.checks],
            "decided": passed.decided and in_words(passed.decided),
        }
    return render("review_approval.html", **head(desk, "approval", nonce), base="", passed=told)


def in_words(decision: Mapping[str, Any]) -> str:
    return f"{decision['event'].capitalize()}: {decision['reason']} ({decision['by']}, {minute(decision['time'])})"


def line_of(desk: Desk, number: int, item: Item) -> dict[str, Any]:
    doubt = item.doubt if isinstance(item, Case) else None
    gold = "-" if isinstance(item, Asked) else " or ".join(item.golds)
    return {
        "number": number,
        "doubt": "-" if doubt is None else f"{doubt:.2f}",
        "prompt": item.prompt,
        "gold": gold,
        "prediction": item.prediction,
        "decision": state(desk, item),
    }


def state(desk: Desk, item: Item) -> str:
    if grade := desk.grade(item):
        return f"your grade: {grade}"
    found = desk.decision(item)
    return "" if found is None else DECIDED[found["decision"]]


def item_page(desk: Desk, kind: str, number: int, nonce: str) -> str:
    item = desk.item(kind, number)
    found = desk.decision(item)
    return render(
        "review_item.html",
        **head(desk, kind, nonce),
        base="../",
        page=-(-number // SHOWN),
        number=number,
        total=len(desk.items(kind)),
        about=about(item),
        prompt=bearable(item.prompt),
        golds=[bearable(gold) for gold in item.golds] if not isinstance(item, Asked) else [],
        prediction=bearable(item.prediction),
        answered=bool(item.prediction.strip()),
        case=isinstance(item, Case),
        decided=None if found is None else decided(found),
        grade=desk.grade(item),
        similar=similar(desk, item) if isinstance(item, Case) else None,
    )


def bearable(text: str) -> str:
    """A text, or its beginning and end, and how much stands between."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters are not shown …\n{text[-half:]}"


def about(item: Item) -> list[str]:
    if isinstance(item, Answer):
        return ["drawn among all answers, whatever the assessor says of them"]
    if isinstance(item, Asked):
        times = f"asked {item.times} times" if item.times > 1 else "asked once"
        return [times, f"last {minute(item.asked_at)}", *([f"answered by {item.adapter}"] if item.adapter else [])]
    other = [f"similar rows have: {item.other}"] if item.other else []
    doubt = "not ranked" if item.doubt is None else f"doubt of the gold {item.doubt:.2f}"
    return [doubt, f"grade {item.grade}", *other]


def decided(found: Any) -> str:
    answer = f": {found['answer']}" if found["answer"] else ""
    return f"{DECIDED[found['decision']]}{answer} ({found['by']}, {minute(found['at'])})"


def minute(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UTC"


def similar(desk: Desk, item: Case) -> Table | None:
    rows = desk.queue.similar.get(item.row_id)
    if not rows:
        return None
    columns = {
        "prompt": "question",
        "answer": "gold",
        "prediction": "the policy said",
        "grade": "grade",
        "similarity": "similarity",
    }
    names = [name for name in columns if name in rows[0]]
    return Table([columns[name] for name in names], [[row[name] for name in names] for row in rows], texts=(0,))


def head(desk: Desk, kind: str, nonce: str) -> dict[str, Any]:
    """What both pages have; beside it `base`, the way from the page to the address with the token."""
    tabs = [
        {"kind": name, "title": TITLES[name], "open": desk.open_items(name), "all": len(desk.items(name))}
        for name in KINDS
    ]
    of = f"iteration {int(desk.queue.iteration)}" if desk.queue.iteration else "asked questions"
    return {
        "title": "apt-assets review",
        "subtitle": f"{of}, decisions by {desk.journal.by}",
        "tabs": tabs,
        "approval": desk.approvals.required,
        "kind": kind,
        "nonce": nonce,
        "unreadable": desk.queue.unreadable,
    }
