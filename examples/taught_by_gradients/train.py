"""A warm-up of a very small model on the pool, which leaves two checkpoints with the moments of Adam.

    python examples/taught_by_gradients/train.py

It made the folders in checkpoints/; a checkpoint of transformers' Trainer serves as well. Ten seconds on a CPU.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
STEPS, RATE, BETAS, EPS = 300, 3e-3, (0.9, 0.999), 1e-8

rows = [json.loads(line) for line in (HERE / "data" / "mixed.jsonl").read_text("utf-8").splitlines()]
texts = [f"<|user|>\n{row['prompt']}\n<|assistant|>\n{row['response']}" for row in rows]

raw = Tokenizer(models.BPE())
raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
alphabet = pre_tokenizers.ByteLevel.alphabet()
raw.train_from_iterator(
    texts, trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=256,
    tie_word_embeddings=True,
)
network = LlamaForCausalLM(config)
optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, betas=BETAS, eps=EPS)
schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
for step in range(1, STEPS + 1):
    ids = tokenizer(texts[step % len(texts)] + "</s>", return_tensors="pt")["input_ids"]
    network(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    if step % (STEPS // 2) == 0:
        folder = HERE / "checkpoints" / f"step-{step}"
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        moments = {
            f"{name}.{kind}": optimizer.state[parameter][kind]
            for name, parameter in network.named_parameters()
            if name.startswith("model.layers.")
            for kind in ("exp_avg", "exp_avg_sq")
        }
        save_file(moments, folder / "optimizer.safetensors", {"betas": json.dumps(BETAS), "eps": json.dumps(EPS)})
