"""Options that verbs share: loading a model, picking tokens. Other tools' names for them work too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from torchless.activation_types import ACTIVATION_TYPES
from torchless.cli.adapter_options import lora_keyword, lora_options
from torchless.cli.discovery import backend_names
from torchless.cli.options import Option
from torchless.cli.prompt import read_text_file
from torchless.errors import InvalidRequestError
from torchless.kv_types import KV_TYPES, kv_type_name, split_kv_type

__all__ = ["LOAD_OPTIONS", "SAMPLING_OPTIONS", "load_keywords", "named_by_flags", "sampling_keywords"]

if TYPE_CHECKING:  # generic since click 8.4 for type checkers, but not subscriptable in older ones
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType


class AutoOrCount(_ParamType):
    """``auto`` or a whole number, where ``8k`` means 8 * 1024. 0 and -1 mean auto, as in llama.cpp."""

    name = "auto|n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value).lower()
        if text in ("auto", "0", "-1"):
            return "auto"
        match = re.fullmatch(r"(\d{1,12})(k?)", text)
        if match is None:
            self.fail(f"{value!r} is neither 'auto' nor a whole number above 0", param, ctx)
        return int(match[1]) * (1024 if match[2] else 1)


class KvTypes(_ParamType):
    """One number format of the cache, or two as in ``k=q8_0,v=f16``."""

    name = "type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return kv_type_name(*split_kv_type(str(value).lower()))
        except InvalidRequestError as error:
            self.fail(str(error).removeprefix("kv "), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in KV_TYPES if name.startswith(incomplete.lower())]


class TokenBias(_ParamType):
    """``ID=VALUE``, or ``ID+VALUE`` and ``ID-VALUE`` as llama.cpp writes it."""

    name = "id=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,12})(?:=|(?=[+-]))(.+)", value)
        try:
            if match is None:
                raise ValueError
            return int(match[1]), float(match[2])
        except ValueError:
            self.fail(f"{value!r} is not of the form ID=VALUE, such as 42=-1.5 or 42=-inf", param, ctx)


_MODEL = "Model and machine"
_SAMPLING = "Picking tokens (default: what the model recommends, else as given here)"

_LOAD_KEYWORDS = ("ctx", "threads", "pin", "numa", "batch_tokens", "kv", "activations", "backend")

LOAD_OPTIONS = (
    Option(
        "-m",
        "--model",
        heading=_MODEL,
        metavar="PATH",
        help="GGUF file, Hugging Face folder, org/repo[:QUANT] or URL. Same as the argument MODEL.",
    ),
    Option(
        "-c",
        "--ctx",
        type=AutoOrCount(),
        default="auto",
        heading=_MODEL,
        aliases=("--ctx-size", "--max-seq-len", "--max-model-len", "--max-kv-size", "--num-ctx"),
        help="Context length in tokens; auto is the model's, at most 4096, less if memory is short.",
    ),
    Option(
        "-t",
        "--threads",
        type=AutoOrCount(),
        default="auto",
        heading=_MODEL,
        aliases=("--num-threads",),
        help="Worker threads; auto takes the cores that this process may use.",
    ),
    Option(
        "--pin",
        is_flag=True,
        heading=_MODEL,
        help="Keep each thread on a core of its own (Linux).",
    ),
    Option(
        "--numa",
        is_flag=True,
        heading=_MODEL,
        help="The same on several memory nodes, each thread's weights in its node's memory.",
    ),
    Option(
        "-b",
        "--batch-tokens",
        type=int,
        default=512,
        show_default=True,
        metavar="N",
        heading=_MODEL,
        aliases=("--batch-size", "-ub", "--ubatch-size", "--prefill-step-size"),
        help="Prompt tokens computed at once.",
    ),
    Option(
        "--quant",
        metavar="RECIPE",
        heading=_MODEL,
        help="Quantise a model in F32, F16 or BF16 while it is loaded, such as Q4_K_M.",
    ),
    Option(
        "--kv-type",
        "kv",
        type=KvTypes(),
        default="f16",
        show_default=True,
        heading=_MODEL,
        aliases=("--kv-dtype", "--kv-cache-dtype"),
        help=f"Number format of cached keys and values: {', '.join(KV_TYPES)}, or two as in k=q8_0,v=f16.",
    ),
    Option(
        "--kv-type-k",
        type=click.Choice(KV_TYPES, case_sensitive=False),
        heading=_MODEL,
        aliases=("-ctk", "--cache-type-k"),
        help="Of keys alone.",
    ),
    Option(
        "--kv-type-v",
        type=click.Choice(KV_TYPES, case_sensitive=False),
        heading=_MODEL,
        aliases=("-ctv", "--cache-type-v"),
        help="Of values alone.",
    ),
    Option(
        "--activations",
        type=click.Choice(ACTIVATION_TYPES, case_sensitive=False),
        default="int8",
        show_default=True,
        heading=_MODEL,
        help="What products multiply weights with; bf16 and f32 widen quantised weights first: slower, more exact.",
    ),
    Option(
        "--backend",
        type=click.Choice(backend_names()),
        default="cpu",
        show_default=True,
        heading=_MODEL,
        help="What computes; reference is exact and slow.",
    ),
    Option(
        "--chat-template",
        metavar="FILE",
        heading=_MODEL,
        aliases=("--chat-template-file",),
        help="A file with a jinja chat template to use instead of the model's.",
    ),
    *lora_options("Apply a LoRA adapter"),
)

SAMPLING_OPTIONS = (
    Option(
        "-n",
        "--max-tokens",
        type=int,
        metavar="N",
        heading=_SAMPLING,
        aliases=("--predict", "--n-predict", "--num-predict", "--max-new-tokens"),
        help="Most tokens to generate; -1, the default, goes on until the text or the context ends.",
    ),
    Option(
        "--temp",
        "--temperature",
        "temperature",
        type=float,
        metavar="T",
        heading=_SAMPLING,
        help="0 always takes the likeliest token. [0.8]",
    ),
    Option(
        "--top-k",
        type=int,
        metavar="K",
        heading=_SAMPLING,
        help="Only the K likeliest tokens; 0 is off. [40]",
    ),
    Option(
        "--top-p",
        type=float,
        metavar="P",
        heading=_SAMPLING,
        help="Only the likeliest tokens that reach this probability; 1 is off. [0.95]",
    ),
    Option(
        "--min-p",
        type=float,
        metavar="P",
        heading=_SAMPLING,
        help="Only tokens this likely, relative to the likeliest; 0 is off. [0.05]",
    ),
    Option(
        "--repeat-penalty",
        type=float,
        metavar="X",
        heading=_SAMPLING,
        aliases=("--repetition-penalty",),
        help="Above 1, recent tokens become less likely. [1]",
    ),
    Option(
        "--repeat-last-n",
        type=int,
        metavar="N",
        heading=_SAMPLING,
        aliases=("--repetition-context-size",),
        help="How many tokens are recent; -1 is all. [64]",
    ),
    Option(
        "-s",
        "--seed",
        type=int,
        metavar="N",
        heading=_SAMPLING,
        help="The same seed gives the same text. [random]",
    ),
    Option(
        "--stop",
        multiple=True,
        metavar="TEXT",
        heading=_SAMPLING,
        aliases=("-r", "--reverse-prompt"),
        help="End before this text appears; may be given several times.",
    ),
    Option(
        "--logit-bias",
        type=TokenBias(),
        multiple=True,
        metavar="ID=VALUE",
        heading=_SAMPLING,
        help="Make a token likelier (above 0), less likely, or impossible (-inf).",
    ),
    Option("--ignore-eos", is_flag=True, heading=_SAMPLING, help="Never end by itself."),
)


def load_keywords(values: dict[str, Any]) -> dict[str, Any]:
    """Takes what `LOAD_OPTIONS` gave out of `values`; returns keywords of `torchless.load`."""
    keywords = {name: values.pop(name) for name in _LOAD_KEYWORDS}
    k_type, v_type = split_kv_type(keywords["kv"])
    keywords["kv"] = kv_type_name(values.pop("kv_type_k") or k_type, values.pop("kv_type_v") or v_type)
    quant = values.pop("quant", None)  # not every verb quantises
    if quant is not None:
        keywords["quant"] = quant
    keywords.update(lora_keyword(values))
    template_file = values.pop("chat_template")
    if template_file is not None:
        keywords["chat_template"] = read_text_file(template_file)
    return keywords


def sampling_keywords(values: dict[str, Any]) -> dict[str, Any]:
    """Takes what `SAMPLING_OPTIONS` gave out of `values`; returns what the user set, checked.

    Raises:
        InvalidRequestError: a value out of range. Checked before a model is loaded.
    """
    from torchless.sampling.parameters import SamplingParams

    given = {option.name: values.pop(str(option.name)) for option in SAMPLING_OPTIONS}
    unlimited = given["max_tokens"] in (-1, -2)  # llama.cpp and Ollama write "no limit" so
    if unlimited:
        given["max_tokens"] = None
    if given["seed"] == -1:
        given["seed"] = None
    biases: Mapping[int, float] = dict(given.pop("logit_bias"))
    keywords = {str(name): value for name, value in given.items() if value not in (None, ())}
    if not keywords["ignore_eos"]:
        del keywords["ignore_eos"]
    if biases:
        keywords["logit_bias"] = biases
    with named_by_flags():
        SamplingParams.from_kwargs(**keywords)
    return keywords


@contextmanager
def named_by_flags() -> Iterator[None]:
    """Errors about a parameter name the option that set it: ``--temp must be ...`` for ``temperature``."""
    try:
        yield
    except InvalidRequestError as error:
        name, _, rest = str(error).partition(" ")
        for option in (*LOAD_OPTIONS, *SAMPLING_OPTIONS):
            if option.name == name:
                flag = next(flag for flag in option.opts if flag.startswith("--"))
                raise InvalidRequestError(f"{flag} {rest}") from None
        raise
