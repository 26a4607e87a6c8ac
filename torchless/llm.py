"""The facade: load a model, then generate, chat, fill gaps, stream, batch, embed or read its logits.

Over the line budget: all that a loaded model does in one place, with its documentation.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from collections.abc import Sequence as SequenceOf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np
import numpy.typing as npt

from torchless.activation_types import ActivationType
from torchless.arguments import flag
from torchless.backends.base import KvType, Progress
from torchless.beam_search import BeamSettings, run_beam_search
from torchless.constraints.requests import take_grammar
from torchless.embedding import Embedder
from torchless.engine.engine import Engine
from torchless.engine.pacing import DEFAULT_SLOWDOWN
from torchless.engine.runner import Runner
from torchless.engine.sequence import Sequence
from torchless.engine.snapshot import SequenceStatus, snapshot
from torchless.errors import ContextLengthError, InvalidRequestError, OutOfMemoryError
from torchless.file_speed import FileSpeed
from torchless.later import LaterMethods
from torchless.lazy_weights import LazyWeights
from torchless.loading import LoadedModel, load_model, load_settings
from torchless.memory import available_memory, format_bytes
from torchless.metrics import Metrics
from torchless.models import ModelConfig
from torchless.observing import observe, open_trace
from torchless.plan import Plan
from torchless.pooling_types import Pooling
from torchless.prefix_cache_settings import DEFAULT_SIZE
from torchless.prompts import Prompts
from torchless.requests import Messages, Prompt, Request, Requests
from torchless.reranking import Reranker
from torchless.results import Chunk, Completion, Ranked
from torchless.sampling.beams import EarlyStopping
from torchless.sampling.parameters import SamplingParams
from torchless.tasks import Task
from torchless.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torchless.session import Session

__all__ = ["LLM", "load"]


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    ctx: int | Literal["auto"] = "auto",
    threads: int | Literal["auto"] = "auto",
    kv: KvType = "f16",
    activations: ActivationType = "int8",
    fast: bool = False,
    pin: bool = False,
    numa: bool = False,
    backend: str = "cpu",
    batch_tokens: int = 512,
    quant: str | None = None,
    task: Task = "auto",
    lora: Any = None,
    lazy: bool | LazyWeights = False,
    memory: int | str | None = None,
    draft_model: str | os.PathLike[str] | None = None,
    speculative: str = "auto",
    num_draft_tokens: int | Literal["auto"] = "auto",
    pacing: float | Literal["off"] = DEFAULT_SLOWDOWN,
    prefix_cache: bool = True,
    prefix_cache_dir: str | os.PathLike[str] | bool | None = None,
    prefix_cache_size: int | str = DEFAULT_SIZE,
    trace: str | os.PathLike[str] | None = None,
    chat_template: str | None = None,
    progress: Progress | None = None,
    **aliases: Any,
) -> LLM:
    """Opens a model and makes it ready to run.

    Args:
        model: a GGUF file or a Hugging Face folder; None is the small built-in model.
        ctx: most tokens of prompt and answer together; "auto" is what the model was trained for, at most
            4096, and less where memory is short.
        threads: worker threads; "auto" is the physical cores that this process may use.
        kv: number format of cached keys and values: "f16", "bf16", "f32", "q8_0" or "q4_0", or one for each
            as in "k=q8_0,v=f16". q8_0 takes about half of f16's memory,
            q4_0 a bit more than a quarter; keys in q4_0 may cost much quality, values hardly any.
        activations: what products multiply weights with: "int8" (fast), "bf16" or "f32", for which quantised weights
            are widened first. See docs/quality.md for what each costs.
        fast: prompts are computed in coarser arithmetic, faster; see docs/performance.md for what it gains and costs.
        pin: every thread keeps to a core of its own, the calling one while it computes (Linux).
        numa: the same on a machine with several memory nodes, with the weights that a thread reads in the
            memory of its node; without effect on others.
        backend: a folder of `torchless/backends`: "cpu", or "reference" (float64, slow, exact).
        batch_tokens: most tokens computed in one step; prompts are cut into chunks of this size.
        quant: a recipe such as ``"Q4_K_M"``: quantises a model in F32, F16 or BF16 while it is loaded, to what
            `torchless.quantize` would write.
        task: "generate", "embed" or "rerank": what the model is loaded for; "auto" is what it was made for. A model
            that writes text makes embeddings when it is loaded for "embed", and then writes no text.
        lora: LoRA adapters to apply beside the weights: a path (a GGUF adapter or a folder of the peft library), a pair
            (path, scale), or a list of either. See docs/lora.md.
        lazy: True leaves the weights in the file and reads them anew in each step: slow, but a model that is larger
            than memory runs, with the same logits. "experts" does so with those of a mixture of experts alone.
            `LLM.info` has the speed to expect under "lazy"; docs/performance.md tells what it rests on.
        memory: most bytes that weights, cache and work space may take, or ``"8GiB"``; lazy weights that fit are loaded.
        draft_model: a smaller model with the same vocabulary that guesses the next tokens, which makes answers faster
            and changes none; "built-in" is the one that belongs to the built-in model. See docs/speculation.md.
        speculative: who guesses: "prompt-lookup" (the text itself), "draft" (the second model), "both" or "off";
            "auto" is all there is, as long as it helps.
        num_draft_tokens: tokens guessed for each step; "auto" picks from what is measured.
        pacing: while others decode, a step that takes in a prompt too lasts at most about so many times as long as one
            without; "off" takes in prompts in whole chunks, which is faster for them and slower for all others.
        prefix_cache: texts that begin with the same tokens share what was computed for them, also later ones; answers
            are the same either way. See docs/prefix-cache.md.
        prefix_cache_dir: a folder in which that is kept on disk, too, for later processes and for others; True or "on"
            is the usual one.
        prefix_cache_size: most bytes that it may take there, or ``"4GiB"``.
        trace: a file to write what every step does to, for ui.perfetto.dev; docs/concurrency.md.
        chat_template: Jinja source that replaces the model's own, or the name of a style such as "chatml"
            (docs/chat.md).
        progress: called as ``progress(done_bytes, total_bytes)`` while weights load; may raise to cancel.
        **aliases: the same under other tools' names (``n_ctx``, ``n_threads``, ``n_batch``, ...).

    Raises:
        ModelNotFoundError, FormatError, UnsupportedError: the model cannot be opened or run.
        OutOfMemoryError: it does not fit into memory; nothing was allocated.
        InvalidRequestError: an argument is out of range.
        TypeError: an unknown argument; the message names the nearest one.

    Example:
        with torchless.load() as model:
            print(model.generate("Once upon a time", max_tokens=40, seed=1).text)
    """
    named = {
        "ctx": ctx,
        "threads": threads,
        "kv": kv,
        "activations": activations,
        "fast": fast,
        "pin": pin,
        "numa": numa,
        "backend": backend,
        "batch_tokens": batch_tokens,
        "quant": quant,
        "task": task,
        "lora": lora,
        "lazy": lazy,
        "memory": memory,
        "draft_model": draft_model,
        "speculative": speculative,
        "num_draft_tokens": num_draft_tokens,
        "pacing": pacing,
        "prefix_cache": prefix_cache,
        "prefix_cache_dir": prefix_cache_dir,
        "prefix_cache_size": prefix_cache_size,
        "trace": trace,
    }
    settings = load_settings(model, named, aliases, chat_template)
    trace_file = open_trace(settings.trace)
    return LLM(load_model(settings, progress), trace=trace_file, is_announced=True)


class LLM(LaterMethods):
    """A loaded model. Made by `load`; usable from several threads; frees everything on `close`.

    Attributes:
        tokenizer: text to token ids and back.
        config: what the model file says about its shape.
        plan: what a step computes; prints as a listing.
        defaults: sampling parameters where a request names none.
        chat_template: source of the chat template in force; None where there is none.
        context_length: most tokens of prompt and answer together.
    """

    def __init__(
        self, loaded: LoadedModel, *, trace: TextIO | None = None, is_announced: bool = False
    ) -> None:
        """Takes over a model that `loading.load_model` prepared; see `observing.observe`."""
        self.tokenizer: Tokenizer = loaded.tokenizer
        self.config: ModelConfig = loaded.config
        self.plan: Plan = loaded.plan
        self.defaults: SamplingParams = loaded.defaults
        self.chat_template: str | None = loaded.chat_template or loaded.tokenizer.chat_template
        self.context_length: int = loaded.context_length
        self._loaded = loaded
        self._prompts = Prompts(loaded.tokenizer, loaded.executor.vocab_size, loaded.chat_template)
        self._runner = Runner(
            Engine(
                loaded.executor,
                loaded.speculation,
                loaded.pacing,
                has_prefix_cache=loaded.has_prefix_cache,
                page_store=loaded.page_store,
            )
        )
        self._meter = observe(loaded, self._runner.engine, trace, is_announced=is_announced)
        self._requests = Requests(loaded, self._prompts, self._runner.check_usable)

    # -- one request ------------------------------------------------------------------------------

    def generate(
        self,
        prompt: Prompt,
        *,
        parse_special: bool = False,
        logits_hash: bool = False,
        params: SamplingParams | None = None,
        **sampling: Any,
    ) -> Completion:
        """Continues a text or a list of token ids.

        Args:
            prompt: a text, which gets the model's begin token, or token ids, taken as they are. An empty
                prompt starts from the begin token.
            parse_special: read names of control tokens in the text (``<|im_end|>``) as those tokens.
            logits_hash: fill `Completion.logits_hash`.
            params: where the sampling parameters start from, instead of the model's `defaults`.
            **sampling: fields of `SamplingParams`, and what the text must match: ``schema``, ``regex``, ``grammar``,
                ``choices`` or ``json`` (docs/constraints.md). Also under other tools' names.

        Raises:
            ContextLengthError: the prompt does not fit; it is never cut.
            GrammarError: what the text must match cannot be enforced; the message names the place.
            InvalidRequestError: a parameter is out of range, or the prompt is empty and cannot be.
            TokenizerError: the text is not valid Unicode.
            TypeError: an unknown keyword; the message names the nearest one.
        """
        request = Request(
            prompt, parse_special=parse_special, logits_hash=logits_hash, params=params, **sampling
        )
        return self._finish(request)

    def stream(self, prompt: Prompt, **options: Any) -> Generator[Chunk, None, None]:
        """Like `generate`, with the same options, in pieces as they come. Closing the iterator ends the request.

        The arguments are checked now; the work begins with the first piece, and does not wait for whoever looks at
        one.
        """
        return self._stream(Request(prompt, **options))

    def chat(
        self,
        messages: Messages,
        *,
        logits_hash: bool = False,
        params: SamplingParams | None = None,
        **sampling: Any,
    ) -> Completion:
        """Answers a conversation: messages ``{"role": ..., "content": ...}``, rendered by the chat template.

        Beside sampling parameters it takes ``tools`` (JSON schemas of functions), ``chat_template_kwargs`` (further
        values that the template knows) and ``show_special``, as `Request` has them.

        Raises:
            TemplateError: the model has no template, or the messages are malformed or refused by it.
            ContextLengthError, InvalidRequestError, TokenizerError, TypeError: as in `generate`.
        """
        request = Request(messages=messages, logits_hash=logits_hash, params=params, **sampling)
        return self._finish(request)

    def stream_chat(self, messages: Messages, **options: Any) -> Generator[Chunk, None, None]:
        """Like `chat`, in pieces as they come; see `stream`."""
        return self._stream(Request(messages=messages, **options))

    def session(self, system: str | None = None, *, context_shift: bool = False, **settings: Any) -> Session:
        """A conversation that remembers what was said: `Session.send`, `stream`, `fork`, `save`, `load`.

        Args:
            system: a system message.
            context_shift: once the conversation does not fit the context, leave out its oldest turns, half of it at a
                time, and say so in `Completion.num_dropped_messages`. Without it that is an error.
            **settings: sampling parameters of all its answers.

        Raises:
            InvalidRequestError, TypeError: a parameter is out of range or unknown.
        """
        from torchless.chat.conversation import Conversation
        from torchless.session import Session

        shift = flag("context_shift", context_shift)
        return Session(self, Conversation(self.defaults.updated(**settings), system), context_shift=shift)

    def render_chat(
        self,
        messages: Messages,
        *,
        tools: SequenceOf[dict[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The text that the chat template makes of a conversation. Raises TemplateError as `chat` does."""
        return self._prompts.render_chat(messages, tools, chat_template_kwargs)

    def encode(self, request: Prompt | Request) -> list[int]:
        """Token ids of the prompt that a request has, as the model gets them. Raises as `generate` and `chat` do."""
        return [int(index) for index in self._requests.encode(Request.of(request, {}))]

    def infill(
        self,
        prefix: str,
        suffix: str,
        *,
        order: str | None = None,
        parse_special: bool = False,
        logits_hash: bool = False,
        params: SamplingParams | None = None,
        **sampling: Any,
    ) -> Completion:
        """Fills the gap between two texts, for models that were trained to (most models of code; docs/infill.md).

        The answer ends with the gap: at an end token, or where the model marks another gap or begins another file.

        Args:
            prefix, suffix: the text before and behind the gap; either may be empty.
            order: how the model is asked: ``"psm"``, ``"spm"`` or ``"spm2"``; None is what it was trained on.
            parse_special, logits_hash, params, **sampling: as in `generate`.

        Raises:
            UnsupportedError: the model has no tokens that mark a gap.
            ContextLengthError, InvalidRequestError, TokenizerError, TypeError: as in `generate`.
        """
        options: dict[str, Any] = {"order": order, "parse_special": parse_special, "logits_hash": logits_hash}
        request = Request(prefix=prefix, suffix=suffix, params=params, **options, **sampling)
        return self._finish(request)

    def stream_infill(self, prefix: str, suffix: str, **options: Any) -> Generator[Chunk, None, None]:
        """Like `infill`, in pieces as they come; see `stream`."""
        return self._stream(Request(prefix=prefix, suffix=suffix, **options))

    def _finish(self, request: Request) -> Completion:
        answers = self._answers(request)
        return answers.join(self._runner.finish_all(answers.generations))

    def _stream(self, request: Request) -> Generator[Chunk, None, None]:
        answers = self._answers(request)
        answers.check_can_stream()
        return self._runner.run(*answers.generations)

    def beam_search(
        self,
        prompt: Prompt | Request,
        *,
        beams: int = 4,
        n: int = 1,
        max_tokens: int | None = None,
        length_penalty: float = 1.0,
        early_stopping: EarlyStopping = False,
        parse_special: bool = False,
    ) -> Completion:
        """Seeks the likeliest answer by following several beginnings at once; docs/sampling.md.

        Nothing is left to chance, and no sampling parameter applies. The settings mean what they mean for Hugging Face
        transformers.

        Args:
            prompt: as in `generate`, or a `Request` without sampling parameters, for a conversation or a gap.
            beams: beginnings that are followed.
            n: answers that are returned, the best first, further ones in `Completion.others`.
            max_tokens: most tokens of an answer; None is as many as fit.
            length_penalty: answers are compared by their log probability divided by their length to this power.
            early_stopping: True ends the search once there are as many whole answers as beams, False once no beam as
                long as now would beat them, "never" once no beam of any length would.
            parse_special: read names of control tokens in the text as those tokens.

        Raises:
            InvalidRequestError: a setting is out of range, the beams do not fit into the cache beside each other, or
                the request has sampling parameters.
            ContextLengthError, TokenizerError: as in `generate`.

        Example:
            model.beam_search("The capital of France is", beams=5, max_tokens=20).text
        """
        settings = BeamSettings(beams, n, max_tokens, length_penalty, early_stopping)
        request = prompt if isinstance(prompt, Request) else Request(prompt, parse_special=parse_special)
        prompt_ids, end_ids = self._requests.plain_prompt(request)
        executor = self._loaded.executor
        most = min(executor.options.max_outputs, executor.options.max_batch_tokens)
        return run_beam_search(
            request,
            prompt_ids,
            settings,
            self.tokenizer,
            self._runner.complete,
            options=executor.options,
            context_length=self.context_length,
            most_at_once=min(most, executor.num_state_slots or most),
            end_ids=end_ids,
        )

    # -- many at once -----------------------------------------------------------------------------

    def batch(
        self,
        prompts: Iterable[Prompt | Request],
        *,
        parse_special: bool = False,
        logits_hash: bool = False,
        params: SamplingParams | None = None,
        **sampling: Any,
    ) -> list[Completion]:
        """Continues several prompts together, which is faster than one after another.

        Each answer is what `generate` gives for its prompt alone. Without a seed each gets its own. A `Request` has
        options of its own; where it names no sampling parameters or form of the text, those given here hold.
        """
        self._prompts.check_list("batch", prompts)
        grammar = take_grammar(sampling)
        defaults = (params or self.defaults).updated(**sampling)
        requests = [
            item
            if isinstance(item, Request)
            else Request(item, parse_special=parse_special, logits_hash=logits_hash)
            for item in prompts
        ]
        several = [self._requests.answers(request, defaults, grammar) for request in requests]
        self._runner.complete([one.sequence for answers in several for one in answers.generations])
        return [answers.join(one.completion() for one in answers.generations) for answers in several]

    def embed(
        self,
        texts: str | SequenceOf[Prompt],
        *,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Vectors of texts, near each other where the texts mean the same; docs/embeddings.md.

        A vector has the same bits whatever other texts are given with its own.

        Args:
            texts: one text, or a list of texts or of lists of token ids; texts get the tokens that the model wants
                around them.
            pooling: "mean" of the states of all tokens, the first one's ("cls"), or the last one's ("last"); None is
                what the model was trained with, else the mean, or the last of a model that reads from left to right.
            normalize: make vectors unit long; None is what the model was trained with, else True.
            dimensions: keep the first so many numbers, for models that were trained for it (Matryoshka).
            truncate: leave out the end of a text that is longer than the context, instead of refusing it.

        Returns:
            float32 (width,) for one text, (texts, width) for a list.

        Raises:
            ContextLengthError: a text is longer than the context.
            InvalidRequestError: an argument is out of range, or the model was loaded for something else.
            TokenizerError: a text is not valid Unicode.
        """
        self._runner.check_usable()
        if self.plan.output_kind != "states":
            raise InvalidRequestError(
                "this model was loaded to write text; load it with task='embed' to make embeddings"
                if self.plan.output_kind == "logits"
                else "this model judges pairs of texts and makes no embeddings"
            )
        if not isinstance(texts, str):
            self._prompts.check_list("embed", texts)
        embedder = Embedder(
            self._prompts.encode,
            self.tokenizer.frame[2],
            self._runner.complete,
            width=self._loaded.executor.output_width,
            context_length=self.context_length,
            pooling=self.config.pooling or ("mean" if self.plan.needs_whole_sequences else "last"),
            normalize=self.config.normalize,
        )
        several = [texts] if isinstance(texts, str) else list(texts)
        options = {"pooling": pooling, "normalize": normalize, "dimensions": dimensions, "truncate": truncate}
        vectors = embedder.embed(several, **options)  # type: ignore[arg-type]
        return vectors[0] if isinstance(texts, str) else vectors

    def rerank(
        self,
        query: str,
        documents: SequenceOf[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        truncate: bool = False,
    ) -> list[Ranked]:
        """Documents in the order in which they answer a query, best first; docs/embeddings.md.

        A cross-encoder (BERT or XLM-RoBERTa with a classifier) is loaded as it is; a decoder that was trained to
        answer yes or no (Qwen3-Reranker) with ``task="rerank"``. A document's score has the same bits whatever others
        are given.

        Args:
            top_n: return the best so many alone.
            instruction: what a decoder shall judge by; None is what Qwen3-Reranker was trained with.
            truncate: leave out the end of a document that does not fit the context, instead of refusing it.

        Raises:
            ContextLengthError: a document and the query are longer than the context.
            InvalidRequestError: an argument is out of range, or the model was loaded for something else.
            TokenizerError: a text is not valid Unicode.
            UnsupportedError: the model is a classifier with several classes.
        """
        self._runner.check_usable()
        if self.plan.output_kind != "scores":
            raise InvalidRequestError(
                "this model was loaded to write text; load it with task='rerank' to judge documents by yes and no"
                if self.plan.output_kind == "logits"
                else "this model makes embeddings and has no classifier; compare the vectors that embed returns"
            )
        self._prompts.check_list("rerank", documents)
        reranker = Reranker(
            self.tokenizer,
            self._runner.complete,
            is_encoder=self.plan.needs_whole_sequences,
            num_scores=self._loaded.executor.output_width,
            num_ids=self.plan.num_token_ids,
            num_types=self.plan.num_types,
            context_length=self.context_length,
        )
        return reranker.rank(query, list(documents), top_n=top_n, instruction=instruction, truncate=truncate)

    def logits(self, prompt: Prompt) -> npt.NDArray[np.float32]:
        """The logits after every token of a text or of token ids: float32 (n_tokens, vocab).

        Raises:
            ContextLengthError: more tokens than the context holds.
            OutOfMemoryError: the array would not fit into memory.
            InvalidRequestError, TokenizerError: as in `generate`.
        """
        self._runner.check_usable()
        self._requests.require_logits()
        ids = self._prompts.encode(prompt)
        if len(ids) > self.context_length:
            raise ContextLengthError(len(ids), self.context_length)
        shape = (len(ids), self._loaded.executor.vocab_size)
        available = available_memory()
        if available is not None and shape[0] * shape[1] * 4 > available.num_bytes:
            raise OutOfMemoryError(
                f"the logits of {shape[0]} tokens take {format_bytes(shape[0] * shape[1] * 4)}, but "
                f"{format_bytes(available.num_bytes)} are left ({available.limit}); ask for fewer tokens"
            )
        logits = np.empty(shape, dtype=np.float32)
        self._runner.complete([Sequence(ids, max_tokens=len(ids), logits=logits)])
        return logits

    def logprobs(self, prompt: Prompt) -> npt.NDArray[np.float64]:
        """How likely each token of a text is behind those before it: float64 (n_tokens,), natural logarithms.

        The first token follows nothing and has NaN. Unlike `logits` this holds no row of the vocabulary; the likeliest
        other tokens come with ``generate(..., prompt_logprobs=K)``.

        Raises:
            ContextLengthError: as many tokens as the context holds, or more.
            InvalidRequestError, TokenizerError: as in `generate`.

        Example:
            float(np.nansum(model.logprobs("Once upon a time")))
        """
        done = self.generate(prompt, max_tokens=1, temperature=0, prompt_logprobs=0, params=SamplingParams())
        assert done.prompt_logprobs is not None
        found = [np.nan if entry is None else entry.logprob for entry in done.prompt_logprobs]
        return np.array(found, dtype=np.float64)

    # -- the model itself -------------------------------------------------------------------------

    @property
    def info(self) -> dict[str, Any]:
        """What was loaded and what it takes: format, sizes, threads, context, bytes by purpose."""
        return {**self._loaded.describe(), "memory_bytes": self._loaded.executor.memory_bytes()}

    def metrics(self) -> Metrics:
        """Counters and histograms of all requests since the model was loaded, as they are now."""
        return self._meter.metrics(self._runner.engine)

    def sequences(self) -> list[SequenceStatus]:
        """What each request that is under way is at, running ones first. Waits for no step."""
        return snapshot(self._runner.engine)

    @property
    def file_speed(self) -> FileSpeed | None:
        """How fast weights come from the file, if they stay there; None for a model that was loaded as a whole."""
        return self._loaded.lazy

    def close(self) -> None:
        """Frees weights, pages and threads. Running requests fail with an error. Idempotent."""
        if self._runner.close():
            for observer in self._runner.engine.observers:
                observer.close()
            self._requests.close()
            self._loaded.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._runner.is_closed else ""
        options = self._loaded.executor.options
        return (
            f"<LLM {str(self._loaded.source.path)!r} ctx={self.context_length} kv={options.kv_type} "
            f"threads={options.num_threads} backend={self._loaded.backend}{state}>"
        )
