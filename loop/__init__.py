"""The loop: rounds, data, training, evaluation and reports."""
