"""What a screen and its embeddings are fit for: facts, doubts, and what each study would take on this machine."""
