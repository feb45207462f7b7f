"""Preference training and fine-tuning with LoRA, by TRL."""
