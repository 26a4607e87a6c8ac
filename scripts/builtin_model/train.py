"""Trains one of the built-in models on generated text; prints and logs the loss, writes checkpoints.

python train.py --model stories --steps 2500 --out runs/stories
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from grammar import documents
from model import CONFIGS, Llama
from tokenizer import load_or_train
from tokenizers import Tokenizer
from torch.nn import functional

VALIDATION_SEED = 999_331
NUM_VALIDATION_ROWS = 64


def rows(tokenizer: Tokenizer, seed: int, length: int) -> Iterator[np.ndarray]:
    """Token rows [length + 1]: whole documents packed one after another; only the last of a row is cut.

    Every row begins at the beginning of a document, as every prompt does.
    """
    stream = documents(seed)
    row: list[int] = []
    while True:
        for encoding in tokenizer.encode_batch([next(stream) for _ in range(1024)]):
            row += encoding.ids
            if len(row) > length:
                yield np.array(row[: length + 1], dtype=np.int64)
                row = []


def loss_of(model: torch.nn.Module, batch: torch.Tensor, autocast: bool) -> torch.Tensor:
    """Mean cross entropy (nats per token) of a batch [rows, length + 1]."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = model(batch[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=sorted(CONFIGS), default="stories")
    parser.add_argument("--steps", type=int, default=2500, help="length of the cosine schedule")
    parser.add_argument("--stop", type=int, help="stop at this step, before the cosine has ended")
    parser.add_argument("--minutes", type=float, help="end the run (and the cosine) after this time instead")
    parser.add_argument("--batch", type=int, default=4, help="rows of 512 tokens per step")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--warmup", type=int, default=100, help="steps to the peak rate")
    parser.add_argument("--init", type=Path, help="checkpoint to start from (with another --seed: new text)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokenizer", type=Path, default=Path("runs/tokenizer.json"))
    parser.add_argument("--out", type=Path, default=Path("runs/stories"))
    parser.add_argument("--float32", action="store_true", help="no bfloat16 matrix products")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    return parser.parse_args()


def make_optimizers(model: Llama, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.dim() == 2 and name.startswith("blk")]
    others = [p for name, p in named if p.dim() < 2 or not name.startswith("blk")]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = load_or_train(options.tokenizer)
    config = CONFIGS[options.model]
    model = Llama(config)
    if options.init:
        model.load_state_dict(torch.load(options.init, weights_only=True))
    print(
        f"{options.model}: {sum(p.numel() for p in model.parameters())} parameters, {asdict(config)}",
        flush=True,
    )
    optimizers = make_optimizers(model, options.rate)
    runner = torch.compile(model) if options.compile else model

    training = rows(tokenizer, options.seed, config.context_length)
    held_out = rows(tokenizer, VALIDATION_SEED, config.context_length)
    validation = torch.from_numpy(np.stack([next(held_out) for _ in range(NUM_VALIDATION_ROWS)]))
    log = (options.out / "log.jsonl").open("w", buffering=1)
    started = time.monotonic()
    step, average, last = 0, 0.0, False
    while not last:
        step += 1
        seconds = time.monotonic() - started
        progress = min(1.0, seconds / (60 * options.minutes) if options.minutes else step / options.steps)
        last = progress == 1.0 or step == options.stop
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
        rate = options.rate * min(1.0, step / options.warmup) * cosine
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        batch = torch.from_numpy(np.stack([next(training) for _ in range(options.batch)]))
        loss = loss_of(runner, batch, not options.float32)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        average = loss.item() if step == 1 else 0.95 * average + 0.05 * loss.item()
        if step % 20 and not last:
            continue
        record = {"step": step, "loss": round(average, 4), "rate": rate, "seconds": round(seconds, 1)}
        record["tokens"] = step * options.batch * config.context_length
        if step % 200 == 0 or last:
            with torch.no_grad():
                batches = validation.split(options.batch)
                losses = [loss_of(runner, part, not options.float32).item() for part in batches]
            record["validation_loss"] = round(sum(losses) / len(losses), 4)
            torch.save(model.state_dict(), options.out / "checkpoint.pt")
        print(json.dumps(record), flush=True)
        log.write(json.dumps(record) + "\n")
    log.close()


if __name__ == "__main__":
    main()
