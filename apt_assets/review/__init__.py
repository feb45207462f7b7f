"""Review by people: bad cases and asked questions on a page of this machine, and what was decided about them."""
