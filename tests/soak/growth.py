"""Shows that growth is noticed: flat samples are accepted, and samples that are doctored are refused."""

import random

import flat
from measure import Sample
from processes import Failed

ROUNDS = 24
ROUND_SECONDS = 45.0
SAMPLES_A_ROUND = 10
CALM_SAMPLES_A_ROUND = 4
# Beyond what is noticed at the least, because medians of doctored samples have noise of their own.
BEYOND = 1.5
# A peak that is larger in the last rounds only: 100 of anything is beyond each bound of what was made here.
PEAK = 100


def made(seed):
    """Samples of an instance that uses about the same all the time, with noise and with peaks in the disturbance."""
    rng = random.Random(seed)
    samples = []
    for number in range(1, ROUNDS + 1):
        for place in range(SAMPLES_A_ROUND):
            calm = place >= SAMPLES_A_ROUND - CALM_SAMPLES_A_ROUND
            more = 0 if calm else rng.choice((0, 5, 8))
            samples.append(
                Sample(
                    at=ROUND_SECONDS * number + place,
                    name="made",
                    round=number,
                    calm=calm,
                    memory_mb=60 + more + rng.random(),
                    anonymous_mb=40 + more + rng.random(),
                    threads=40 + more,
                    descriptors=80 + more + rng.randrange(3),
                    cpu_s=float(number),
                )
            )
    return samples


def check(seed):
    """Returns a line about what was refused."""
    samples = made(seed)
    refuse_doctored(samples, ROUNDS)
    # A leak that shows in the disturbance only.
    for measure in flat.MEASURES:
        peaks = [
            s if s.calm or s.round < ROUNDS else flat.growing([s], measure, PEAK / s.round)[0]
            for s in samples
        ]
        refuse(peaks, ROUNDS, f"{measure} with a growing peak")
    few = [s for s in samples if not s.calm]
    refuse(few, ROUNDS, "samples of which none is calm")
    return f"refused: growth and growing peaks of {', '.join(flat.MEASURES)}; samples that prove nothing"


def refuse_doctored(samples, rounds):
    """Accepts the samples as they are, and refuses them with growth. Returns a line about the least that is noticed."""
    flat.judge(samples, rounds)
    said = []
    for measure in flat.MEASURES:
        least = flat.noticed_a_round(samples, rounds, measure)
        refuse(flat.growing(samples, measure, least * BEYOND), rounds, f"{measure} that grows")
        said.append(f"{measure} {least:.2g}")
    return "noticed is a growth a round of " + ", ".join(said)


def refuse(samples, rounds, what):
    try:
        accepted = flat.judge(samples, rounds)
    except Failed:
        return
    raise Failed(f"{what} is accepted: {accepted}")
