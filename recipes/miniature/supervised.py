"""Stage 1: tokenizer and policy. A 1.2M-parameter Qwen3 learns the supervised corpus with TRL's SFTTrainer."""

from pathlib import Path
from random import Random

import torch
from corpus import Demonstration, draw_demonstrations
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import SFTConfig, SFTTrainer

VOCABULARY = 1536
BATCH_SIZE = 32
STEPS = 2800
LEARNING_RATE = 3e-3
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose tokens may span words, never a digit, and end at a line or a mark of punctuation.

    Superword tokens make the miniature's sequences about four times shorter than a usual tokenizer would, which is
    what lets it train on two cores; any other text still has a tokenization, down to bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"\n *|[.,:;]"), "merged_with_previous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        max_token_length=40,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
    )


def build_policy(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A random Qwen3 of 1.2M parameters."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            intermediate_size=384,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train_policy(output: Path, other_texts: list[str], *, seed: int, steps: int = STEPS) -> None:
    """Train and save policy and tokenizer; `other_texts` only lends the tokenizer words of real code."""
    torch.manual_seed(seed)
    demonstrations = draw_demonstrations(Random(f"corpus {seed}"), steps * BATCH_SIZE)
    sample = [text for one in demonstrations[:6000] for text in (one.problem, one.completion)]
    tokenizer = build_tokenizer(sample + other_texts)
    trainer = SFTTrainer(
        model=build_policy(tokenizer),
        processing_class=tokenizer,
        train_dataset=_tokenize(demonstrations, tokenizer),
        args=SFTConfig(
            output_dir=str(output / "trainer"),
            per_device_train_batch_size=BATCH_SIZE,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="linear",
            warmup_steps=50,
            adam_beta2=0.98,
            weight_decay=0.01,
            max_length=None,
            completion_only_loss=True,
            train_sampling_strategy="group_by_length",
            seed=seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="steps",
            save_steps=max(1, int(0.6 * steps)),  # the early policy of the rollouts
            save_only_model=True,
            report_to="none",
            logging_steps=100,
        ),
    )
    trainer.train()
    trainer.model.to(torch.bfloat16).save_pretrained(output)  # what is embedded is what every later stage uses
    tokenizer.save_pretrained(output)


def _tokenize(demonstrations: list[Demonstration], tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """Token ids, with a mask over the completion and its closing token: what the loss is taken over."""
    turns = [[{"role": "user", "content": one.problem}] for one in demonstrations]
    prompts = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))["input_ids"]
    completions = tokenizer([one.completion + tokenizer.eos_token for one in demonstrations])["input_ids"]
    return Dataset.from_dict(
        {
            "input_ids": [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)],
            "completion_mask": [
                [0] * len(prompt) + [1] * len(completion)
                for prompt, completion in zip(prompts, completions, strict=True)
            ],
        }
    )
