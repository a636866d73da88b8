"""A small job that starts from inverted images."""

import shlex

from editbench.run.compose import compose_config


def real_job(home, *words):
    """A job of the faces world on a small bank, from 12 renders inverted in 4 steps."""
    return compose_config(
        [
            f"out={home / 'runs'}",
            f"cache={home / 'cache'}",
            *shlex.split(
                "bank.n=320 bank.block=64 bank.shard=320 method=random inversion=faces "
                "inversion.images=faces:12 inversion.steps=4 inversion.samples=50 "
                "starts.near=any starts.n=12 evaluated=[smile,eyeglasses] "
                "engine.max_steps=3 engine.sweep_steps=2 engine.pictures=2"
            ),
            *words,
        ]
    )
