"""Onboarding: what to ask somebody new, and how much better than popularity few answers make the lists."""

from palate.onboard.measure import Asked, OnboardingReport, measure_onboarding, newcomers
from palate.onboard.questions import Interview, Tastes, like_weight, onboarding_items

__all__ = [
    "Asked",
    "Interview",
    "OnboardingReport",
    "Tastes",
    "like_weight",
    "measure_onboarding",
    "newcomers",
    "onboarding_items",
]
