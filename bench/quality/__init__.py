"""A laboratory for the quality of attention plans: a small language model on one GPU, seconds a trial (docs/quality_gpu.md)."""
