"""What Sightline is measured against, each in a file: the code that a user of it would write."""
