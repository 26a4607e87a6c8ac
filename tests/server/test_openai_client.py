"""The official client of OpenAI's API against the server."""

from __future__ import annotations

import pytest

openai = pytest.importorskip("openai", reason="the openai client is not installed")

MESSAGES = [{"role": "user", "content": "Tell me a story about a fox."}]
GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def expected(stories):
    return stories.chat(MESSAGES, **GREEDY)


def test_models_are_listed_with_what_they_are(client, stories):
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("stories", "model", "torchless")
    assert client.models.retrieve("stories").context_length == stories.context_length
    with pytest.raises(openai.NotFoundError, match="there is stories") as caught:
        client.models.retrieve("gpt-4")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_chat_answers_as_the_model_alone_does(client, expected):
    answer = client.chat.completions.create(model="stories", messages=MESSAGES, **GREEDY)
    (choice,) = answer.choices
    assert choice.message.content == expected.text and choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    assert answer.usage.prompt_tokens == expected.usage.num_prompt_tokens
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == expected.usage.num_prompt_tokens + 12
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")


def test_a_streamed_chat_has_the_same_text_and_says_what_it_took(client, expected):
    stream = client.chat.completions.create(
        model="stories", messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **GREEDY
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == expected.text
    assert len([text for text in texts if text]) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_has_no_usage_unless_it_is_asked_for(client):
    chunks = list(client.chat.completions.create(model="stories", messages=MESSAGES, stream=True, **GREEDY))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_the_seed_decides_and_is_told(client, stories):
    options = {"model": "stories", "messages": MESSAGES, "max_tokens": 16, "temperature": 1.5}
    one = client.chat.completions.create(**options)
    seed = one.torchless["seeds"][0]
    again = client.chat.completions.create(**options, seed=seed)
    assert one.choices[0].message.content == again.choices[0].message.content
    assert (
        stories.chat(MESSAGES, max_tokens=16, temperature=1.5, seed=seed).text
        == again.choices[0].message.content
    )


def test_a_prompt_that_was_computed_before_is_told(client, stories):
    messages = [{"role": "user", "content": "Tell me a long story about a fox and a hen. " * 8}]
    first, second = (
        client.chat.completions.create(model="stories", messages=messages, **GREEDY) for _ in range(2)
    )
    assert second.choices[0].message.content == first.choices[0].message.content
    details = second.usage.prompt_tokens_details
    assert second.usage.prompt_tokens == first.usage.prompt_tokens > details.cached_tokens >= 32


def test_several_answers_are_those_of_the_seeds_that_follow(client, stories):
    answer = client.chat.completions.create(
        model="stories", messages=MESSAGES, max_tokens=10, temperature=1.2, seed=7, n=3
    )
    texts = [choice.message.content for choice in answer.choices]
    alone = [stories.chat(MESSAGES, max_tokens=10, temperature=1.2, seed=7 + i).text for i in range(3)]
    assert texts == alone and len(set(texts)) > 1
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.completion_tokens == 30
    assert answer.usage.prompt_tokens == stories.chat(MESSAGES, max_tokens=1).usage.num_prompt_tokens


def test_several_answers_stream_beside_each_other(client, stories):
    chunks = client.chat.completions.create(
        model="stories", messages=MESSAGES, max_tokens=10, temperature=1.2, seed=7, n=2, stream=True
    )
    texts = ["", ""]
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [
        stories.chat(MESSAGES, max_tokens=10, temperature=1.2, seed=7 + i).text for i in range(2)
    ]


def test_samplers_of_other_engines_are_fields_too(client, stories):
    extra = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.3}
    answer = client.chat.completions.create(
        model="stories", messages=MESSAGES, max_tokens=12, seed=3, extra_body=extra
    )
    alone = stories.chat(MESSAGES, max_tokens=12, seed=3, **extra)
    assert answer.choices[0].message.content == alone.text


def test_a_stop_string_and_a_bias_are_honoured(client, stories):
    full = stories.chat(MESSAGES, temperature=0, max_tokens=40).text
    stop = full.split()[4]
    answer = client.chat.completions.create(
        model="stories", messages=MESSAGES, temperature=0, max_completion_tokens=40, stop=[stop]
    )
    assert answer.choices[0].message.content == full[: full.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    first = stories.chat(MESSAGES, temperature=0, max_tokens=1).token_ids[0]
    biased = client.chat.completions.create(
        model="stories", messages=MESSAGES, logit_bias={str(first): -100}, **GREEDY
    )
    assert biased.choices[0].message.content != full[: len(biased.choices[0].message.content)]


def test_json_under_a_schema(client):
    schema = {
        "type": "object",
        "properties": {
            "name": {"enum": ["fox", "hen"]},
            "age": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    pytest.importorskip("llguidance")
    import json

    answer = client.chat.completions.create(
        model="stories",
        messages=MESSAGES,
        response_format={"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}},
        seed=1,
    )
    value = json.loads(answer.choices[0].message.content)
    assert value["name"] in ("fox", "hen") and 0 <= value["age"] <= 9


def test_a_schema_that_cannot_be_enforced_is_refused_with_its_place(client):
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(openai.BadRequestError, match="/properties/tags/uniqueItems") as caught:
        client.chat.completions.create(
            model="stories",
            messages=MESSAGES,
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        )
    assert caught.value.param == "response_format"


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(client, stories):
    messages = [{"role": "user", "content": "once upon a time " * 400}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="stories", messages=messages)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert str(stories.context_length) in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="stories", prompt="once upon a time " * 400)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


def test_a_text_is_continued(client, stories):
    answer = client.completions.create(model="stories", prompt="Once upon a time", temperature=0)
    expected = stories.generate("Once upon a time", temperature=0, max_tokens=16)
    assert answer.choices[0].text == expected.text
    assert answer.usage.completion_tokens == len(expected.token_ids) <= 16
    echoed = client.completions.create(model="stories", prompt="Once upon a time", temperature=0, echo=True)
    assert echoed.choices[0].text == "Once upon a time" + expected.text


def test_several_prompts_have_answers_of_their_own(client, stories):
    ids = stories.tokenizer.encode("The dog")
    answer = client.completions.create(model="stories", prompt=[ids, ids], temperature=0, max_tokens=5, n=2)
    text = stories.generate(ids, temperature=0, max_tokens=5).text
    assert [choice.text for choice in answer.choices] == [text] * 4
    assert answer.usage.prompt_tokens == 2 * len(ids)


def test_a_streamed_continuation_has_the_same_text(client, stories):
    chunks = client.completions.create(
        model="stories", prompt="Once", temperature=0, max_tokens=9, stream=True, echo=True
    )
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert text == "Once" + stories.generate("Once", temperature=0, max_tokens=9).text


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("frequency_penaltee", 1, "did you mean 'frequency_penalty'"),
        ("temperature", -1, "temperature must be"),
        ("temperature", "hot", "temperature must be"),
        ("n", 0, "n: must be from 1 to"),
        ("n", "two", "n: expected int"),
        ("stream", "yes", "stream: expected bool"),
        ("store", True, "nothing is stored"),
        ("functions", [], "send tools"),
        ("logit_bias", {"a": 1}, "token ids"),
        ("logit_bias", {"999999": 1}, "999999"),
        ("response_format", {"type": "xml"}, "response_format must be"),
        ("max_tokens", 0, "max_tokens must be"),
    ],
)
def test_a_wrong_field_is_refused_by_name(client, field, value, sentence):
    with pytest.raises(openai.BadRequestError, match=sentence) as caught:
        client.chat.completions.create(model="stories", messages=MESSAGES, extra_body={field: value})
    assert caught.value.param == field


@pytest.mark.parametrize("value", [{"user": "me"}, {"metadata": {"a": "b"}}, {"service_tier": "auto"}])
def test_fields_for_the_callers_own_books_are_accepted(client, value, expected):
    answer = client.chat.completions.create(model="stories", messages=MESSAGES, extra_body=value, **GREEDY)
    assert answer.choices[0].message.content == expected.text


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([], "messages"),
        (["hi"], r"messages\[0\]"),
        ([{"content": "hi"}], r"messages\[0\].role"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "reads text"),
        ([{"role": "wizard", "content": "hi"}], "wizard"),
    ],
)
def test_wrong_messages_are_refused_with_their_place(client, messages, place):
    with pytest.raises(openai.BadRequestError, match=place):
        client.chat.completions.create(model="stories", messages=messages)
