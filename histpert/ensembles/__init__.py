"""A final model: an ensemble of MLP+Hist in one file, what it predicts, and how far to trust that."""
