"""What `models.yaml` says of exact models: families are not licences."""

from __future__ import annotations

import datetime as dt
import re
from functools import cache
from typing import Final

import pytest

from gateway.policy.library import Library
from gateway.policy.vocabulary import UNLISTED
from gateway.store.policies import builtin_policies, read_policy_files

DAY: Final = dt.date(2026, 11, 22)


@cache
def library() -> Library:
    """Return the library that ships."""
    return Library.load(read_policy_files(builtin_policies()))


def terms_of(model: str) -> set[str]:
    """Return the policies that bind *model* where the organisation runs it itself."""
    bound = library().binding(["open-weights"], model, DAY)
    assert bound.absent == ()
    return {policy.id for policy in bound.policies} - {"open-weights"}


@pytest.mark.parametrize(
    ("model", "terms"),
    [
        ("mistralai/Devstral-2-123B-Instruct-2512", {"mistral-modified-mit"}),
        ("mistralai/Devstral-Small-2-24B-Instruct-2512", {"apache-2.0"}),
        ("mistralai/Ministral-8B-Instruct-2410", {"mrl-0.1"}),
        ("mistralai/Ministral-3-8B-Instruct-2512", {"apache-2.0"}),
        ("mistralai/Codestral-22B-v0.1", {"mnpl-0.1"}),
        ("mistralai/Mamba-Codestral-7B-v0.1", {"apache-2.0"}),
        ("meta-llama/Meta-Llama-3-8B-Instruct", {"llama-3"}),
        ("meta-llama/Llama-3.1-8B-Instruct", {"llama-3.1"}),
        ("meta-llama/Llama-3.3-70B-Instruct", {"llama-3.3"}),
        ("deepseek-ai/DeepSeek-R1", {"mit"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", {"mit", "llama-3.3"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", {"mit", "llama-3.1"}),
        ("deepseek-ai/DeepSeek-V3", {"deepseek-1.0"}),
        ("deepseek-ai/DeepSeek-V3-0324", {"mit"}),
        ("Qwen/Qwen2.5-7B-Instruct", {"apache-2.0"}),
        ("Qwen/Qwen2.5-3B-Instruct", {"qwen-research"}),
        ("Qwen/Qwen2.5-72B-Instruct", {"qwen-2024"}),
        ("google/gemma-3-27b-it", {"gemma"}),
        ("google/gemma-4-31B-it", {"apache-2.0"}),
        ("openai/gpt-oss-120b", {"gpt-oss"}),
        ("openai/gpt-5", {"openai"}),
    ],
)
def test_each_exact_model_has_its_own_terms(model: str, terms: set[str]) -> None:
    """Neighbours of one family, even of one day, carry different terms."""
    assert terms_of(model) == terms


@pytest.mark.parametrize(
    "model", ["meta-llama/Llama-5-70B", "meta-llama/llama-3.3-70B-instruct", "deepseek-r1:8b"]
)
def test_what_is_not_listed_to_the_letter_is_not_guessed(model: str) -> None:
    """A name that differs by a capital, or that moved from model to model, is unknown."""
    assert terms_of(model) == {UNLISTED}


def test_what_is_known_from_hearsay_holds_as_well() -> None:
    """Terms that nobody checked at the source bind together with the policy that holds."""
    assert terms_of("zai-org/GLM-5") == {"mit", UNLISTED}


def test_the_text_only_models_of_llama_3_2_are_the_same_in_both_files() -> None:
    """The policy's exception for text-only ids names exactly the ids that are served."""
    policy = library().in_force("llama-3.2", DAY)
    assert policy is not None
    clause = policy.clause("eu-multimodal")
    assert clause is not None
    text_only = {
        value
        for exception in clause.condition.unless
        for test in exception
        for value in getattr(test, "allowed", ())
    }
    served = {model for model, terms in library().models.items() if "llama-3.2" in terms}
    small = {model for model in served if re.search(r"(?<![0-9])[13]b", model.casefold())}

    assert text_only == small | {"llama3.2"}
    assert text_only < served


def test_the_ids_of_kimi_k2_5_are_the_same_in_both_files() -> None:
    """The name to show is that of K2.5 under every id that `models.yaml` lists for it."""
    policy = library().in_force("kimi-k2", DAY)
    assert policy is not None
    clause = policy.clause("show-kimi-k2.5")
    assert clause is not None
    shown = {value for test in clause.condition.when for value in getattr(test, "allowed", ())}
    served = {
        model
        for model, terms in library().models.items()
        if "kimi-k2" in terms and re.search(r"k2[.p-]5", model.casefold())
    }

    assert served
    assert served <= shown


@pytest.mark.parametrize(
    ("model", "terms"),
    [
        ("gemini-2.5-pro", {"google-cloud"}),
        ("gemini-3.1-pro-preview", {"google-cloud", UNLISTED}),
        ("google/gemini-2.5-pro", {"google-cloud", "gemini"}),
    ],
)
def test_gemini_in_the_cloud_is_under_the_cloud_s_terms(model: str, terms: set[str]) -> None:
    """Google Cloud's own id brings no other terms; a preview is not listed."""
    bound = library().binding(["google-cloud"], model, DAY)

    assert {policy.id for policy in bound.policies} == terms
