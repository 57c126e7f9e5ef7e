"""Each view of a sample may have padding of its own."""

import pytest
import torch

from nemo_cosmos.data.sample import LatentSample, collate
from nemo_cosmos.models.dit import DiTConfig, build_dit


@pytest.fixture(scope="module")
def network():
    overrides = {"hidden_size": 64, "num_layers": 1, "adaln_lora_dim": 8, "text_width": 8}
    net = build_dit(DiTConfig.preset("tiny-predict2-multiview", **overrides), seed=0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    return net


def run(network, mask):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 6, 4, 6, generator=generator)
    text = torch.randn(1, 3 * 2, 8, generator=generator)
    ids = torch.tensor([[4, 0, 2]])
    return network(x, torch.tensor([0.5]), text, fps=torch.tensor([10.0]), padding_mask=mask, view_ids=ids)


@torch.no_grad()
def test_a_mask_for_each_view(network):
    one = (torch.randn(1, 1, 4, 6, generator=torch.Generator().manual_seed(1)) > 0).float()
    assert torch.equal(run(network, one), run(network, one.expand(-1, 3, -1, -1)))
    second = torch.zeros(1, 3, 4, 6)
    second[:, 1] = one
    channels = []
    network.patch_embedding.register_forward_pre_hook(lambda _, inputs: channels.append(inputs[0]))
    assert not torch.equal(run(network, second), run(network, torch.zeros(1, 1, 4, 6)))
    differing = (channels[0] - channels[1]).abs().flatten(1).sum(dim=1).unflatten(0, (6, -1)).sum(dim=1)
    assert differing.bool().tolist() == [False, False, True, True, False, False]
    with pytest.raises(ValueError, match="2 padding masks for 3 views"):
        run(network, torch.zeros(1, 2, 4, 6))


def test_samples_with_shared_and_own_masks_are_one_batch():
    def sample(key, mask):
        text, ids = torch.randn(2, 3, 8), torch.tensor([0, 1])
        return LatentSample(
            key, torch.randn(16, 4, 4, 6), text, "x", 10, 5, (32, 48, 32, 48), padding_mask=mask, view_ids=ids
        )

    shared, own = torch.ones(1, 4, 6, dtype=torch.uint8), torch.zeros(2, 4, 6, dtype=torch.uint8)
    own[1] = 1
    batch = collate([(0, sample("a", shared)), (1, sample("b", own)), (2, sample("c", None))], 4)
    assert batch.padding_mask.mean(dim=(2, 3)).tolist() == [[1, 1], [0, 1], [0, 0]]
