"""What keeps coming: the stream decoder, the insight feed, and jobs."""
