"""The verb `preview`: look at shards before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nemo_cosmos.choices import Verify
from nemo_cosmos.errors import require_range, require_replaceable


def preview(
    shards: Annotated[
        Path, typer.Argument(help="Folder of shards from `nemo-cosmos prepare`, or of eight files a sample.")
    ],
    tokenizer: Annotated[Path, typer.Option(help="The tokenizer that made the shards; decodes the latents.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write. Default: preview.html in SHARDS.")] = None,
    limit: Annotated[int, typer.Option(help="Samples shown, spread over the shards.")] = 24,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    verify: Annotated[
        Verify,
        typer.Option(help="Compare the tokenizer with its checksums: all, sizes alone, or all up to 64 GiB."),
    ] = "auto",
) -> None:
    """Write a gallery of shards: decoded video, caption, lengths, what the network is given, masks.

    The page is one file that opens in any browser.

    [bold]Example:[/bold] nemo-cosmos preview datasets/hdvila_shards --tokenizer checkpoints/Cosmos-Tokenize1-CV8x8x8-720p --out gallery.html
    """  # noqa: E501
    from rich.progress import Progress

    from nemo_cosmos.models.video_tokenizer import open_tokenizer
    from nemo_cosmos.prepare.device import resolve_device, resolve_dtype
    from nemo_cosmos.prepare.preview import preview as run

    require_range("--limit", limit, 1, 10_000)
    place = resolve_device(device)
    page = shards / "preview.html" if out is None else out
    require_replaceable(page)
    video_tokenizer = open_tokenizer(tokenizer, device=place, dtype=resolve_dtype("auto", place), verify_files=verify)
    with Progress(transient=True) as progress:
        task = progress.add_task("decoding", total=limit)
        count = run(
            shards,
            page,
            video_tokenizer,
            limit=limit,
            on_sample=lambda done, total: progress.update(task, completed=done, total=total),
        )
    print(f"tokenizer {video_tokenizer.identity}: {video_tokenizer.origin}")
    print(f"{page}: {count} samples, {page.stat().st_size / 1e6:.1f} MB")
