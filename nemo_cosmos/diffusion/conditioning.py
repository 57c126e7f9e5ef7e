"""What the network is fed and what its output means when some latent frames are given: the two Cosmos strategies.

- ``augmented_input`` (Predict1 Video2World): given frames get a little noise of their own and are rescaled so that the
  network sees them at their own noise level; one timestep per sample.
- ``frame_replace_input`` (Predict2 Video2World, multiview): given frames enter clean, with a timestep of their own.
- ``plain_input``: no conditioning (Text2World, Text2Image).

Each returns a :class:`DenoiserInput`; ``denoised`` turns the network's output back into a clean latent. Training and
sampling use the same functions.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nemo_cosmos.diffusion.preconditioning import Preconditioning, clean_prediction, expand_to_latent

UnconditionalFill = Literal["zeros", "noisy"]


@dataclass(frozen=True)
class DenoiserInput:
    """One evaluation of the denoiser.

    Attributes:
        sample: (B, C, T, H, W) input of the network, already multiplied by c_in.
        timesteps: (B,) or (B, T), as the network of the family takes them.
        condition_mask: (B, 1, T, H, W) mask channel, None for networks without one.
        state: (B, C, T, H, W) the x in x0 = c_skip * x + c_out * F.
        sigma: (B,) noise level of ``state``.
        clean: (B, C, T, H, W) given latent, None without conditioning.
        indicator: (B, 1, T, 1, 1) 1 on given frames, None without conditioning.
    """

    sample: Tensor
    timesteps: Tensor
    condition_mask: Tensor | None
    state: Tensor
    sigma: Tensor
    clean: Tensor | None = None
    indicator: Tensor | None = None


def frame_indicator(num_condition_frames: Tensor, num_frames: int, *, num_views: int = 1) -> Tensor:
    """(B, T) float, 1 on the first n latent frames of every view, for n (B,) int and views concatenated on T."""
    if num_frames % num_views:
        raise ValueError(f"{num_frames} latent frames cannot be split into {num_views} views of equal length")
    per_view = num_frames // num_views
    frames = torch.arange(per_view, device=num_condition_frames.device)
    return (frames[None] < num_condition_frames[:, None]).float().repeat(1, num_views)


def plain_input(
    preconditioning: Preconditioning,
    noisy: Tensor,
    sigma: Tensor,
    *,
    per_frame_time: bool = False,
    with_mask: bool = False,
) -> DenoiserInput:
    """Input without given frames.

    Args:
        noisy: (B, C, T, H, W) x0 + sigma * eps.
        sigma: (B,).
        per_frame_time: timesteps as (B, T), which Predict2 networks take.
        with_mask: feed an all-zero condition mask (a Video2World network run from text alone).
    """
    time = preconditioning.c_noise(sigma)
    if per_frame_time:
        time = time[:, None].expand(-1, noisy.shape[2])
    mask = torch.zeros_like(noisy[:, :1]) if with_mask else None
    return DenoiserInput(
        sample=expand_to_latent(preconditioning.c_in(sigma)) * noisy,
        timesteps=time,
        condition_mask=mask,
        state=noisy,
        sigma=sigma,
    )


def augmented_input(
    preconditioning: Preconditioning,
    noisy: Tensor,
    sigma: Tensor,
    clean: Tensor,
    indicator: Tensor,
    *,
    augment_sigma: Tensor,
    augment_noise: Tensor,
    drop_condition: Tensor | None = None,
    unconditional_fill: UnconditionalFill = "zeros",
    normalize_condition: bool = False,
) -> DenoiserInput:
    """Predict1 Video2World: given frames are ``(clean + s * n) * c_in(s) / c_in(sigma)`` with augmentation level s.

    After the multiplication with c_in(sigma) the network sees them at ``c_in(s) * (clean + s * n)``.

    Args:
        noisy: (B, C, T, H, W) x0 + sigma * eps.
        sigma: (B,) noise level of ``noisy``.
        clean: (B, C, T, H, W) latent whose marked frames are given, multiplied by sigma_data.
        indicator: (B, T), 1 on given frames.
        augment_sigma: (B,) level s.
        augment_noise: (B, C, T, H, W) or broadcastable standard normal noise n.
        drop_condition: (B,) bool, samples that get no conditioning: their mask channel is zero and their given frames
            hold zeros ("zeros") or stay noisy ("noisy").
        normalize_condition: standardise every given frame per channel before the augmentation.
    """
    marker = indicator[:, None, :, None, None].to(noisy.dtype)
    given = clean
    if normalize_condition:
        mean = given.mean(dim=(-2, -1), keepdim=True)
        given = (given - mean) / given.std(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
    rescale = preconditioning.c_in(augment_sigma) / preconditioning.c_in(sigma)
    given = (given + expand_to_latent(augment_sigma) * augment_noise) * expand_to_latent(rescale)
    mask = marker.expand(-1, -1, -1, *noisy.shape[-2:])
    if drop_condition is not None:
        keep = expand_to_latent(~drop_condition)
        given = torch.where(keep, given, torch.zeros_like(given) if unconditional_fill == "zeros" else noisy)
        mask = mask * keep
    state = torch.where(marker > 0, given, noisy)
    return DenoiserInput(
        sample=expand_to_latent(preconditioning.c_in(sigma)) * state,
        timesteps=preconditioning.c_noise(sigma),
        condition_mask=mask,
        state=state,
        sigma=sigma,
        clean=clean,
        indicator=marker,
    )


def frame_replace_input(
    preconditioning: Preconditioning,
    noisy: Tensor,
    sigma: Tensor,
    clean: Tensor,
    indicator: Tensor,
    *,
    sigma_conditional: float = 1e-4,
    drop_condition: Tensor | None = None,
) -> DenoiserInput:
    """Predict2 Video2World and multiview: given frames enter the network clean and unscaled, at the timestep of
    ``sigma_conditional``; the other frames as usual. Timesteps are per frame, (B, T).

    Shapes as in :func:`augmented_input`. Dropped samples see zeros on given frames, their mask channel stays 1.
    """
    marker = indicator[:, None, :, None, None].to(noisy.dtype)
    given = clean / preconditioning.sigma_data
    if drop_condition is not None:
        given = given * expand_to_latent(~drop_condition)
    scaled = expand_to_latent(preconditioning.c_in(sigma)) * noisy
    time_given = preconditioning.c_noise(torch.full_like(sigma, sigma_conditional))[:, None]
    time_noisy = preconditioning.c_noise(sigma)[:, None]
    return DenoiserInput(
        sample=torch.where(marker > 0, given, scaled),
        timesteps=torch.where(indicator > 0, time_given, time_noisy),
        condition_mask=marker.expand(-1, -1, -1, *noisy.shape[-2:]),
        state=noisy,
        sigma=sigma,
        clean=clean,
        indicator=marker,
    )


def denoised(
    preconditioning: Preconditioning, inputs: DenoiserInput, output: Tensor, *, replace_given: bool = True
) -> Tensor:
    """The clean latent (B, C, T, H, W) predicted by network output ``output``.

    With ``replace_given`` the given frames are returned as they were given, so they carry no error in a loss (they
    stay in its denominator) and no guidance in a sampler. False computes the loss on given frames too.
    """
    prediction = clean_prediction(preconditioning, inputs.state, inputs.sigma, output)
    if not replace_given or inputs.indicator is None:
        return prediction
    assert inputs.clean is not None
    return torch.where(inputs.indicator > 0, inputs.clean.to(prediction.dtype), prediction)
