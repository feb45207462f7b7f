"""What a domain's comparisons speak for: the arm to use, and why."""

from typing import Any

from apt_assets.study.words import difference


def advice(control: str, arms: dict[str, Any]) -> dict[str, str] | None:
    """{arm, why}; None while nothing is compared.

    In this order: the arm with the highest test accuracy of those that beat the control there without being worse
    in general accuracy; the one with the highest general accuracy of those that beat it there without being worse
    on the test split; the control. Being told apart is what the corrected tests say.
    """
    rivals = {name: arm for name, arm in arms.items() if "against_control" in arm}
    if not rivals:
        return None
    for measure, other in (("test", "general"), ("general", "test")):
        if name := best(rivals, measure, other):
            return {"arm": name, "why": f"{told(rivals[name], measure)}; {told(rivals[name], other)}"}
    why = f"none of {len(rivals)} other arms is better in test or general accuracy without being worse in the other"
    return {"arm": control, "why": why}


def best(arms: dict[str, Any], measure: str, other: str) -> str | None:
    """Of the arms that are better in `measure` and not worse in `other`, the one that scores highest there."""
    verdicts = {n: {m: tested["verdict"] for m, tested in a["against_control"].items()} for n, a in arms.items()}
    names = [name for name, of in verdicts.items() if of[measure] == "better" and of[other] != "worse"]
    return max(names, key=lambda name: arms[name]["scores"][measure]["mean"], default=None)


def told(arm: dict[str, Any], measure: str) -> str:
    """test better, +3.1 [+1.0, +5.2] points, over seeds [-0.4, +6.6]"""
    its = arm["against_control"][measure]
    return f"{measure} {its['verdict']}, {difference(its)}"


def sentence(domain: dict[str, Any]) -> str | None:
    """What a domain of the summary speaks for, and which arms had no say; None while nothing is compared."""
    use, missing = domain["advice"], ", ".join(domain["unfinished"])
    if use is None:
        return None
    return f"{f'{missing} not finished, so far ' if missing else ''}use {use['arm']}: {use['why']}"
