"""A trained model and the files that it predicts on."""
