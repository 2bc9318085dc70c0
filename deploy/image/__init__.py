"""What runs while an image is built, and stays out of it."""
