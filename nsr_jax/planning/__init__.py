"""Plans: what a compiler says about a run on accelerators that are not there."""
