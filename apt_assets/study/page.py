"""The study's page: one HTML file without a script, and what each comparison came to.

apt_assets/report/templates/study.html holds the sections; here is what they show.
"""

from statistics import mean
from typing import Any

from apt_assets.report.html import Table, render
from apt_assets.study.advice import sentence
from apt_assets.study.costs import COSTS
from apt_assets.study.plot import over_iterations, trade_off
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
SPENT = {"rows": "rows trained", "labels": "labels read", "cpu_seconds": "processor seconds"}


def page(found: dict[str, Any]) -> str:
    """`summary` -> the HTML document."""
    runs = found["runs"]
    return render(
        "study.html",
        title=f"apt-assets study: {found['study']}",
        subtitle=f"{runs['done']} of {runs['of']} runs, {runs['failed']} failed; {found['date']}",
        control=found["control"],
        domains=[of_domain(found, name, domain) for name, domain in found["domains"].items()],
        did_not_run=[
            *(f"{one['arm']} on {one['domain']}: {one['reason']}" for one in found["refused"]),
            *(f"{one['run']} failed: {one['reason']}" for one in found["failed"]),
        ],
        candidates=len(found["candidates"]),
        first_seed=found["seeds"][0],
        cpu=found["machine"]["cpu"],
    )


def of_domain(found: dict[str, Any], name: str, domain: dict[str, Any]) -> dict[str, Any]:
    """{name, sentences}, and what else there is to show once an arm is finished."""
    arms = domain["arms"]
    said = {"name": name, "sentences": sentences(found, domain), "arms": len(arms)}
    if not arms:
        return said
    return said | {
        "experiment": domain["experiment"],
        "start": at_the_start(domain["start"]),
        "scores": scores(arms, len(found["seeds"])),
        "figures": figures(arms),
        "costs": costs(arms),
        "comparisons": comparisons(arms),
        "details": details(arms),
        "unfinished": domain["unfinished"],
    }


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


def at_the_start(start: dict[str, Any]) -> str:
    shares = ", ".join(f"{measure} {start[measure]:.1%}" for measure in POINTS)
    return shares if start["perplexity"] is None else f"{shares}, word perplexity {start['perplexity']:.1f}"


def scores(arms: dict[str, Any], seeds: int) -> Table:
    columns = ("arm", *SCORED.values(), "best iteration", "own gate promotes")
    return Table(columns, [row(name, arm, seeds) for name, arm in arms.items()], numbers=range(1, 6))


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


def figures(arms: dict[str, Any]) -> dict[str, str]:
    """Caption -> SVG."""
    gain = {name: 100 * arm["changes"]["test"]["mean"] for name, arm in arms.items()}
    kept = {name: 100 * arm["changes"]["general"]["mean"] for name, arm in arms.items()}
    labels = {name: arm["costs"]["labels"]["mean"] for name, arm in arms.items()}
    return {
        "Gain against forgetting": trade_off(
            {n: (gain[n], kept[n]) for n in arms},
            "gain on the test split, points",
            "change of general accuracy, points",
        ),
        "Gain against labels": trade_off(
            {n: (labels[n], gain[n]) for n in arms}, "labels read", "gain on the test split, points", less_across=True
        ),
        **{
            f"Test accuracy by {spent}": over_iterations(
                {name: by_iteration(arm, cost) for name, arm in arms.items()}, spent, "right on the test split, %"
            )
            for cost, spent in SPENT.items()
        },
    }


def by_iteration(arm: dict[str, Any], cost: str) -> list[tuple[float, float]]:
    """(cost so far, test accuracy in percent) after each iteration that all seeds had, means over seeds."""
    seeds = list(arm["by_iteration"].values())
    shared = [key for key in seeds[0] if all(key in its for its in seeds)]
    return [(mean(its[key][cost] for its in seeds), 100 * mean(its[key]["test"] for its in seeds)) for key in shared]


def costs(arms: dict[str, Any]) -> Table:
    columns = (
        "arm",
        "labels read",
        "labels trained on",
        "rows trained",
        "tokens trained",
        "steps",
        "processor s",
        "its own tokens",
        "its own processor s",
    )
    rows = [
        [
            name,
            *(f"{arm['costs'][cost]['mean']:,.0f}" for cost in COSTS),
            *(f"{arm['own_costs'][cost]['mean']:,.0f}" for cost in ("tokens", "cpu_seconds")),
        ]
        for name, arm in arms.items()
    ]
    return Table(columns, rows, numbers=range(1, 9))


def comparisons(arms: dict[str, Any]) -> Table:
    """Of every arm but the control; without rows until that is finished."""
    columns = ("arm", "what", "points, 95 % over items", "over seeds", "p", "p, corrected", "verdict")
    rows = [
        comparison(name, measure, arm["against_control"][measure])
        for name, arm in arms.items()
        if "against_control" in arm
        for measure in COMPARED
    ]
    return Table(columns, rows, numbers=range(2, 6))


def comparison(name: str, what: str, tested: dict[str, Any]) -> list[str]:
    return [
        name,
        f"{what} ({tested['items']})",
        with_interval(tested["difference"], tested["low"], tested["high"]),
        spoken(tested["over_seeds"]),
        f"{tested['p']:.4f}",
        f"{tested['p_corrected']:.4f}",
        tested["verdict"],
    ]


def details(arms: dict[str, Any]) -> Table:
    rows = []
    for name, arm in arms.items():
        tried = "; ".join(f"{named(one['candidate'])}: {one['validation']:.1%}" for one in arm["tuning"])
        gates = "; ".join(arm["gates"])
        rows.append(
            [name, arm["about"], arm["settings"] or "-", arm["starts_from"], tried, named(arm["chosen"]), gates]
        )
    columns = ("arm", "about", "settings", "starts from", "validation by candidate", "chosen", "own gate")
    return Table(columns, rows, texts=(2, 6))


def named(candidate: dict[str, Any]) -> str:
    """A candidate of the sweep in words."""
    return ", ".join(f"{key} {value}" for key, value in candidate.items()) or "as it is"
