"""Training by workers of a Ray cluster: the steps of one process, whatever is killed."""

from dataclasses import replace

import pytest
from safetensors.torch import load, load_file

from apt_assets.engine.nodes import package_folders
from resources import cluster
from resources.store.rows import collect
from resources.training import by_workers
from resources.training.anchor import Anchor
from resources.training.by_workers import Group, Work
from resources.training.trainer import train_adapter
from tests import test_anchor
from tests.test_anchor import close
from tests.test_parts import rows, same
from tests.test_trainer import RECIPE

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

tiny_folder, texts = test_anchor.tiny_folder, test_anchor.texts  # fixtures

# Sixteen pairs: batches of eight, or of five and a last one of one, which one worker alone has.
CASES = {
    "dpo": ("ddp", {}),
    "sft, a batch that cannot be halved": ("ddp", {"objective": "sft", "batch_size": 5}),
    "dpo in shares of the weights": ("fsdp2", {"batch_size": 5}),
    "sft plainly in shares of the weights": ("fsdp2", {"objective": "sft", "path": "plain"}),
    "unanchored": ("ddp", {"anchored": False, "loss": "sigmoid_norm", "beta": 3.0}),
}


@pytest.fixture(scope="module")
def connected():
    """This process drives a cluster of its own machine with two places."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "cores", lambda: 2)
        cluster.connect(None, [*package_folders().values()])
    yield
    ray.shutdown()


def admitted():
    return ""


def held_by(texts):
    return Anchor(texts, 0.5, "kl", 3, 5)


def alone(tiny_folder, out, anchor, **changes):
    """(the log, the adapter's tensors, what the reference model said of each pair) of one process."""
    said, pairs = [], rows()

    def references(compute):
        said.extend(collect(pairs.height, compute(list(range(pairs.height)))))
        return said

    out.mkdir()
    log = train_adapter(
        tiny_folder / "policy", None, pairs, "Be brief.", replace(RECIPE, **changes), out,
        fill_reference=references, anchor=anchor,
    )  # fmt: skip
    return log, load_file(out / "adapter_model.safetensors"), said or [[0.0, 0.0]] * pairs.height


def train_each(config):
    """In a worker: one case after another, in the same processes."""
    for work in config["works"]:
        by_workers.train_share({"work": work, "said": config["said"]})


def fit(works, said):
    from ray.train import ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    scaling = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1})
    TorchTrainer(
        train_each, train_loop_config={"works": works, "said": said}, scaling_config=scaling,
        torch_config=TorchConfig(backend="gloo"),
    ).fit()  # fmt: skip


def test_two_workers_make_the_steps_of_one_process_up_to_rounding(connected, tiny_folder, texts, tmp_path):
    from ray.util.queue import Queue

    changes = {name: {"batch_size": 8, **its} for name, (_, its) in CASES.items()}
    anchors = {name: held_by(texts) if its.pop("anchored", True) else None for name, its in changes.items()}
    straight = {name: alone(tiny_folder, tmp_path / name, anchors[name], **its) for name, its in changes.items()}
    works = [
        Work(
            Group(2, strategy, {"CPU": 1}, admitted), tiny_folder / "policy", None, rows(), "Be brief.",
            replace(RECIPE, **changes[name]), straight[name][2], anchors[name], 1e9,
        )
        for name, (strategy, _) in CASES.items()
    ]  # fmt: skip
    said = Queue(actor_options={"num_cpus": 0})
    ray.get(ray.remote(num_cpus=0)(fit).remote(works, said))
    found = [content for kind, *content in said.get_nowait_batch(said.size()) if kind == "done"]
    for name, (log, files) in zip(CASES, found, strict=True):
        whole, adapter, _ = straight[name]
        same(log, whole)
        assert close(load(files["adapter_model.safetensors"]), adapter, 2e-5), name
        assert files["adapter_config.json"] == (tmp_path / name / "adapter_config.json").read_bytes()
