"""What stands in the way of a server that is to answer for the policy, said before anything is computed."""

from apt_assets.settings.experiment import Experiment
from apt_assets.world.models import Models


def obstacles(experiment: Experiment, models: Models) -> list[str]:
    """A line for what will keep the server from answering; none where the policy answers here. It refuses no run:
    what a server has answered is kept, and may be all that is needed."""
    policy, server = experiment.policy, experiment.policy.server
    if server.url is None:
        return []
    from resources.model import openai_server as served

    base = served.served_name(models.identity("base_model"), None)
    initial = models.initial_adapter
    rank = experiment.training.lora_rank if initial is None else served.rank_of(initial)
    found = served.obstacles(
        served.Served(
            url=server.url,
            base=base,
            name=base,
            base_folder=models.base_model,
            adapter_folder=None,
            concurrency=1,
            timeout=min(server.timeout, served.LOOK_SECONDS),
        ),
        rank,
    )
    return [f"policy.backend: {policy.backend}: {line}" for line in found]
