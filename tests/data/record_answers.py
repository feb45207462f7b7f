"""Writes recorded_answers.json: what the embedded policy (SmolLM2-135M-Instruct) really answers.

    python -m tests.data.record_answers

In float32, greedy, at most 40 new tokens, one system prompt per shape. The grades in
tests/test_assessors.py were judged by hand on these answers: record anew only to judge anew.
"""

import json
from dataclasses import replace
from pathlib import Path

from apt_assets.settings.experiment import REPOSITORY

SHAPES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "number": (
        "Answer with a number and its unit.",
        [
            ("How many metres are in 3 kilometres?", "3000 m"),
            ("How long is one hour, in seconds?", "3600 s"),
            ("How many grams are in 2 kilograms?", "2000 g"),
            ("At what temperature in degrees Celsius does water boil at sea level?", "100 °C"),
            ("A dose is 250 mg twice a day. How much is that a day?", "500 mg"),
            ("How many minutes are in a day?", "1440 min"),
            ("How fast does light travel in a vacuum, in km/s?", "299792 km/s"),
            ("What is half of 9 litres?", "4.5 L"),
            ("How much is 15 percent of 200 kg?", "30 kg"),
            ("How tall is Mount Everest, in metres?", "8849 m"),
        ],
    ),
    "list": (
        "Answer with a list separated by commas, and nothing else.",
        [
            ("Name the three primary colours.", "red, yellow, blue"),
            ("Name the four seasons.", "spring, summer, autumn, winter"),
            ("Name the noble gases.", "helium, neon, argon, krypton, xenon, radon"),
            ("Name the Baltic states.", "Estonia, Latvia, Lithuania"),
            ("Name the four chambers of the heart.", "left atrium, right atrium, left ventricle, right ventricle"),
            ("Name the five senses.", "sight, hearing, smell, taste, touch"),
            ("Name the vowels of the English alphabet.", "a, e, i, o, u"),
            ("Name the four cardinal directions.", "north, south, east, west"),
            ("Name the countries that border Spain.", "Portugal, France, Andorra"),
            ("Name the states of matter.", "solid, liquid, gas"),
        ],
    ),
    "sentence": (
        "Answer in one sentence.",
        [
            ("What is photosynthesis?", "Photosynthesis is how plants turn light, water and carbon dioxide into food."),
            ("What does the heart do?", "The heart pumps blood through the body."),
            ("Why is the sky blue?", "Air scatters blue light more than red light."),
            ("What is a prime number?", "A prime number has exactly two divisors, one and itself."),
            ("What is inflation?", "Inflation is a general rise in prices over time."),
            ("What does a vaccine do?", "A vaccine trains the immune system to recognise a pathogen."),
            ("What causes tides?", "Tides are caused by the gravity of the moon and the sun."),
            ("What is the capital of France?", "The capital of France is Paris."),
            ("What is an antonym?", "An antonym is a word with the opposite meaning of another word."),
            ("Who wrote Hamlet?", "Hamlet was written by William Shakespeare."),
        ],
    ),
    "label": (
        "Answer with one word: positive, negative or neutral.",
        [
            ("I love this phone.", "positive"),
            ("The food was cold and the waiter rude.", "negative"),
            ("The parcel arrived on Tuesday.", "neutral"),
            ("Worst film I have ever seen.", "negative"),
            ("An excellent book, I could not put it down.", "positive"),
            ("The shop opens at nine.", "neutral"),
            ("My order never came and nobody answers.", "negative"),
            ("What a lovely surprise!", "positive"),
            ("The train has eight carriages.", "neutral"),
            ("It broke after two days.", "negative"),
        ],
    ),
}


def record(model: Path) -> dict:
    from resources.model.generation import generate
    from resources.model.policy import load_policy
    from resources.store.rows import collect

    policy = load_policy(model, dtype="float32")
    rows = []
    for shape, (system_prompt, asked) in SHAPES.items():
        questions = [question for question, _ in asked]
        batches = generate(
            replace(policy, system_prompt=system_prompt), questions, max_new_tokens=40, batch_tokens=1024
        )
        answers = collect(len(questions), batches)
        rows += [
            {"shape": shape, "question": question, "gold": gold, "answer": answer}
            for (question, gold), answer in zip(asked, answers, strict=True)
        ]
    return {"made": " ".join((__doc__ or "").split()), "rows": rows}


if __name__ == "__main__":
    recorded = record(REPOSITORY / ".apt" / "cache" / "policy")
    text = json.dumps(recorded, indent=1, ensure_ascii=False) + "\n"
    Path(__file__).with_name("recorded_answers.json").write_text(text, encoding="utf-8")
