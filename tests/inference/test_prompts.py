import pytest
import torch

from nemo_cosmos.errors import InputError
from nemo_cosmos.inference import prompts
from nemo_cosmos.inference.prompts import PromptUpsampler, clean_answer, default_negative_prompt

TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {% for c in m.content %}"
    "{% if c.type == 'image' %}<image> {% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %} answer"
)


@pytest.fixture(scope="module")
def upsampler_folder(tmp_path_factory):
    """A random LLaVA of a few thousand weights, saved as any model on the hub is."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = ["<pad>", "<unk>", "</s>", "<image>", *[f"w{i}" for i in range(60)]]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
        additional_special_tokens=["<image>"],
    )
    folder = tmp_path_factory.mktemp("upsampler")
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ),
        text_config=LlamaConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            vocab_size=len(words),
            eos_token_id=2,
            pad_token_id=0,
        ),
        image_token_index=3,
        image_seq_length=5,
        vision_feature_select_strategy="full",
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_any_image_text_to_text_model_expands_a_prompt(upsampler_folder):
    upsampler = PromptUpsampler(str(upsampler_folder))
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    for given in (None, image):
        first = upsampler.upsample("w1 w2", given, max_tokens=6)
        assert first and first == upsampler.upsample("w1 w2", given, max_tokens=6)
        assert "<image>" not in first and "answer" not in first


def test_folders_that_hold_no_such_model(tmp_path, upsampler_folder):
    with pytest.raises(InputError, match="does not load"):
        PromptUpsampler(str(tmp_path))
    with pytest.raises(InputError, match="needs a prompt or an input frame"):
        PromptUpsampler(str(upsampler_folder)).upsample("")


@pytest.mark.parametrize(
    "answer, expected",
    [
        ('"A red cup."', "A red cup."),
        ("1. A cup\n2) falls\n- down", "A cup falls down"),
        ("  two\n\n  lines ", "two lines"),
        ("A 3.5 m wall - grey", "A 3.5 m wall - grey"),
    ],
)
def test_answers_become_one_line(answer, expected):
    assert clean_answer(answer) == expected


def test_the_default_negative_prompt_is_shipped():
    assert len(default_negative_prompt().split()) > 20


def test_the_released_negative_prompt_is_that_of_diffusers_and_loaded_at_its_use():
    """Its digest is that of the file the released command line reads; nothing of it is in this project."""
    import hashlib
    import subprocess
    import sys

    text = prompts.released_negative_prompt()
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "6d7ca93077e7e4a8" and len(text) == 538
    code = "import sys, nemo_cosmos.inference.prompts; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
