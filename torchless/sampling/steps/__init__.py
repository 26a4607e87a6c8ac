"""Steps of the sampling chain, one file each; see `chain` for what a file offers."""
