"""PerturBERT: gene embeddings learned from perturbation signatures, and what gene embeddings predict."""
