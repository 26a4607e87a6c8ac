"""GBNF in Lark's words: the texts that llama.cpp's description says a grammar matches, and no others."""

import pytest
from llama_cpp_grammar import LlamaCppGrammars

from torchless.constraints.gbnf import gbnf_to_lark
from torchless.errors import GrammarError

llguidance = pytest.importorskip("llguidance")

TOKENS = llguidance.LLTokenizer("byte")


def matcher_of(source):
    lark = gbnf_to_lark(source)
    matcher = llguidance.LLMatcher(TOKENS, llguidance.LLMatcher.grammar_from_lark(lark), log_level=0)
    assert not matcher.is_error(), f"{matcher.get_error()}\n{lark}"
    return matcher


def accepts(source, text):
    matcher, data = matcher_of(source), list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


CASES = [
    ('root ::= "a" | "b" "c"', ["a", "bc"], ["", "b", "ac", "ab"]),
    ('root ::= ("a" | "b")+ "c"? # a comment\n', ["a", "abc", "bb"], ["c", "acc"]),
    ("root ::= [a-c]{2,3}", ["ab", "abc"], ["a", "abca", "ad"]),
    ("root ::= [a-c]{2}", ["ab"], ["a", "abc"]),
    ("root ::= [a-c]{2,}", ["ab", "abcabc"], ["a"]),
    ('root ::= [^"\\\\\\n] . .', ["a\n\n", "😀bc"], ['"ab', "\nab", "ab"]),
    ('root ::= "\\x41\\u00e9\\U0001F600\\t\\"\\\\"', ['Aé😀\t"\\'], ["A"]),
    ("root ::= [\\]\\[-]+ [a-]", ["]-[a", "[-"], ["a"]),
    (
        'root ::= a-b\na-b ::= "x" Rule-2 |\n  "y"\nRule-2 ::= ( "1"\n "2" ) | ""',
        ["x12", "x", "y"],
        ["x1", "y12"],
    ),
    ('root ::= [a-z]* "b"', ["b", "aab", "bbb"], ["a", ""]),
    ('root ::= x "b"\nx ::= [a-z] x | ""', ["b", "aab"], ["a"]),
    ('root ::= "(" root ")" | ""', ["", "()", "((()))"], ["(", "())"]),
    ('root ::= root "+" t | t\nt ::= [0-9]+ | "(" root ")"', ["1", "1+23", "(1+2)+3"], ["1+", "+1", "()"]),
]

JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""
CASES.append(
    (
        JSON,
        ["{}", '{"a":1}', '{"a": [1,-2.5e3, "x\\n\\u00e9"], "b": {"c": null}}', '{\n  "é😀": true\n}'],
        ["", "[]", '{"a"}', '{"a":01}', "{'a':1}", '{"a":1,}'],
    )
)


@pytest.mark.parametrize(("source", "matching", "others"), CASES, ids=[case[0][:30] for case in CASES])
def test_a_grammar_matches_its_texts_and_no_others(source, matching, others):
    for text in matching:
        assert accepts(source, text), text
    for text in others:
        assert not accepts(source, text), text


@pytest.fixture(scope="module")
def llama_cpp():
    grammars = LlamaCppGrammars()
    yield grammars
    grammars.close()


@pytest.mark.parametrize(("source", "matching", "others"), CASES, ids=[case[0][:30] for case in CASES])
def test_llama_cpp_reads_the_grammars_in_the_same_way(source, matching, others, llama_cpp):
    if source.startswith("root ::= root"):
        pytest.skip("llama.cpp refuses left recursion")
    for text in (*matching, *others):
        assert llama_cpp.accepts(source, text) == (text in matching), text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('x ::= "a"', "no rule root"),
        ("root ::= x", "refers to x"),
        ('root ::= "a" root', "root never ends"),
        ('root ::= "a"\nx ::= x', "x never ends"),
        ('root ::= "a', "line 1: the text or character class does not end"),
        ("root ::= [b-a]", "line 1: expected a range in order"),
        ("root ::= []", "expected characters"),
        ('root ::= ("a"', r"expected \)"),
        ('root ::= "a")', "expected the end of the rule"),
        ('root ::= "\\q"', "unknown escape"),
        ('root ::= "\\ud800"', "no character"),
        ('root ::= "a"{9999}', "counts in order, up to 2000"),
        ('root ::= "a"{3,2}', "counts in order"),
        ('root ::= "a"{x}', "expected a repetition"),
        ('root ::= "a"\nroot ::= "b"', "line 2: the rule root is there twice"),
        ('root = "a"', "expected ::="),
        ("root ::= <think>", "not supported"),
        ("root ::= " + "(" * 1000, "100 deep"),
    ],
)
def test_what_is_not_gbnf_is_refused_with_its_line(source, message):
    with pytest.raises(GrammarError, match=message):
        gbnf_to_lark(source)
