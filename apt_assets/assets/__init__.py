"""The stages of the loop, one file each; order.py has them in their order."""
