"""Dead features: counting them, predicting them, and when they revive."""
