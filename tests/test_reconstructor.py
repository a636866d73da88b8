"""The reconstructor: the published ResNet-18 layout, its inputs, and what its two heads can learn."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from editbench.methods.navigan.reconstructor import BasicBlock, resnet18, small


def pair(n=4, size=32, channels=3):
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(n, channels, size, size, generator=rng) for _ in range(2)]


def test_resnet18_has_the_published_size_and_strides():
    network = resnet18(3, 64)
    # The ImageNet classifier has 11,689,512 parameters, 512 x 1000 + 1000 of them in its head; conv1 has 3 inputs more.
    trunk = sum(p.numel() for p in network.trunk.parameters())
    assert trunk == 11_689_512 - 513_000 + 64 * 3 * 49
    assert network.which.weight.shape == (64, 512) and network.shift.weight.shape == (1, 512)
    with torch.no_grad():
        assert network.trunk(torch.zeros(1, 6, 256, 256)).shape == (1, 512, 8, 8)
    kinds = [type(layer) for layer in network.trunk]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d] + [BasicBlock] * 8


def test_the_initial_weights_are_those_of_torchvision():
    """ResNets begin with normal weights of the variance 2 / fan_out (He et al. 2015)."""
    torch.manual_seed(0)
    network = resnet18(3, 64)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.weight[:, 0].numel()
            # The smallest layer has 8,192 weights: the standard deviation is known to 1 %.
            assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def test_a_basic_block_is_its_definition():
    torch.manual_seed(0)
    block = BasicBlock(4, 6, 2).eval()
    x = torch.randn(2, 4, 8, 8)
    conv1, norm1, _, conv2, norm2 = block.body
    inner = F.relu(norm1(F.conv2d(x, conv1.weight, stride=2, padding=1)))
    expected = F.relu(norm2(F.conv2d(inner, conv2.weight, padding=1)) + block.shortcut(x))
    torch.testing.assert_close(block(x), expected)
    same = BasicBlock(4, 4, 1)
    assert isinstance(same.shortcut, nn.Identity)


def test_pictures_are_brought_to_size_by_nearest_neighbours():
    torch.manual_seed(0)
    network = resnet18(3, 5, resolution=64).eval()
    before, after = pair()
    seen = []
    network.trunk[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    with torch.no_grad():
        logits, shift = network(before, after)
    assert logits.shape == (4, 5) and shift.shape == (4,)
    expected = torch.cat([before, after], 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(seen[0], expected)


def test_shift_unit_scales_the_shift_head_alone():
    before, after = pair()
    networks = []
    for unit in (1.0, 80.0):
        torch.manual_seed(3)
        networks.append(small(3, 5, unit).eval())
    with torch.no_grad():
        (logits, shift), (same, scaled) = (network(before, after) for network in networks)
    torch.testing.assert_close(same, logits)
    torch.testing.assert_close(scaled, 80 * shift)


@pytest.mark.parametrize("make", [small, resnet18])
def test_both_heads_see_both_pictures(make):
    torch.manual_seed(0)
    network = make(3, 3, 1.0, 32)
    pictures = [picture.requires_grad_() for picture in pair(8)]
    for head in network(*pictures):
        gradients = torch.autograd.grad(
            head.square().sum(), [*pictures, *network.trunk.parameters()], retain_graph=True
        )
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_both_heads_learn_what_is_there_to_see():
    """Edits add t to one of three colours: a few steps must find both."""
    torch.manual_seed(0)
    network = small(3, 3, 1.0)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    rng = torch.Generator().manual_seed(1)

    def batch():
        before = 0.3 * torch.randn(32, 3, 16, 16, generator=rng)
        k, t = torch.randint(3, (32,), generator=rng), 2 * torch.rand(32, generator=rng) - 1
        t = t + 0.3 * t.sign()
        after = before.clone()
        after[torch.arange(32), k] += t[:, None, None]
        return before, after, k, t

    for _ in range(40):
        before, after, k, t = batch()
        logits, t_hat = network(before, after)
        loss = F.cross_entropy(logits, k) + (t - t_hat).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    before, after, k, t = batch()
    with torch.no_grad():
        logits, t_hat = network(before, after)
    assert (logits.argmax(1) == k).float().mean() > 0.9
    assert (t - t_hat).abs().mean() < 0.5 * t.abs().mean()
