"""``trunkline drill``: what callers would notice of each fault, played against doubles."""
