"""Where weights come from: readers of model files, all behind one view (`source.WeightSource`)."""
