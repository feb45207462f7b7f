"""The study's page: one HTML file without a script, every value escaped, and what each comparison came to."""

from html import escape
from typing import Any

from apt_assets.report.html import document, folded, listed, section, table
from apt_assets.study.advice import sentence
from apt_assets.study.costs import COSTS
from apt_assets.study.plot import trade_off
from apt_assets.study.summary import COMPARED
from apt_assets.study.words import with_interval

POINTS = ("test", "exact", "general", "validation")
SCORED = {
    "test": "test, points",
    "exact": "exact, points",
    "general": "general, points",
    "gold": "gold, nats/character",
    "perplexity": "word perplexity",
}


def page(found: dict[str, Any]) -> str:
    """`summary` -> the HTML document."""
    runs = found["runs"]
    state = f"{runs['done']} of {runs['of']} runs, {runs['failed']} failed; {found['date']}"
    domains = found["domains"].items()
    parts = [
        *(listed(name, sentences(found, domain)) for name, domain in domains),
        *(section(name, of_domain(found, domain)) for name, domain in domains),
        section("Did not run", did_not_run(found)),
        section("How to read it", [f"<p>{escape(line)}</p>" for line in how(found)]),
    ]
    return document(f"apt-assets study: {found['study']}", state, parts)


def sentences(found: dict[str, Any], domain: dict[str, Any]) -> list[str]:
    """What each arm came to against the control, in words."""
    control, lines = found["control"], []
    if control in domain["arms"]:
        changes = domain["arms"][control]["changes"]
        gain, general = (spoken(changes[name]) for name in ("test", "general"))
        lines.append(f"{control}, the control: test {gain} points, general {general} points against the start.")
    for name, arm in domain["arms"].items():
        if "against_control" in arm:
            parts = [f"{m} {verdict(arm['against_control'][m])}" for m in COMPARED]
            lines.append(f"{name}: {', '.join(parts)}; {share_of(domain, control, name)}.")
    if said := sentence(domain):
        lines.append(f"In short: {said}.")
    return lines


def verdict(tested: dict[str, Any]) -> str:
    difference = f"{100 * tested['difference']:+.1f} points, p {tested['p_corrected']:.3g}"
    return f"{tested['verdict']} ({difference})"


def share_of(domain: dict[str, Any], control: str, name: str) -> str:
    """How an arm's costs compare to the control's."""
    own, other = domain["arms"][name]["costs"], domain["arms"][control]["costs"]
    parts = {"labels": "labels", "tokens": "tokens trained", "cpu_seconds": "processor time"}
    shares = [f"{own[k]['mean'] / other[k]['mean']:.2f} x the {v}" for k, v in parts.items() if other[k]["mean"]]
    return ", ".join(shares)


def of_domain(found: dict[str, Any], domain: dict[str, Any]) -> list[str]:
    arms = domain["arms"]
    if not arms:
        return ["<p>No arm is finished yet.</p>"]
    start = domain["start"]
    at_first = ", ".join(f"{m} {start[m]:.1%}" for m in POINTS)
    parts = [
        f'<p class="soft">{escape(domain["experiment"])}. At the start: {escape(at_first)}'
        f"{escape(perplexity(start))}. Changes are against the start, mean over seeds with 95 % intervals.</p>",
        table(
            ("arm", *SCORED.values(), "best iteration", "own gate promotes"),
            [row(arm_name, arm, len(found["seeds"])) for arm_name, arm in arms.items()],
            numbers=range(1, 6),
        ),
        f'<div class="plots">{figures(domain)}</div>',
        table(
            (
                "arm",
                "labels read",
                "labels trained on",
                "rows trained",
                "tokens trained",
                "steps",
                "processor s",
                "its own tokens",
                "its own processor s",
            ),
            [
                [
                    name,
                    *(f"{arm['costs'][cost]['mean']:,.0f}" for cost in COSTS),
                    *(f"{arm['own_costs'][cost]['mean']:,.0f}" for cost in ("tokens", "cpu_seconds")),
                ]
                for name, arm in arms.items()
            ],
            numbers=range(1, 9),
        ),
    ]
    if compared := [n for n, arm in arms.items() if "against_control" in arm]:
        parts.append(f"<h3>Against {escape(found['control'])}, paired over items</h3>")
        columns = ("arm", "what", "points, 95 % over items", "over seeds", "p", "p, corrected", "verdict")
        rows = [test_row(n, m, arms[n]["against_control"][m]) for n in compared for m in COMPARED]
        parts.append(table(columns, rows, numbers=range(2, 6)))
    parts.append(folded("settings, tuning and gates of each arm", table(*details(arms), texts=(2, 6))))
    if domain["unfinished"]:
        parts.append(f"<p>Not finished: {escape(', '.join(domain['unfinished']))}.</p>")
    return parts


def row(name: str, arm: dict[str, Any], seeds: int) -> list[str]:
    cells = [
        spoken(arm["changes"][m], 100 if m in POINTS else 1, 1 if m in POINTS or m == "perplexity" else 3)
        if m in arm["changes"]
        else "-"
        for m in SCORED
    ]
    best = ", ".join(key.lstrip("0") for key in arm["best_iterations"])
    return [name, *cells, best, f"{arm['promoted']} of {seeds}"]


def spoken(found: dict[str, Any], factor: float = 100, digits: int = 1) -> str:
    return with_interval(found["mean"], found["low"], found["high"], factor, digits)


def perplexity(start: dict[str, Any]) -> str:
    return "" if start["perplexity"] is None else f", word perplexity {start['perplexity']:.1f}"


def figures(domain: dict[str, Any]) -> str:
    arms = domain["arms"]
    gain = {name: 100 * arm["changes"]["test"]["mean"] for name, arm in arms.items()}
    kept = {name: 100 * arm["changes"]["general"]["mean"] for name, arm in arms.items()}
    labels = {name: arm["costs"]["labels"]["mean"] for name, arm in arms.items()}
    drawn = {
        "Gain against forgetting": trade_off(
            {n: (gain[n], kept[n]) for n in arms},
            "gain on the test split, points",
            "change of general accuracy, points",
        ),
        "Gain against labels": trade_off(
            {n: (labels[n], gain[n]) for n in arms}, "labels read", "gain on the test split, points", less_across=True
        ),
    }
    return "".join(f"<figure><figcaption>{escape(n)}</figcaption>{svg}</figure>" for n, svg in drawn.items())


def test_row(name: str, what: str, tested: dict[str, Any]) -> list[str]:
    return [
        name,
        f"{what} ({tested['items']})",
        with_interval(tested["difference"], tested["low"], tested["high"]),
        spoken(tested["over_seeds"]),
        f"{tested['p']:.4f}",
        f"{tested['p_corrected']:.4f}",
        tested["verdict"],
    ]


def details(arms: dict[str, Any]) -> tuple[tuple[str, ...], list[list[Any]]]:
    rows = []
    for name, arm in arms.items():
        tried = "; ".join(f"{named(one['candidate'])}: {one['validation']:.1%}" for one in arm["tuning"])
        gates = "; ".join(arm["gates"])
        rows.append(
            [name, arm["about"], arm["settings"] or "-", arm["starts_from"], tried, named(arm["chosen"]), gates]
        )
    columns = ("arm", "about", "settings", "starts from", "validation by candidate", "chosen", "own gate")
    return columns, rows


def named(candidate: dict[str, Any]) -> str:
    """A candidate of the sweep in words."""
    return ", ".join(f"{key} {value}" for key, value in candidate.items()) or "as it is"


def did_not_run(found: dict[str, Any]) -> list[str]:
    lines = [f"{one['arm']} on {one['domain']}: {one['reason']}" for one in found["refused"]]
    lines += [f"{one['run']} failed: {one['reason']}" for one in found["failed"]]
    return [listed("Arms and runs", lines)] if lines else ["<p>No arm was refused, no run failed.</p>"]


def how(found: dict[str, Any]) -> list[str]:
    return [
        f"Every arm tried the same {len(found['candidates'])} candidates with seed {found['seeds'][0]}; the validation "
        "split chose one, which then ran with the other seeds. An arm with several iterations counts with the one "
        "that is best on validation; its costs are those of all. Test and general scores chose neither. They name the "
        "arm to use, so that its test score is a little too good.",
        "Intervals of changes are Student's t over seeds. Differences to the control are paired over items, each item "
        "the mean over seeds: a sign-flip permutation test, all comparisons of the study corrected together (Holm). "
        "They carry to other items, not to other seeds: for those see the column over seeds.",
        "Gold: log-likelihood of the right choice of the general items. Labels read: training rows whose gold answer "
        "graded an answer or was trained on. Processor seconds: as if nothing had been shared between arms, scoring "
        f"left out, on {found['machine']['cpu']}. An arm that starts from another one carries that one's costs too; "
        "its own stand beside.",
        "No gate stopped an arm on the way. The last column says in how many seeds the domain's own gate would have "
        "promoted the result.",
    ]
