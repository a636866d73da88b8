"""The attribute classifiers of CelebA-HQ that the papers use as judges."""
