"""The length probe: which pairs leave training first, and what length has to do with it."""
