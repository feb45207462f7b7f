"""Products by oneDNN: the same within rounding, forward and backward, and only where they are faster."""

import pytest
import torch

from resources.model import products
from resources.model.policy import load_base
from resources.model.products import FasterLinear, product, use_faster_products
from resources.processor import AVX2, AVX512, onednn_is_faster

ALL = " ".join(AVX2 | AVX512)
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def onednn(monkeypatch):
    """As on a processor where it is faster."""
    monkeypatch.setattr(products, "by_onednn", lambda: True)


@pytest.fixture
def mkl(monkeypatch):
    """As on a processor where it is not."""
    monkeypatch.setattr(products, "by_onednn", lambda: False)


@pytest.mark.parametrize(
    ("cpuinfo", "faster"),
    [
        ({"vendor_id": "AuthenticAMD", "flags": ALL}, True),
        ({"vendor_id": "AuthenticAMD", "flags": " ".join(AVX2)}, False),
        ({"vendor_id": "GenuineIntel", "flags": ALL}, False),
        ({"CPU implementer": "0x41", "Features": "fp asimd sve"}, False),
        ({}, False),
    ],
    ids=["AMD AVX-512", "AMD AVX2", "Intel AVX-512", "ARM", "not Linux"],
)
def test_library_is_chosen_by_processor(cpuinfo, faster):
    assert onednn_is_faster(cpuinfo) == faster


def linear(columns: int, bias: bool, trained: bool = False) -> torch.nn.Linear:
    torch.manual_seed(columns)
    return torch.nn.Linear(48, columns, bias).requires_grad_(trained)


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(48,), (1, 48), (0, 48), (2, 17, 48)])
def test_product_and_gradient_are_torchs_within_rounding(onednn, shape, bias):
    layer, x = linear(33, bias), torch.randn(shape)
    wanted, found = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = layer(wanted)
    y.square().sum().backward()
    use_faster_products(layer)
    assert type(layer) is FasterLinear
    z = layer(found)
    z.square().sum().backward()
    assert torch.allclose(y, z, rtol=1e-5, atol=1e-5)
    assert torch.allclose(wanted.grad, found.grad, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_weights_that_are_trained_get_their_gradient(onednn):
    layer = linear(8, bias=True, trained=True)
    use_faster_products(layer)
    layer(torch.ones(4, 48)).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((8,), 4.0))
    assert torch.equal(layer.weight.grad, torch.full((8, 48), 4.0))


@needs_onednn
def test_row_has_the_same_bits_in_whatever_company(onednn):
    x, weight = torch.randn(256, 576), torch.randn(192, 576)
    among_all = product(x, weight)
    for rows in (16, 48, 112, 240):
        assert torch.equal(product(x[5 : 5 + rows], weight), among_all[5 : 5 + rows])


@needs_onednn
def test_packed_model_in_float32_multiplies_by_onednn_and_a_plain_one_or_one_in_bfloat16_does_not(tiny_folder, onednn):
    def kinds(dtype: str, path: str) -> set[type]:
        model, _ = load_base(tiny_folder / "policy", dtype, "none", "cpu", path)
        return {type(layer) for layer in model.modules() if isinstance(layer, torch.nn.Linear)}

    assert kinds("float32", "packed") == {FasterLinear}
    assert kinds("float32", "plain") == kinds("bfloat16", "packed") == {torch.nn.Linear}


def test_where_mkl_is_as_fast_layers_stay_torchs(tiny_folder, mkl):
    model, _ = load_base(tiny_folder / "policy", "float32", "none", "cpu")
    assert not products.uses_faster_products(model)
    x, weight = torch.randn(32, 48), torch.randn(9, 48)
    assert torch.equal(product(x, weight), torch.nn.functional.linear(x, weight))
