"""The facade: what a request returns, where it ends, and that it leaves nothing behind."""

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_executor import FakeExecutor, expected_logits

from torchless.errors import (
    ContextLengthError,
    InvalidRequestError,
    TemplateError,
    TokenizerError,
    TorchlessError,
)
from torchless.llm import LLM
from torchless.loading import LoadedModel
from torchless.plan import Plan
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams
from torchless.text.tokenizer import Tokenizer

# A SentencePiece vocabulary of single letters; é takes two byte tokens.
PIECES = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "\u2581", *"abcdefghijklmnopqrstuvwxyz.!<>|"]
TYPES = [2, 3, 3, 6, 6] + [1] * (len(PIECES) - 5)
BOS, EOS, C3, A9 = 1, 2, 3, 4
VOCAB = 50  # the model's: some ids have no token, as in models with a padded vocabulary
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role }}|{{ m.content }}{{ eos_token }}{% endfor %}a|"


def tokenizer(*, adds_bos=True, space_prefix=False, template=None, marks=()):
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*PIECES, *marks],
        "tokenizer.ggml.scores": [0.0] * (len(PIECES) + len(marks)),
        "tokenizer.ggml.token_type": [*TYPES, *[3] * len(marks)],
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.add_bos_token": adds_bos,
        "tokenizer.ggml.add_space_prefix": space_prefix,
    }
    if template is not None:
        metadata["tokenizer.chat_template"] = template
    return Tokenizer.from_metadata(metadata)


def ids_of(text):
    return [PIECES.index(letter) for letter in text.replace(" ", "\u2581")]


def make(
    *,
    says=None,
    after=1,
    ctx=200,
    template=None,
    adds_bos=True,
    space_prefix=False,
    chat_template=None,
    marks=(),
    **executor_options,
):
    """A model whose greedy answer to a prompt of `after` tokens is `says` (text or ids)."""
    wanted = ids_of(says) if isinstance(says, str) else says or []
    favourites = {after + i: token for i, token in enumerate(wanted)}
    executor = FakeExecutor(vocab_size=VOCAB, favourites=favourites, **executor_options)
    tensors = {"t": SimpleNamespace(shape=(VOCAB, 2), type="F32", num_bytes=400)}
    source = SimpleNamespace(
        path=Path("fake.gguf"), format="gguf", metadata={}, tensors=tensors, close=lambda: None
    )
    text = tokenizer(adds_bos=adds_bos, space_prefix=space_prefix, template=template, marks=marks)
    return LLM(
        LoadedModel(
            source=source,
            plan=Plan({}),
            config=SimpleNamespace(context_length=ctx),
            tokenizer=text,
            executor=executor,
            backend="fake",
            context_length=ctx,
            chat_template=chat_template,
            defaults=SamplingParams(),
        )
    )


def executor_of(model):
    return model._loaded.executor


def is_clean(model):
    """Whether nothing is left, once the engine has obeyed."""
    return model._runner.call(
        lambda engine: engine.scheduler.is_idle and engine.pages.num_free == engine.pages.num_pages
    )


def greedy(model, prompt="", **sampling):
    return model.generate(prompt, temperature=0, **sampling)


# -- results --------------------------------------------------------------------------------------


def test_generate_returns_text_ids_reason_usage_timings_and_parameters():
    model = make(says="hello world", after=3)
    completion = greedy(model, "ab", max_tokens=11)
    assert completion.text == "hello world"
    assert list(completion.token_ids) == ids_of("hello world")
    assert completion.finish_reason == "length"
    assert (completion.usage.num_prompt_tokens, completion.usage.num_completion_tokens) == (3, 11)
    assert completion.params == SamplingParams(temperature=0, max_tokens=11, seed=completion.params.seed)
    assert completion.logits_hash == ""
    timings = completion.timings
    assert 0 < timings.prefill_ms <= timings.time_to_first_token_ms and timings.decode_ms > 0
    assert timings.decode_tokens_per_second == pytest.approx(10 / timings.decode_ms * 1e3)
    assert timings.prefill_tokens_per_second == pytest.approx(3 / timings.prefill_ms * 1e3)


def test_a_run_can_be_repeated_from_its_reported_parameters():
    model = make()
    first = model.generate("abc", max_tokens=30)
    assert first.params.seed is not None
    assert model.generate("abc", params=first.params).token_ids == first.token_ids
    others = (model.generate("abc", max_tokens=30) for _ in range(20))  # short answers may agree
    assert any(other.token_ids != first.token_ids for other in others), "every run draws another seed"


def test_tokens_are_those_of_the_definition():
    params = SamplingParams(seed=9, max_tokens=25)
    tokens = [BOS, *ids_of("xyz")]
    sampler = Sampler(params)
    for _ in range(25):
        tokens.append(sampler.pick(expected_logits(tokens, VOCAB), np.array(tokens, np.int32)))
    expected = tokens[4:]
    assert EOS not in expected
    for max_batch_tokens in (1, 3, 32):
        model = make(max_batch_tokens=max_batch_tokens)
        assert list(model.generate("xyz", seed=9, max_tokens=25).token_ids) == expected


def test_token_ids_are_taken_as_they_are():
    model = make(says="ok", after=2)
    assert greedy(model, np.array([5, 6]), max_tokens=2).text == "ok"
    assert executor_of(model).batches[0].token_ids.tolist() == [5, 6]


def test_the_model_s_own_defaults_fill_what_a_request_leaves_open():
    model = make()
    model.defaults = SamplingParams(temperature=0.25, top_k=3)
    params = model.generate("a", max_tokens=1, top_p=0.5).params
    assert (params.temperature, params.top_k, params.top_p) == (0.25, 3, 0.5)


def test_the_hash_of_the_logits_depends_on_the_logits_only():
    prompt = "the quick brown fox"
    hashes = {
        make(max_batch_tokens=n).generate(prompt, seed=1, max_tokens=9, logits_hash=True).logits_hash
        for n in (1, 4, 32)
    }
    together = make(max_outputs=4).batch([prompt, "b", prompt], seed=1, max_tokens=9, logits_hash=True)
    assert {completion.logits_hash for completion in together[::2]} == hashes
    assert len(hashes) == 1 and len(hashes.pop()) == 16
    other = make().generate("the quick brown fax", seed=1, max_tokens=9, logits_hash=True).logits_hash
    assert other not in hashes


def test_info_and_repr_say_what_was_loaded():
    model = make()
    info = model.info
    assert info["format"] == "gguf" and info["num_parameters"] == 100 and info["tensor_types"] == {"F32": 1}
    assert info["memory_bytes"]["weights"] == 1 and info["num_threads"] == 1
    assert repr(model) == "<LLM 'fake.gguf' ctx=200 kv=f16 threads=1 backend=fake>"


# -- where an answer ends -------------------------------------------------------------------------


def test_the_end_token_ends_the_answer_and_is_not_part_of_it():
    completion = greedy(make(says=[*ids_of("hi."), EOS, *ids_of("more")]), max_tokens=50)
    assert (completion.text, completion.finish_reason) == ("hi.", "stop")
    assert list(completion.token_ids) == ids_of("hi.")


def test_ignore_eos_forbids_the_end_token():
    completion = greedy(make(says=[*ids_of("hi"), EOS]), max_tokens=8, ignore_eos=True)
    assert len(completion.token_ids) == 8 and EOS not in completion.token_ids
    assert completion.finish_reason == "length"


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("world", "hello "),
        ("o wor", "hell"),
        ("h", ""),
        (["zzz", "wor"], "hello "),
        (["hello world!", "world"], "hello "),  # the one that is complete first
    ],
)
def test_a_stop_string_ends_the_answer_across_tokens_and_is_not_part_of_it(stop, expected):
    model = make(says="hello world! and more")
    chunks = list(model.stream("", temperature=0, stop=stop, max_tokens=21))
    completion = chunks[-1].completion
    assert completion.text == expected == "".join(chunk.text for chunk in chunks)
    assert completion.finish_reason == "stop"
    assert len(executor_of(model).batches) == len(completion.token_ids), "nothing is computed past the stop"


def test_text_held_back_for_a_stop_string_is_let_out_at_the_end():
    chunks = list(make(says="stop st").stream("", temperature=0, stop="stop sti", max_tokens=7))
    assert "".join(chunk.text for chunk in chunks) == "stop st" == chunks[-1].completion.text
    assert chunks[-1].finish_reason == "length"


def test_the_context_ends_the_answer_when_it_is_full():
    completion = greedy(make(ctx=12), "abc", ignore_eos=True)
    assert completion.usage.num_prompt_tokens + completion.usage.num_completion_tokens == 12
    assert completion.finish_reason == "length"


def test_max_tokens_counts_the_answer_only():
    assert len(greedy(make(), "abc", max_tokens=1, ignore_eos=True).token_ids) == 1


def test_an_end_token_as_the_only_token():
    completion = greedy(make(says=[EOS]))
    assert (completion.text, completion.token_ids, completion.finish_reason) == ("", (), "stop")


# -- streaming ------------------------------------------------------------------------------------


def test_chunks_join_to_the_completion_and_never_split_a_character():
    model = make(says=[*ids_of("caf"), C3, A9, *ids_of(" ole"), C3, A9])
    chunks = list(model.stream("", temperature=0, max_tokens=11))
    assert [chunk.text for chunk in chunks] == ["c", "a", "f", "é", " ", "o", "l", "e", "é"]
    assert chunks[3].token_ids == (C3, A9)
    completion = chunks[-1].completion
    assert "".join(chunk.text for chunk in chunks) == completion.text == "café oleé"
    assert sum((chunk.token_ids for chunk in chunks), ()) == completion.token_ids
    assert all(chunk.completion is None and chunk.finish_reason is None for chunk in chunks[:-1])
    assert chunks[-1].finish_reason == "length"


def test_a_character_cut_off_by_the_end_is_marked():
    assert greedy(make(says=[*ids_of("caf"), C3]), max_tokens=4).text == "caf\ufffd"


def test_ids_without_a_token_add_no_text():
    completion = greedy(make(says=[*ids_of("a"), VOCAB - 1, *ids_of("b")]), max_tokens=3)
    assert completion.text == "ab" and completion.token_ids[1] == VOCAB - 1


def test_an_answer_goes_on_with_the_text_of_the_prompt():
    assert greedy(make(says=" there", after=3), "hi", max_tokens=6).text == " there"


def test_arguments_of_a_stream_are_checked_when_it_is_made():
    model = make(ctx=10)
    with pytest.raises(InvalidRequestError):
        model.stream("a", temperature=-1)
    with pytest.raises(ContextLengthError):
        model.stream("a" * 50)
    with pytest.raises(TypeError, match="did you mean 'temperature'"):
        model.stream("a", temprature=1)


def test_closing_a_stream_frees_its_pages():
    model = make(says="hello world", after=100, num_pages=8)
    executor_of(model).waits = {8: 60.0}
    stream = model.stream("a" * 99, temperature=0)
    next(stream)
    assert not is_clean(model)
    stream.close()
    assert is_clean(model)
    assert set(executor_of(model).released) >= {0, 1, 2, 3}


def test_leaving_a_loop_over_a_stream_frees_its_pages():
    model = make()
    executor_of(model).waits = {20: 60.0}
    for chunk in model.stream("abc", temperature=0):
        assert chunk
        break
    assert is_clean(model)


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("call", ["generate", "batch", "logits"])
def test_an_interrupt_in_prefill_or_decode_frees_everything_and_the_model_goes_on(call, step):
    model = make(max_batch_tokens=16, max_outputs=8)
    executor_of(model).fail_at = {step: KeyboardInterrupt()}
    arguments = (["a" * 40, "b"] if call == "batch" else "a" * 40,)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, call)(*arguments, **({} if call == "logits" else {"max_tokens": 10, "seed": 1}))
    assert is_clean(model)
    again = model.generate("a" * 40, max_tokens=10, seed=1)
    assert again.token_ids == make().generate("a" * 40, max_tokens=10, seed=1).token_ids


# -- prompts --------------------------------------------------------------------------------------


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers():
    model = make(ctx=10)
    with pytest.raises(ContextLengthError) as caught:
        model.generate("a" * 9)  # and the begin token
    assert (caught.value.num_prompt_tokens, caught.value.context_length) == (10, 10)
    assert "10 tokens" in str(caught.value) and "context holds 10" in str(caught.value)
    assert len(greedy(model, "a" * 8, ignore_eos=True).token_ids) == 1


@pytest.mark.parametrize("prompt", ["", [], np.array([], np.int64)])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_an_empty_prompt_starts_from_the_begin_token(prompt, adds_bos):
    model = make(says="x", adds_bos=adds_bos)
    assert greedy(model, prompt, max_tokens=1).text == "x"
    assert executor_of(model).batches[0].token_ids.tolist() == [BOS]


def test_an_empty_prompt_without_a_begin_token_is_refused():
    model = make()
    model.tokenizer.bos_id = None
    with pytest.raises(InvalidRequestError, match="empty"):
        model.generate([])


@pytest.mark.parametrize(
    "prompt", [[1.5], [[1, 2]], ["a"], [True], None, 7, b"abc", [1, None], [[1], [2, 3]], {}]
)
def test_what_is_neither_text_nor_ids_is_refused(prompt):
    with pytest.raises(InvalidRequestError, match="a prompt is a text or a list of token ids"):
        make().generate(prompt)


@pytest.mark.parametrize("token", [-1, VOCAB, 2**40, 2**70])
def test_ids_outside_the_vocabulary_are_refused(token):
    with pytest.raises(InvalidRequestError):
        make().generate([1, token])


def test_a_lone_surrogate_is_refused():
    with pytest.raises(TokenizerError, match="surrogate"):
        make().generate("a\ud800b")


def test_a_bias_outside_the_vocabulary_is_refused():
    with pytest.raises(InvalidRequestError, match=f"token {VOCAB}"):
        make().generate("a", logit_bias={VOCAB: 1.0})


def test_control_tokens_in_a_text_are_read_only_on_request():
    model = make(says="ok" * 20, after=5)
    greedy(model, "a</s>", max_tokens=1)
    assert EOS not in executor_of(model).batches[0].token_ids
    greedy(model, "a</s>", max_tokens=1, parse_special=True)
    assert executor_of(model).batches[1].token_ids.tolist() == [BOS, *ids_of("a"), EOS]


# -- chat -----------------------------------------------------------------------------------------

HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE.replace("{{ bos_token }}", "")])
def test_chat_renders_the_template_with_control_tokens_and_one_begin_token(template):
    model = make(says="ok", after=14, template=template)
    completion = model.chat(HELLO, temperature=0, max_tokens=2)
    expected = [BOS, *ids_of("user|hello"), EOS, *ids_of("a|")]
    assert executor_of(model).batches[0].token_ids.tolist() == expected
    assert completion.text == "ok"
    chunks = list(model.stream_chat(HELLO, temperature=0, max_tokens=2))
    assert "".join(chunk.text for chunk in chunks) == "ok"


def test_a_chat_answer_is_a_new_text_without_the_space_that_sentencepiece_puts_in_front():
    options = {"temperature": 0, "max_tokens": 3}
    model = make(says=" ok", after=5, template="u|{{ messages[0].content }}", space_prefix=True)
    assert model.chat([{"role": "user", "content": "x"}], **options).text == "ok"
    assert greedy(model, "u|x", max_tokens=3).text == " ok"
    assert executor_of(model).batches[0].token_ids.tolist() == [BOS, *ids_of(" u|x")]


def test_chat_adds_no_begin_token_where_the_model_wants_none():
    model = make(template=TEMPLATE.replace("{{ bos_token }}", ""), adds_bos=False)
    model.chat(HELLO, max_tokens=1)
    assert executor_of(model).batches[0].token_ids[0] != BOS


def test_chat_without_a_template_is_refused():
    with pytest.raises(TemplateError, match="no chat template"):
        make().chat(HELLO)


def test_a_given_template_replaces_the_model_s_own():
    model = make(template="wrong", chat_template="{{ bos_token }}{{ messages[0].content }}")
    model.chat(HELLO, max_tokens=1)
    assert executor_of(model).batches[0].token_ids.tolist() == [BOS, *ids_of("hello")]


@pytest.mark.parametrize("messages", ["hello", {"role": "user"}, [], ["hello"], [{"content": "x"}], None, 3])
def test_what_is_no_conversation_is_refused(messages):
    with pytest.raises(TemplateError, match="expected a"):
        make(template=TEMPLATE).chat(messages)


# -- many at once ---------------------------------------------------------------------------------


def test_a_batch_gives_each_prompt_its_solo_answer():
    prompts = ["a" * n for n in (1, 40, 3, 90, 17, 2, 64, 31)]
    together = make(num_pages=14, max_batch_tokens=48).batch(prompts, seed=4, max_tokens=40)
    for prompt, completion in zip(prompts, together, strict=True):
        alone = make().generate(prompt, seed=4, max_tokens=40)
        assert (completion.text, completion.token_ids) == (alone.text, alone.token_ids)
        assert completion.finish_reason == alone.finish_reason


def test_a_batch_without_a_seed_draws_one_for_each():
    completions = make().batch(["ab"] * 4, max_tokens=20)
    assert len({completion.params.seed for completion in completions}) == 4
    assert len({completion.token_ids for completion in completions}) > 1


def test_an_empty_batch_is_empty_and_a_single_text_is_refused():
    model = make()
    assert model.batch([]) == []
    assert len(model.batch(iter(["a", "b"]), max_tokens=1)) == 2
    with pytest.raises(InvalidRequestError, match="list of prompts"):
        model.batch("hello")
    assert is_clean(model)


def test_threads_that_share_a_model_get_what_each_would_get_alone():
    model = make(num_pages=10, max_batch_tokens=24)
    results = {}

    def work(i):
        results[i] = [model.generate("ab" * i, seed=i, max_tokens=30, logits_hash=True) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i in range(1, 7):
        alone = make().generate("ab" * i, seed=i, max_tokens=30, logits_hash=True)
        for completion in results[i]:
            assert (completion.text, completion.logits_hash) == (alone.text, alone.logits_hash)
    assert is_clean(model)


# -- logits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_batch_tokens", [1, 7, 64])
def test_logits_of_every_token(max_batch_tokens):
    model = make(max_batch_tokens=max_batch_tokens, max_outputs=min(5, max_batch_tokens))
    tokens = [BOS, *ids_of("some longer text to read")]
    logits = model.logits("some longer text to read")
    assert logits.dtype == np.float32 and logits.shape == (len(tokens), VOCAB)
    for i in range(len(tokens)):
        np.testing.assert_array_equal(logits[i], expected_logits(tokens[: i + 1], VOCAB))
    np.testing.assert_array_equal(model.logits(tokens), logits)


def test_logits_may_fill_the_context_and_not_more():
    model = make(ctx=10)
    assert model.logits([5] * 10).shape == (10, VOCAB)
    with pytest.raises(ContextLengthError):
        model.logits([5] * 11)


# -- closing --------------------------------------------------------------------------------------


def test_a_closed_model_says_so():
    with make(says="hello world", after=4) as model:
        executor_of(model).waits = {8: 60.0}
        under_way = model.stream("abc", temperature=0)
        next(under_way)
    assert executor_of(model).closed
    model.close()
    calls = (
        lambda: model.generate("a"),
        lambda: model.logits("a"),
        lambda: model.batch(["a"]),
        lambda: list(under_way),
    )
    for call in calls:
        with pytest.raises(TorchlessError, match="closed"):
            call()
    assert repr(model).endswith(", closed>")
