"""Makes a release: looks whether there may be one, builds images, lists what is in them, tags."""


class Refused(Exception):
    """There is no release, for the reason that is said, in a sentence."""
