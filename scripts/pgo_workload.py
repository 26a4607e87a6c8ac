"""What a profile-guided build is trained on: prompts and decoding, alone and in a batch. See scripts/build_pgo."""

from __future__ import annotations

import sys

import torchless


def main(path: str) -> None:
    prompt = list(range(3, 259))
    with torchless.load(path, ctx=1024, threads=2) as model:
        for length in (256, 7):
            model.generate(prompt[:length], max_tokens=128, temperature=0.8, seed=1, ignore_eos=True)
        model.batch([prompt[:40]] * 4, max_tokens=64, ignore_eos=True)


if __name__ == "__main__":
    main(sys.argv[1])
