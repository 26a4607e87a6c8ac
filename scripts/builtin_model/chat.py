"""Writes small chats around stories: wishes and their stories, greetings, and questions out of reach."""

from __future__ import annotations

import random

import words
from plots import PLOTS
from story import Request, article, pick_name, write_story

USER, ASSISTANT, END, END_OF_TEXT = "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, USER, ASSISTANT, END)

ASK_VERBS = (
    "Tell me a story",
    "Write a story",
    "Write a short story",
    "Please tell me a story",
    "Can you tell me a story",
    "Tell me a short story",
    "I want a story",
    "Make up a story",
    "Give me a story",
    "Write me a little story",
    "Tell a story",
)
AGAIN_VERBS = (
    "Another one",
    "One more",
    "Now one",
    "And another story",
    "Tell me another one",
    "Now tell me a story",
)
PREFIXES = (
    "Of course! ",
    "Sure! ",
    "Here is your story.\n\n",
    "With pleasure!\n\n",
    "Here is a story for you.\n\n",
)
GREETINGS = (
    ("Hello!", "Hello! Shall I tell you a story?"),
    ("Hi", "Hi! Would you like to hear a story?"),
    ("Hello", "Hello! Shall I tell you a story?"),
    ("Hi there!", "Hi! Would you like to hear a story?"),
    ("Hey", "Hey! Would you like to hear a story?"),
    ("Good morning!", "Good morning! Shall I begin the day with a story?"),
    ("Good evening!", "Good evening! It is a good time for a story."),
    ("Good night!", "Good night! Sleep well and dream of a good story."),
    ("How are you?", "I am well, thank you! Shall I tell you a story?"),
    ("Hello, how are you?", "Hello! I am well, thank you. Shall I tell you a story?"),
    ("What is your name?", "My name is Torchless Stories. I am a very small storyteller."),
    ("Who are you?", "I am Torchless Stories, a very small language model. I can tell you a story."),
    (
        "What can you do?",
        "I can tell short stories about animals, children, and their friends. Ask me for one!",
    ),
    ("What are you?", "I am a very small language model that tells stories."),
    ("Are you a robot?", "I am a very small language model. I can tell you a story about a robot!"),
    ("Who made you?", "I was made for torchless and taught with stories from a small story grammar."),
    ("Thank you!", "You are welcome! Shall I tell you another story?"),
    ("Thanks", "You are welcome! Would you like another story?"),
    ("Help", "Ask me for a story. For example: Tell me a story about a fox."),
    ("Bye", "Goodbye! Come back for another story."),
    ("Goodbye!", "Goodbye! Come back for another story."),
    ("Do you like stories?", "Yes! Stories are all that I know."),
    ("I am bored.", "Then it is time for a story! Who shall it be about?"),
    ("I am sad.", "I am sorry to hear that. Shall I tell you a happy story?"),
    ("I cannot sleep.", "Then let me tell you a quiet story. Who shall it be about?"),
)
OFF_TOPIC_STARTS = (
    "What is",
    "Who is",
    "Where is",
    "How do I make",
    "Explain",
    "Write a program for",
    "Why is there",
    "Can you calculate",
    "Translate",
    "How does",
    "When was",
    "Tell me about",
    "What do you think of",
    "Solve",
    "Help me with",
    "Summarize",
    "How many",
    "What color is",
)
OFF_TOPIC_THINGS = (
    "2 + 2",
    "the capital of France",
    "Python",
    "gravity",
    "the weather",
    "my homework",
    "machine learning",
    "the news",
    "the president",
    "a computer",
    "a car engine",
    "the number 7",
    "history",
    "water",
    "this email",
    "a recipe",
    "math",
    "the internet",
    "C++",
    "10 * 3",
    "the sun",
    "Germany",
    "the biggest city",
    "chess",
    "physics",
    "time",
    "money",
    "a poem",
    "sorting a list",
    "the year 1990",
)
OFF_TOPIC_ANSWERS = (
    "I do not know, for I am a very small model and only know stories. Shall I tell you one?",
    "I only know stories. Would you like to hear one?",
    "That is too hard for a small storyteller. Ask me for a story!",
)
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a friendly storyteller.",
    "Answer briefly.",
    "You tell stories for children.",
    "You are a kind assistant who writes stories.",
    "Be polite and helpful.",
    "You are an AI assistant.",
)


def _ask(rng: random.Random, again: bool) -> tuple[str, Request]:
    """A user's wish and what it binds."""
    verb = rng.choice(AGAIN_VERBS if again else ASK_VERBS)
    kind = rng.choice(words.CHILDREN + words.ROLES if rng.random() < 0.2 else words.ANIMALS)
    end = "?" if verb.startswith("Can") else "." if rng.random() < 0.8 else ""
    comma = "," if again and rng.random() < 0.5 and not verb.endswith("story") else ""
    trait = rng.choice(words.TRAITS) if rng.random() < 0.2 else None
    hero = article(f"{trait} {kind}" if trait else kind)
    dice = rng.random()
    if dice < 0.34:
        female = kind in words.FEMALE or (kind not in words.MALE and rng.random() < 0.5)
        name = pick_name(rng, words.GIRL_NAMES if female else words.BOY_NAMES, None, invented=0.3)
        called = rng.choice(("named", "named", "called"))
        return f"{verb}{comma} about {hero} {called} {name}{end}", Request(kind, trait, name)
    if dice < 0.60:
        return f"{verb}{comma} about {hero}{end}", Request(kind, trait)
    if dice < 0.68:
        noun = rng.choice(words.THINGS)
        return f"{verb}{comma} about {article(noun)}{end}", Request(noun=noun)
    if dice < 0.74:
        noun = rng.choice(words.THINGS)
        return f"{verb}{comma} about {hero} and {article(noun)}{end}", Request(kind, trait, noun=noun)
    if dice < 0.80:
        return f"{verb}{end}", Request()
    plot = rng.choice(PLOTS)
    topic = rng.choice([t for t in plot.topics if "{" not in t])
    if dice < 0.88:
        return f"{verb}{comma} about {hero} and {topic}{end}", Request(kind, trait, plot=plot)
    return f"{verb}{comma} about {topic}{end}", Request(plot=plot)


def _small_talk(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.55:
        return rng.choice(GREETINGS)
    question = f"{rng.choice(OFF_TOPIC_STARTS)} {rng.choice(OFF_TOPIC_THINGS)}"
    return question + rng.choice(("?", "?", ".", "")), rng.choice(OFF_TOPIC_ANSWERS)


def write_chat(rng: random.Random) -> str:
    """One chat of one to three turns, in the document format of grammar.py."""
    turns = rng.choices((1, 2, 3), (0.6, 0.3, 0.1))[0]
    parts: list[str] = []
    told = 0
    for turn in range(turns):
        if told == 2 or rng.random() < 0.2:  # two stories fill the context
            question, answer = _small_talk(rng)
        else:
            question, request = _ask(rng, told > 0 and rng.random() < 0.7)
            answer = write_story(rng, request).text
            if rng.random() < 0.15:
                answer = rng.choice(PREFIXES) + answer
            told += 1
        if rng.random() < 0.08:
            question = question.lower()
        if turn == 0 and rng.random() < 0.12:
            question = f"{rng.choice(SYSTEM_PROMPTS)}\n\n{question}"
        parts.append(f"{USER}{question}{END}{ASSISTANT}{answer}{END}")
    return "".join(parts) + END_OF_TEXT
