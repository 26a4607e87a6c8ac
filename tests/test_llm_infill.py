"""The facade fills gaps: where they end, and what is refused."""

import pytest
from test_llm import PIECES, greedy, ids_of, is_clean, make

from torchless.errors import ContextLengthError, InvalidRequestError, UnsupportedError

GAP_MARKS = ["\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"]
PRE, SUF, MID = (len(PIECES) + i for i in range(3))


@pytest.mark.parametrize("stream", [False, True])
def test_a_gap_is_filled_up_to_the_next_mark(stream):
    model = make(says=[*ids_of("c d"), SUF, *ids_of("x")], after=7, marks=GAP_MARKS)
    if stream:
        chunks = list(model.stream_infill("ab", "e", temperature=0, max_tokens=20))
        completion = chunks[-1].completion
        assert "".join(chunk.text for chunk in chunks) == completion.text
    else:
        completion = model.infill("ab", "e", temperature=0, max_tokens=20)
    assert (completion.text, completion.finish_reason) == ("c d", "stop")
    assert completion.usage.num_prompt_tokens == 7, "BOS, PRE, a, b, SUF, e, MID"
    assert is_clean(model)


def test_marks_end_gaps_only():
    model = make(says=[*ids_of("c"), SUF, *ids_of("d")], after=2, marks=GAP_MARKS)
    assert greedy(model, "a", max_tokens=3).text == "cd"


def test_a_space_at_the_start_of_a_gap_is_part_of_it():
    model = make(says=" c", after=8, space_prefix=True, marks=GAP_MARKS)
    assert model.infill("ab", "e", temperature=0, max_tokens=2, order="spm2").text == " c"


def test_infill_is_refused_without_marks_and_with_nonsense():
    with pytest.raises(UnsupportedError, match="not trained to fill gaps"):
        make().infill("a", "b")
    with pytest.raises(InvalidRequestError, match="order must be one of"):
        make(marks=GAP_MARKS).stream_infill("a", "b", order="mps")
    with pytest.raises(ContextLengthError):
        make(marks=GAP_MARKS, ctx=5).infill("ab", "c")
