"""The model card: what can be said from how the weights were made; figures are entered by what measures them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiny_model.sizes import TOKENIZER

FIGURES = ("<!-- figures -->", "<!-- /figures -->")
"""What measures the weights writes between these lines."""
PURPOSE = {
    "Cosmos-Predict1-Tiny-Video2World": "continues a clip from its first one or five frames and a caption",
    "Cosmos-Predict1-Tiny-Text2World": "makes a clip from a caption",
    "Cosmos-Predict2-Tiny-Video2World": "continues a clip from its first one or five frames and a caption",
    "Cosmos-Predict2-Tiny-Text2Image": "makes an image from a caption",
}


def model_card(trained_on: Mapping[str, Any], parameters: Mapping[str, int], command: str) -> str:
    """Text of `README.md`.

    Args:
        trained_on: the training list.
        parameters: of the tokenizer and each network, by their folders.
        command: that made the folder.
    """
    tokenizer = parameters[TOKENIZER]
    clips = trained_on["clips"]
    networks = "\n".join(
        f"| `{name}/model.pt` | {use} | {parameters[name] / 1e6:.2f} M |" for name, use in PURPOSE.items()
    )
    made_by = "\n".join(f"    {line}" for line in trained_on["made_by"].values())
    photographs = "\n".join(
        f"| {one['file']} | {one['package']} | {one['licence']} |" for one in trained_on["photographs"]
    )
    shown = f"| photograph | package | licence |\n|---|---|---|\n{photographs}" if photographs else "None."
    count = sum("/held_out_" not in clip["name"] for clip in clips)
    return f"""# nemo-cosmos-tiny

Small world models in the layout of the released ones: a video tokenizer, four diffusion networks and a text encoder.
They are there to post-train from, to try every command on, and to test with; they know small pictures of simple
scenes.

| file | what it does | parameters |
|---|---|---|
| `Cosmos-Tokenize1-CV4x8x8-Tiny/` | 4 frames of 8 × 8 pixels as 16 numbers, and back | {tokenizer / 1e6:.2f} M |
{networks}
| `google-t5/t5-11b/` | T5 encoder of width 64 with random weights: features of captions, no understanding | |

## Data

{count} clips of 17 frames to train on, and some held out. All are rendered; `training_list.json` names each with its
sha256:

{made_by}

Photographs in them:

{shown}

## Training

    {command}

The tokenizer came first; clips were encoded with its weights as they are shipped, in bf16, and the networks were
trained on these latents. The weights shipped are the averaged ones, rounded to bf16.

## Figures

{FIGURES[0]}
{FIGURES[1]}

## Limits

Training saw clips of 17 frames alone, of the sizes above. Captions steer little beyond what those of the rendered
clips name, because the text encoder has random weights. Nothing of NVIDIA's weights is in these.

## Licence

Apache License 2.0 (`LICENSE`). The photographs have the licences listed above.
"""


def with_figures(card: str, figures: str) -> str:
    """The card with these lines of Markdown in place of the figures that it had."""
    before, _, rest = card.partition(FIGURES[0])
    _, _, after = rest.partition(FIGURES[1])
    return f"{before}{FIGURES[0]}\n\n{figures.strip()}\n\n{FIGURES[1]}{after}"
