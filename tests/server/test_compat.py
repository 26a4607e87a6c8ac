"""Programs of other libraries: OpenAI's client in this process, and llama-cpp-python's class."""

from __future__ import annotations

import threading

import pytest

import torchless
from torchless.compat.llama_cpp import Llama
from torchless.errors import InvalidRequestError, UnsupportedError

openai = pytest.importorskip("openai", reason="the openai client is not installed")
MESSAGES = [{"role": "user", "content": "Tell me a story about a fox."}]


@pytest.fixture(scope="module")
def llama():
    with Llama(n_threads=1, seed=3) as llama:
        yield llama


def test_openais_client_works_without_a_server(stories):
    from torchless.compat.openai import OpenAI

    client = OpenAI(stories)
    options = {"model": "stories", "messages": MESSAGES, "temperature": 0, "max_tokens": 12}
    expected = stories.chat(MESSAGES, temperature=0, max_tokens=12).text
    assert client.chat.completions.create(**options).choices[0].message.content == expected
    chunks = client.chat.completions.create(**options, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**options, "model": "gpt"})
    before = threading.active_count()
    client.close()
    assert threading.active_count() < before
    assert stories.generate("a", max_tokens=1).token_ids  # the model is its owner's


def test_a_stream_that_is_left_ends_its_request(stories):
    from torchless.compat.openai import OpenAI

    client = OpenAI(stories)
    options = {
        "model": "stories",
        "messages": MESSAGES,
        "max_tokens": 400,
        "extra_body": {"ignore_eos": True},
    }
    with client.chat.completions.create(**options, stream=True) as stream:
        next(iter(stream))
    client.close()  # `nothing_is_left` looks after it


def test_a_completion_has_that_librarys_shape_and_defaults(llama, stories):
    answer = llama("Once upon a time", temperature=0)
    expected = stories.generate("Once upon a time", temperature=0, max_tokens=16)
    assert answer["choices"][0]["text"] == expected.text and answer["object"] == "text_completion"
    assert answer["usage"]["completion_tokens"] == 16
    pieces = list(llama.create_completion("Once upon a time", temperature=0, stream=True))
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == expected.text
    again = [llama("Once", max_tokens=8)["choices"][0]["text"] for _ in range(2)]
    assert again[0] == again[1] == stories.generate("Once", max_tokens=8, seed=3).text
    assert len(llama("Once", max_tokens=-1, temperature=0)["choices"][0]["text"]) > 100


def test_a_chat_has_that_librarys_shape(llama, stories):
    answer = llama.create_chat_completion(MESSAGES, max_tokens=10, seed=1)
    expected = stories.chat(MESSAGES, temperature=0.2, max_tokens=10, seed=1).text
    assert answer["choices"][0]["message"]["content"] == expected
    chunks = list(llama.create_chat_completion(MESSAGES, max_tokens=10, seed=1, stream=True))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == expected


def test_tokens_go_there_and_back(llama, stories):
    ids = llama.tokenize("h\u00e9llo".encode())
    assert ids == stories.tokenizer.encode("h\u00e9llo") and llama.detokenize(ids).decode() == "h\u00e9llo"
    assert (llama.n_ctx(), llama.n_vocab(), llama.n_embd()) == (512, stories.tokenizer.vocab_size, 128)
    assert (llama.token_bos(), llama.token_eos()) == (-1, stories.tokenizer.eos_id)


def test_vectors():
    with Llama(embedding=True, n_threads=1) as llama, torchless.load(task="embed", threads=1) as model:
        expected = model.embed(["a cat", "a dog"])
        answer = llama.create_embedding(["a cat", "a dog"])
        assert [item["embedding"] for item in answer["data"]] == [
            [float(str(x)) for x in row] for row in expected
        ]
        assert len(llama.embed("a cat")) == 128


def test_what_is_not_done_here_is_refused_by_name(llama):
    with pytest.raises(UnsupportedError, match="chat_format"):
        Llama(chat_format="chatml")
    with pytest.raises(UnsupportedError, match="draft_model"):
        Llama(draft_model=object())
    with pytest.raises(UnsupportedError, match="type_k"):
        Llama(type_k=99)
    with pytest.raises(InvalidRequestError, match="did you mean 'temperature'"):
        llama("a", temperatur=1)
    with pytest.raises(InvalidRequestError, match="temperature must be"):
        list(llama("a", temperature=-1, stream=True))
    with pytest.raises(InvalidRequestError, match="names no recipe"):
        Llama.from_pretrained("org/repo", "*.gguf")
