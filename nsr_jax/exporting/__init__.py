"""Networks as files for other programs: one module a format, and gates folded into plain convolutions."""
