"""Options of picking tokens, which verbs share. Other tools' names for them work too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from torchless.cli.model_options import LOAD_OPTIONS
from torchless.cli.options import Option
from torchless.cli.prefix_cache_options import PREFIX_CACHE_OPTIONS
from torchless.cli.speculative_options import SPECULATIVE_OPTIONS
from torchless.errors import InvalidRequestError

__all__ = ["SAMPLING_OPTIONS", "named_by_flags", "sampling_keywords"]

if TYPE_CHECKING:  # see model_options
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType

_SAMPLING = "Picking tokens (default: what the model recommends, else as given here)"


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
        "--frequency-penalty",
        type=float,
        metavar="X",
        heading=_SAMPLING,
        help="A token becomes less likely each time that it occurs. [0]",
    ),
    Option(
        "--presence-penalty",
        type=float,
        metavar="X",
        heading=_SAMPLING,
        help="A token becomes less likely once it has occurred. [0]",
    ),
    Option(
        "--dry-multiplier",
        type=float,
        metavar="X",
        heading=_SAMPLING,
        help="Above 0, tokens that would prolong a repetition become less likely (DRY). [0]",
    ),
    Option(
        "--dry-base",
        type=float,
        metavar="X",
        heading=_SAMPLING,
        help="How much less with each token of the repetition. [1.75]",
    ),
    Option(
        "--dry-allowed-length",
        type=int,
        metavar="N",
        heading=_SAMPLING,
        help="Repetitions up to this long are free. [2]",
    ),
    Option(
        "--dry-penalty-last-n",
        type=int,
        metavar="N",
        heading=_SAMPLING,
        help="How many tokens are searched for repetitions; -1 is all. [-1]",
    ),
    Option(
        "--dry-sequence-breaker",
        "dry_sequence_breakers",
        type=str,
        metavar="TEXT",
        heading=_SAMPLING,
        multiple=True,
        help="No repetition reaches across this; may be given several times.",
    ),
    Option(
        "--top-n-sigma",
        type=float,
        metavar="N",
        heading=_SAMPLING,
        aliases=("--top-nsigma",),
        help="Only tokens whose logit is within N standard deviations of the largest; 0 is off. [0]",
    ),
    Option(
        "--typical-p",
        type=float,
        metavar="P",
        heading=_SAMPLING,
        aliases=("--typical",),
        help="Only tokens that are about as surprising as expected; 1 is off. [1]",
    ),
    Option(
        "--xtc-probability",
        type=float,
        metavar="P",
        heading=_SAMPLING,
        help="How often the likeliest tokens are left out (XTC). [0]",
    ),
    Option(
        "--xtc-threshold",
        type=float,
        metavar="P",
        heading=_SAMPLING,
        help="All tokens this likely but one are; above 0.5 is off. [0.1]",
    ),
    Option(
        "--dynatemp-range",
        type=float,
        metavar="T",
        heading=_SAMPLING,
        help="The temperature moves this far up and down with the entropy. [0]",
    ),
    Option(
        "--dynatemp-exp",
        "dynatemp_exponent",
        type=float,
        metavar="X",
        heading=_SAMPLING,
        help="Exponent of that entropy. [1]",
    ),
    Option(
        "--mirostat",
        type=int,
        metavar="VERSION",
        heading=_SAMPLING,
        help="1 or 2 keeps the surprise of the text near a wanted one. [0]",
    ),
    Option(
        "--mirostat-ent",
        "mirostat_tau",
        type=float,
        metavar="BITS",
        heading=_SAMPLING,
        aliases=("--mirostat-tau",),
        help="The wanted surprise. [5]",
    ),
    Option(
        "--mirostat-lr",
        "mirostat_eta",
        type=float,
        metavar="X",
        heading=_SAMPLING,
        aliases=("--mirostat-eta",),
        help="How fast it is approached. [0.1]",
    ),
    Option(
        "--samplers",
        type=str,
        metavar="NAMES",
        heading=_SAMPLING,
        aliases=("--sampling-seq", "--sampler-seq"),
        help="The order of samplers, as names with semicolons between or as letters; docs/sampling.md. [edskypmxt]",
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
        "--ban",
        "banned",
        multiple=True,
        metavar="TEXT",
        heading=_SAMPLING,
        aliases=("--banned-string", "--bad-words"),
        help="Never write this text: go back and write something else; may be given several times.",
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
    Option(
        "--min-tokens",
        type=int,
        metavar="N",
        heading=_SAMPLING,
        aliases=("--min-new-tokens",),
        help="Not before so many tokens. [0]",
    ),
)


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
def named_by_flags(more: Sequence[Option] = ()) -> Iterator[None]:
    """Errors about a parameter name the option that set it: ``--temp must be ...`` for ``temperature``."""
    try:
        yield
    except InvalidRequestError as error:
        name, _, rest = str(error).partition(" ")
        options = (*LOAD_OPTIONS, *SAMPLING_OPTIONS, *SPECULATIVE_OPTIONS, *PREFIX_CACHE_OPTIONS, *more)
        for option in options:
            if option.name == name:
                flag = next(flag for flag in option.opts if flag.startswith("--"))
                raise InvalidRequestError(f"{flag} {rest}") from None
        raise
