"""Options of loading a model, which verbs share. Other tools' names for them work too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from torchless.activation_types import ACTIVATION_TYPES
from torchless.cli.adapter_options import lora_keyword, lora_options
from torchless.cli.discovery import backend_names
from torchless.cli.options import Option
from torchless.cli.prompt import looks_like_path, read_text_file
from torchless.engine.pacing import DEFAULT_SLOWDOWN, slowdown
from torchless.errors import InvalidRequestError
from torchless.kv_types import KV_TYPES, kv_type_name, split_kv_type

__all__ = ["LOAD_OPTIONS", "load_keywords"]

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


class Slowdown(_ParamType):
    """``off`` or a number above 1."""

    name = "x|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return slowdown(value if value == "off" else float(value)) or "off"
        except (InvalidRequestError, ValueError):
            self.fail(f"{value!r} is neither 'off' nor a number above 1, such as 2.0", param, ctx)


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


_MODEL = "Model and machine"

_LOAD_KEYWORDS = ("ctx", "threads", "pin", "numa", "batch_tokens", "kv", "activations", "fast", "backend")
# Which not every verb has, and left out where not given:
_OPTIONAL_KEYWORDS = (
    *("quant", "lazy", "memory", "trace", "draft_model", "speculative", "num_draft_tokens"),
    "pacing",
    *("prefix_cache_dir", "prefix_cache_size"),
)

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
        "--pacing",
        type=Slowdown(),
        default=DEFAULT_SLOWDOWN,
        show_default=True,
        heading=_MODEL,
        help="While others decode, a step with a prompt lasts at most X times as long as without; off: whole chunks.",
    ),
    Option(
        "--quant",
        metavar="RECIPE",
        heading=_MODEL,
        help="Quantise a model in F32, F16 or BF16 while it is loaded, such as Q4_K_M.",
    ),
    Option(
        "--lazy",
        "lazy",
        flag_value="all",
        heading=_MODEL,
        help="Leave the weights in the file and read them as they are used: slow, for a model larger than memory.",
    ),
    Option(
        "--lazy-experts",
        "lazy",
        flag_value="experts",
        heading=_MODEL,
        help="The same for the experts of a mixture of experts alone.",
    ),
    Option(
        "--memory",
        metavar="SIZE",
        heading=_MODEL,
        help="Take no more than so much, such as 8GiB; lazy weights that fit are loaded. [what is left]",
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
        "--fast",
        is_flag=True,
        heading=_MODEL,
        help="Compute prompts in coarser arithmetic: faster, slightly less exact (docs/performance.md).",
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
        "--trace",
        metavar="FILE",
        heading=_MODEL,
        help="Write what every step does to a file that ui.perfetto.dev opens.",
    ),
    Option(
        "--chat-template",
        metavar="FILE|NAME",
        heading=_MODEL,
        aliases=("--chat-template-file",),
        help="A file with a jinja chat template to use instead of the model's, or a style such as chatml.",
    ),
    *lora_options("Apply a LoRA adapter"),
)


def load_keywords(values: dict[str, Any]) -> dict[str, Any]:
    """Takes what `LOAD_OPTIONS` gave out of `values`; returns keywords of `torchless.load`."""
    keywords = {name: values.pop(name) for name in _LOAD_KEYWORDS}
    k_type, v_type = split_kv_type(keywords["kv"])
    keywords["kv"] = kv_type_name(values.pop("kv_type_k") or k_type, values.pop("kv_type_v") or v_type)
    keywords.update(lora_keyword(values))
    if values.pop("no_prefix_cache", False):
        keywords["prefix_cache"] = False
    given = {name: values.pop(name, None) for name in _OPTIONAL_KEYWORDS}
    keywords |= {name: value for name, value in given.items() if value is not None}
    template_file = values.pop("chat_template")
    if template_file is not None:
        keywords["chat_template"] = _chat_template(template_file)
    return keywords


def _chat_template(name: str) -> str:
    """The source of a template in a file or, where there is no such file, of a style that comes with torchless."""
    if not Path(name).expanduser().exists():
        from torchless.text.templates import template_names, template_source

        if name in template_names():
            return template_source(name)
        if not looks_like_path(name):
            raise InvalidRequestError(
                f"--chat-template {name}: no such file; expected one, or a style: {', '.join(template_names())}"
            )
    return read_text_file(name)
