"""Export: an adapter, or the merged model, as a folder that transformers and peft load."""

import json
import shutil
from pathlib import Path

import apt_assets.assets  # noqa: F401 - declares the stages
from apt_assets.engine.plan import Planner
from apt_assets.experiment import UsageError
from apt_assets.partitions import key_of
from apt_assets.project import Project


def export_model(project: Project, target: Path, iteration: int | None, *, merge: bool) -> str:
    """Write the adapter (or base + adapter merged, in the policy's dtype) to `target`.

    Returns the iteration's key. Raises UsageError if `target` holds files, if nothing is promoted, or
    if the iteration asked for has no adapter.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target}: exists and is not an empty folder; name a new one")
    if iteration is not None and iteration > 9999:
        raise UsageError(f"an iteration is 1 to 9999, got {iteration}")
    planner = project.planner()
    key = key_of(iteration) if iteration else last_promoted(project, planner)
    plan = planner.stage(key, "adapter_checkpoint")
    if plan.status != "fresh" or plan.manifest is None:
        raise UsageError(
            f"iteration {key} of {project.experiment.name} has no up-to-date adapter ({plan.status}): "
            "run `apt-assets run`; `apt-assets plan` tells why"
        )
    manifest = plan.manifest
    source = project.artifact(manifest)
    target.mkdir(parents=True, exist_ok=True)
    if not merge:
        for name in manifest.files:
            if name.startswith("adapter_"):
                shutil.copyfile(source / name, target / name)
        config = target / "adapter_config.json"
        named = {**json.loads(config.read_text()), "base_model_name_or_path": str(project.model)}
        config.write_text(json.dumps(named, indent=1))
        return key
    from peft import PeftModel

    from resources.policy_model import load_policy

    policy = load_policy(project.model, source, dtype=project.experiment.policy.dtype)
    model = policy.model.merge_and_unload() if isinstance(policy.model, PeftModel) else policy.model
    model.save_pretrained(target)
    policy.tokenizer.save_pretrained(target)
    return key


def last_promoted(project: Project, planner: Planner) -> str:
    """The latest iteration whose promotion is up to date: its gate passed for the adapter of now."""
    for key in reversed(project.store.iterations(project.experiment.name)):
        if planner.stage(key, "promoted_adapter").status == "fresh":
            return key
    raise UsageError(f"{project.experiment.name} has no up-to-date promoted adapter: run `apt-assets run` first")
