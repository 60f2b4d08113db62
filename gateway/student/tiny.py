"""A small random model and a tokenizer made from the rows themselves: `--base tiny`.

It exists so that the whole road can be walked on a laptop, offline, in seconds. The same rows
and seed give the same tokenizer and the same first weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from gateway.student.recipe import CONTEXT_TOKENS, VOCABULARY_COUNT_MAX
from gateway.student.template import CHATML, PAD_TOKEN, START_TOKEN, STOP_TOKEN


def tiny_tokenizer(texts: Iterable[str]) -> Any:
    """Return a byte-level BPE tokenizer trained on *texts*, with the house's chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_COUNT_MAX,
        special_tokens=[PAD_TOKEN, START_TOKEN, STOP_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=STOP_TOKEN,
        pad_token=PAD_TOKEN,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHATML
    return fast


def tiny_model(tokenizer: Any, seed: int) -> Any:
    """Return a random two-layer model for *tokenizer*; the same *seed*, the same weights."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)
