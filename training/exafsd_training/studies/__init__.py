"""What a trained model is worth: every study is a command of its own."""
