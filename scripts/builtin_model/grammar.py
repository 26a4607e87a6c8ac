"""The training text of the built-in model: an endless stream of stories and chats, fixed by its seed.

    python grammar.py --seed 7 --count 3        prints three documents

A document is a story (story.py) or a chat around stories (chat.py):

    Once upon a time ... <|endoftext|>
    <|user|>Tell me a story about a fox.<|end|><|assistant|>Once upon a time ...<|end|><|endoftext|>
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator

from chat import END_OF_TEXT, write_chat
from story import write_story

CHAT_SHARE = 0.4


def documents(seed: int) -> Iterator[str]:
    """An endless stream of documents. Streams of different seeds are independent."""
    rng = random.Random(seed)
    while True:
        yield write_chat(rng) if rng.random() < CHAT_SHARE else write_story(rng).text + END_OF_TEXT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=5)
    options = parser.parse_args()
    stream = documents(options.seed)
    for _ in range(options.count):
        print(next(stream), end="\n\n")


if __name__ == "__main__":
    main()
