"""What can be measured of a decoded sample beside the judge's logits."""
