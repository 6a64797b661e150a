"""The static layers that folds build: standard operators, constant weights, a free batch size."""
