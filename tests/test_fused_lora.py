"""A LoRA layer with one autograd node computes what peft's does, and leaves to peft what it does not know."""

import pytest
import torch

from resources.training.fused_lora import LoraProduct, fuse_lora


@pytest.fixture
def calls(monkeypatch):
    """How often the product is used."""
    used = []
    apply = LoraProduct.apply
    monkeypatch.setattr(LoraProduct, "apply", lambda *given: used.append(1) or apply(*given))
    return used


def layers(**config):
    """The same two linear layers under LoRA, twice: (peft's own, fused)."""
    from peft import LoraConfig, get_peft_model  # seconds

    made = []
    for fuse in (False, True):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.Tanh(), torch.nn.Linear(20, 8, bias=False))
        settings = {"r": 4, "lora_alpha": 12, "target_modules": ["0", "2"], "init_lora_weights": False, **config}
        model = get_peft_model(net, LoraConfig(**settings))
        if fuse:
            fuse_lora(model)
        made.append(model)
    return made


def gradients(model, x):
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    y = model(x)
    y.square().sum().backward()
    return [y, x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


def test_output_and_every_gradient_equal_those_of_peft(calls):
    peft, ours = layers()
    x = torch.randn(2, 7, 12)
    for one, other in zip(gradients(peft, x), gradients(ours, x), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)
    assert len(calls) == 2


def test_dropout_stays_with_peft_while_training_and_not_afterwards(calls):
    peft, ours = layers(lora_dropout=0.5)
    x = torch.randn(3, 12)
    assert torch.equal(gradients(peft, x)[0], gradients(ours, x)[0])
    assert not calls
    assert torch.allclose(peft.eval()(x), ours.eval()(x), atol=1e-6)
    assert len(calls) == 2


def test_a_variant_and_another_dtype_stay_with_peft(calls):
    for model in (layers(use_dora=True)[1], layers()[1].to(torch.bfloat16)):
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
        model(torch.randn(3, 12, dtype=model.base_model.model[0].weight.dtype))
    assert not calls


def test_a_disabled_adapter_is_the_base_model(calls):
    peft, ours = layers()
    x = torch.randn(3, 12)
    with peft.disable_adapter(), ours.disable_adapter():
        base = ours(x)
        assert torch.equal(peft(x), base)
    assert not calls
    assert not torch.allclose(ours(x), base, atol=1e-2)
