"""Studies: one script per question, and the engine that runs their trials on Ray."""
