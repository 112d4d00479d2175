"""The proof by simulation that the insight feed loses and doubles nothing."""
