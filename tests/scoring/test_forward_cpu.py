import pytest
import torch

from codescaler_plugin.scoring import families, forward_cpu
from codescaler_plugin.scoring.forward import padded_logits, tree_logits
from tests.scoring.decoders import items, logits, model_of


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As on a machine where oneDNN is faster, with chunks shorter than the rows; how many rows each product had."""
    rows: list[int] = []
    by_onednn = forward_cpu.by_onednn

    def counted(one, weight, bias=None):
        rows.append(one.numel() // one.shape[-1])
        return by_onednn(one, weight, bias)

    monkeypatch.setattr(forward_cpu, "takes_onednn", lambda: True)
    monkeypatch.setattr(forward_cpu, "by_onednn", counted)
    monkeypatch.setattr(forward_cpu, "CHUNK", 40)
    monkeypatch.setattr(forward_cpu, "_LEAST", 16 * 64)
    return rows


@pytest.mark.parametrize("family", families.SHARED)
def test_scores_are_those_of_whole_sequences_in_every_family(family: str, onednn: list[int]) -> None:
    model = model_of(family)
    expected = logits(padded_logits(model, items(), max_tokens=1))
    assert onednn == []
    with torch.no_grad():
        assert logits(tree_logits(model, items(), max_tokens=10_000)) == pytest.approx(expected, abs=2e-5, rel=1e-5)
    assert onednn


def test_mlps_see_chunks_and_the_last_one_what_is_read(onednn: list[int]) -> None:
    model = model_of("qwen3")
    seen: list[list[int]] = []
    for layer in model.model.layers:
        seen.append([])
        layer.mlp.down_proj.register_forward_hook(lambda _, given, out, rows=seen[-1]: rows.append(given[0].shape[1]))
    (done,) = tree_logits(model, items(), max_tokens=10_000)
    chunks = [40] * (done.tokens // 40) + [done.tokens % 40]
    assert seen == [chunks, chunks, [len(items())]]


def test_model_is_as_before_also_after_an_error(onednn: list[int]) -> None:
    model = model_of("qwen3")
    model.model.layers[0].mlp.forward = model.model.layers[0].mlp.forward  # changed by somebody else
    before = [dict(vars(module)) for module in model.modules()]
    with forward_cpu.faster(model, [0]):
        assert "forward" in vars(model.model.layers[1].mlp)
    with pytest.raises(ZeroDivisionError), forward_cpu.faster(model, [0]):
        1 / 0  # noqa: B018
    assert [dict(vars(module)) for module in model.modules()] == before
    torch.nn.functional.linear(torch.ones(64, 8), torch.ones(8, 8))
    assert onednn == []


@pytest.mark.parametrize(
    ("one", "weight"),
    [
        (torch.ones(64, 8, dtype=torch.bfloat16), torch.ones(8, 8, dtype=torch.bfloat16)),
        (torch.ones(64, 8), torch.ones(8, 16)[:, :8]),  # not contiguous: seconds
        (torch.ones(2, 8), torch.ones(8, 8)),
        (torch.ones(0, 8), torch.ones(8, 8)),
    ],
)
def test_other_products_stay_with_torch(onednn: list[int], one: torch.Tensor, weight: torch.Tensor) -> None:
    model = model_of("qwen3")
    with forward_cpu.faster(model, [0]), torch.inference_mode():
        assert torch.nn.functional.linear(one, weight).shape == one.shape
        assert onednn == []
        torch.nn.functional.linear(torch.ones(8, 64).T, torch.ones(8, 8), bias=torch.ones(8))  # this one fits
        assert onednn == [64]


def test_onednn_prepares_for_few_numbers_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps what it prepared: with a number of its own for each row, memory grows for as long as one scores."""
    sizes = set()
    product = torch.ops.mkldnn._linear_pointwise

    class Counted:
        @staticmethod
        def _linear_pointwise(one, *rest):
            sizes.add(len(one))
            return product(one, *rest)

    monkeypatch.setattr(torch.ops, "mkldnn", Counted)
    weight, bias = torch.randn(24, 16), torch.randn(24)
    for rows in range(1, 1500, 7):
        one = torch.randn(1, rows, 16)
        torch.testing.assert_close(
            forward_cpu.by_onednn(one, weight, bias), torch.nn.functional.linear(one, weight, bias)
        )
    assert len(sizes) == 8


def test_mlp_that_layers_share_and_keywords_stay_with_torch(onednn: list[int]) -> None:
    model = model_of("qwen3")
    expected = logits(padded_logits(model, items(), max_tokens=1))
    assert len(forward_cpu.mlps(model)) == 3
    model.model.layers[1].mlp = model.model.layers[2].mlp
    assert [mlp for mlp, _ in forward_cpu.mlps(model)] == [model.model.layers[0].mlp]
    changed = logits(padded_logits(model, items(), max_tokens=1))
    assert changed != expected
    assert logits(tree_logits(model, items(), max_tokens=10_000)) == pytest.approx(changed, abs=1e-5, rel=0)
    onednn.clear()
    with forward_cpu.faster(model, [0]), torch.inference_mode():
        torch.nn.functional.linear(input=torch.ones(64, 64), weight=torch.ones(64, 64))
    assert onednn == []


def test_products_with_gradients_or_under_autocast_stay_with_torch(onednn: list[int]) -> None:
    model = model_of("qwen3")
    weight = torch.ones(8, 8, requires_grad=True)
    with forward_cpu.faster(model, [0]):
        torch.nn.functional.linear(torch.ones(64, 8), weight).sum().backward()
    assert weight.grad is not None
    with torch.autocast("cpu", torch.bfloat16), forward_cpu.faster(model, [0]), torch.inference_mode():
        assert torch.nn.functional.linear(torch.ones(64, 8), torch.ones(8, 8)).dtype is torch.bfloat16
    assert onednn == []


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch and the system say of it."""
    said = ["AVX512", "vendor_id\t: AuthenticAMD\n"]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: said[0])
    monkeypatch.setattr(forward_cpu, "processor", lambda: said[1])
    return said


@pytest.mark.parametrize(
    ("capability", "maker", "taken"),
    [
        ("AVX512", "vendor_id\t: AuthenticAMD\n", True),
        ("AVX512", "AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD", True),
        ("AVX512", "vendor_id\t: GenuineIntel\n", False),
        ("AVX2", "vendor_id\t: AuthenticAMD\n", False),
        ("DEFAULT", "", False),
    ],
)
def test_processor_decides(processor: list[str], capability: str, maker: str, taken: bool) -> None:
    processor[:] = capability, maker
    assert forward_cpu.takes_onednn.__wrapped__() is taken


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("error", [None, AttributeError("no such operator"), RuntimeError("not built with it")])
def test_operator_that_is_missing_or_wrong_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    def failing(one, weight, bias=None):
        if error is not None:
            raise error
        return one + 1

    monkeypatch.setattr(forward_cpu, "by_onednn", failing)
    assert not forward_cpu.takes_onednn.__wrapped__()
