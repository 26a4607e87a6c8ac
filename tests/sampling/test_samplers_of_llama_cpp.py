"""Every sampler against llama.cpp's of the same name: the same tokens survive, with the same probabilities."""

import ctypes

import numpy as np
import pytest

from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams

llama_cpp = pytest.importorskip("llama_cpp", reason="compares with llama-cpp-python")

VOCAB = 300
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}


@pytest.fixture(scope="module")
def vocab():
    """llama.cpp's DRY wants a vocabulary; the built-in model has one."""
    from importlib.resources import files

    path = next(path for path in files("torchless.data").iterdir() if path.name.endswith(".gguf"))
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model
    yield llama_cpp.llama_model_get_vocab(model)
    llama_cpp.llama_model_free(model)


def token_array(logits):
    data = (llama_cpp.llama_token_data * len(logits))()
    for token, logit in enumerate(logits.tolist()):
        data[token].id, data[token].logit, data[token].p = token, logit, 0.0
    return llama_cpp.llama_token_data_array(
        data=ctypes.cast(data, llama_cpp.llama_token_data_p), size=len(logits), selected=-1, sorted=False
    )


def made(function, newer, older):
    """Calls it in the form of the installed version: arguments came and went."""
    try:
        return function(*newer)
    except (TypeError, ctypes.ArgumentError):
        return function(*older)


def theirs(samplers, logits, history):
    """Probabilities after llama.cpp's samplers."""
    array = token_array(logits)
    for sampler in samplers:
        for token in history.tolist():
            llama_cpp.llama_sampler_accept(sampler, token)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        llama_cpp.llama_sampler_free(sampler)
    kept = [(array.data[i].id, array.data[i].logit) for i in range(array.size)]
    kept = [(token, logit) for token, logit in kept if logit > -np.inf]
    weights = np.exp(np.array([logit for _, logit in kept]) - max(logit for _, logit in kept))
    return {token: p for (token, _), p in zip(kept, (weights / weights.sum()).tolist(), strict=True)}


def compare(ours, samplers, logits, history, **context):
    params = SamplingParams(seed=1, **{**OFF, **ours})
    found = Sampler(params, **context).distribution(logits, history)
    expected = theirs(samplers, logits, history)
    assert found.keys() == expected.keys()
    for token, p in expected.items():
        assert found[token] == pytest.approx(p, rel=2e-4, abs=1e-7)


def cases(seed):
    random = np.random.default_rng(seed)
    logits = (random.normal(size=VOCAB) * random.uniform(0.5, 5)).astype(np.float32)
    return logits, random.integers(0, 40, 60).astype(np.int32)


SEEDS = range(6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "repeat, frequency, presence", [(1.3, 0, 0), (1, 0.7, 0), (1, 0, 1.5), (0.8, -0.2, 0.4), (1.1, 0.3, 0.2)]
)
def test_penalties(seed, repeat, frequency, presence):
    logits, history = cases(seed)
    compare(
        {
            "repeat_penalty": repeat,
            "frequency_penalty": frequency,
            "presence_penalty": presence,
            "repeat_last_n": 32,
        },
        [
            made(
                llama_cpp.llama_sampler_init_penalties,
                (VOCAB, 32, repeat, frequency, presence),
                (32, repeat, frequency, presence),
            )
        ],
        logits,
        history,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [0.5, 1.0, 2.5])
def test_top_n_sigma(seed, n):
    compare({"top_n_sigma": n}, [llama_cpp.llama_sampler_init_top_n_sigma(n)], *cases(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.95])
def test_typical_p(seed, p):
    compare({"typical_p": p}, [llama_cpp.llama_sampler_init_typical(p, 0)], *cases(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.4])
def test_xtc_when_it_happens(seed, threshold):
    compare(
        {"xtc_probability": 1.0, "xtc_threshold": threshold},
        [llama_cpp.llama_sampler_init_xtc(1.0, threshold, 0, 1)],
        *cases(seed),
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spread, exponent", [(0.5, 1.0), (1.5, 0.5)])
def test_dynamic_temperature(seed, spread, exponent):
    compare(
        {"temperature": 1.2, "dynatemp_range": spread, "dynatemp_exponent": exponent, "top_k": 50},
        [
            llama_cpp.llama_sampler_init_top_k(50),
            llama_cpp.llama_sampler_init_temp_ext(1.2, spread, exponent),
        ],
        *cases(seed),
    )


def dry(vocab, breakers, multiplier=0.8, base=1.75, allowed=2, last_n=64):
    array = (ctypes.c_char_p * len(breakers))(*(text.encode() for text in breakers))
    rest = (multiplier, base, allowed, last_n, array, len(breakers))
    return made(llama_cpp.llama_sampler_init_dry, (vocab, *rest), (vocab, 4096, *rest))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("allowed", [1, 2, 4])
def test_dry(vocab, seed, allowed):
    logits, _ = cases(seed)
    random = np.random.default_rng(seed)
    phrase = random.integers(0, 30, 7)
    start, middle = random.integers(0, 30, 9), random.integers(0, 3, 12)
    parts = [start, phrase, middle, phrase[:-2], phrase[:-2], phrase[: 4 + seed % 3]]
    history = np.concatenate(parts).astype(np.int32)
    compare(
        {
            "dry_multiplier": 0.8,
            "dry_allowed_length": allowed,
            "dry_penalty_last_n": 64,
            "dry_sequence_breakers": [],
        },
        [dry(vocab, [], allowed=allowed)],
        logits,
        history,
    )


def test_dry_stops_at_breakers(vocab):
    """The built-in model's text: the same words again, once behind a sentence's end and once in the same sentence."""
    import torchless

    with torchless.load() as model:
        tokenizer = model.tokenizer
        for text in ("The cat sat on the mat. The cat sat on the", "The cat. sat on the mat. sat on the"):
            history = np.array(tokenizer.encode(text), np.int32)
            logits = np.random.default_rng(1).normal(size=tokenizer.vocab_size).astype(np.float32)
            compare(
                {"dry_multiplier": 2.0, "dry_penalty_last_n": 64, "dry_sequence_breakers": ["."]},
                [dry(vocab, ["."], multiplier=2.0)],
                logits,
                history,
                token_text=lambda token: tokenizer.decode([token]),
            )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "names", ["temperature;top_p;min_p", "min_p;temperature;top_k", "top_p;typ_p;temperature"]
)
def test_the_order_is_the_one_asked_for(seed, names):
    values = {"temperature": 1.7, "top_p": 0.8, "min_p": 0.1, "top_k": 12, "typical_p": 0.9}
    make = {
        "temperature": lambda: llama_cpp.llama_sampler_init_temp(1.7),
        "top_p": lambda: llama_cpp.llama_sampler_init_top_p(0.8, 0),
        "min_p": lambda: llama_cpp.llama_sampler_init_min_p(0.1, 0),
        "top_k": lambda: llama_cpp.llama_sampler_init_top_k(12),
        "typ_p": lambda: llama_cpp.llama_sampler_init_typical(0.9, 0),
    }
    compare({**values, "samplers": names}, [make[name]() for name in names.split(";")], *cases(seed))


@pytest.mark.parametrize("tau, eta", [(1.5, 0.3), (4.0, 0.1)])
@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_leaves_the_same_tokens_after_the_same_picks(version, tau, eta):
    from torchless.sampling.candidates import Candidates
    from torchless.sampling.mirostat import Mirostat

    if version == 1:
        sampler = llama_cpp.llama_sampler_init_mirostat(VOCAB, 7, tau, eta, 100)
    else:
        sampler = llama_cpp.llama_sampler_init_mirostat_v2(7, tau, eta)
    ours = Mirostat(SamplingParams(mirostat=version, mirostat_tau=tau, mirostat_eta=eta))
    counts = set()
    for position in range(40):
        logits, _ = cases(position)
        array = token_array(logits)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        kept = [array.data[i].id for i in range(array.size)]
        candidates = Candidates(logits)
        ours.narrow(candidates, position, VOCAB)
        assert candidates.ids.tolist() == kept
        ours.accept(float(candidates.probabilities()[array.selected]), position)
        counts.add(len(kept))
    assert len(counts) > 5
    llama_cpp.llama_sampler_free(sampler)


def test_mirostat_goes_on_from_where_it_goes_back_to():
    params = SamplingParams(seed=3, mirostat=2, mirostat_tau=2.0)
    history, picks = np.zeros(1, np.int32), []
    sampler = Sampler(params)
    for seed in range(20):
        picks.append(sampler.pick(cases(seed)[0], history))
        history = np.append(history, np.int32(picks[-1]))
    again = [sampler.pick(cases(seed)[0], history[: seed + 1]) for seed in range(5, 20)]
    assert again == picks[5:]
