"""What was promoted, behind OpenAI's interface: requests, batches, which adapter is live, what was asked."""
