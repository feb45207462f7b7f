"""Which arm a study speaks for."""

from apt_assets.study.advice import advice


def arm(test, general, verdicts=None):
    found = {"scores": {"test": {"mean": test}, "general": {"mean": general}}}
    if verdicts:
        tests = zip(("test", "general"), verdicts, strict=True)
        change = {"difference": 0.02, "low": 0.01, "high": 0.03, "over_seeds": {"low": -0.01, "high": 0.05}}
        found["against_control"] = {m: {"verdict": v, **change} for m, v in tests}
    return found


CONTROL = arm(0.6, 0.75)
LEVEL = "not told apart"


def test_of_arms_that_gain_more_and_forget_no_more_the_best_one_is_to_be_used():
    arms = {"sft": CONTROL, "good": arm(0.65, 0.75, ("better", LEVEL)), "best": arm(0.7, 0.75, ("better", LEVEL))}
    found = advice("sft", arms)
    assert found["arm"] == "best"
    assert "test better, +2.0 [+1.0, +3.0] points, over seeds [-1.0, +5.0]" in found["why"]
    assert "general not told apart" in found["why"]


def test_an_arm_that_gains_more_but_forgets_more_is_not_to_be_used():
    assert advice("sft", {"sft": CONTROL, "greedy": arm(0.7, 0.7, ("better", "worse"))})["arm"] == "sft"


def test_an_arm_that_gains_as_much_and_forgets_less_is_to_be_used():
    arms = {"sft": CONTROL, "gentle": arm(0.6, 0.78, (LEVEL, "better")), "poor": arm(0.3, 0.8, ("worse", "better"))}
    assert advice("sft", arms)["arm"] == "gentle"


def test_where_nothing_beats_the_control_it_is_to_be_used():
    found = advice(
        "sft", {"sft": CONTROL, "apt": arm(0.5, 0.77, ("worse", "better")), "so": arm(0.6, 0.7, (LEVEL, LEVEL))}
    )
    assert found["arm"] == "sft"
    assert "none of 2 other arms" in found["why"]


def test_a_control_that_stands_alone_speaks_for_nothing():
    assert advice("sft", {"sft": CONTROL}) is None
