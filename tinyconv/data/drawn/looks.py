"""How one drawn animal looks: every property is chosen at random here, before any painting."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tinyconv.data.drawn.canvas import Colour, Random, shade
from tinyconv.data.drawn.scenery import any_colour, near

T = TypeVar("T")

# (fur, darker markings, lighter markings): the same coats for cats and dogs.
COATS: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((50, 48, 52), (22, 20, 24), (225, 222, 218)),  # black
    ((112, 112, 118), (62, 62, 70), (226, 226, 228)),  # grey
    ((140, 150, 165), (92, 100, 116), (228, 232, 238)),  # blue grey
    ((236, 232, 224), (150, 140, 130), (255, 253, 248)),  # white
    ((232, 214, 182), (170, 135, 95), (252, 244, 228)),  # cream
    ((222, 150, 80), (172, 96, 42), (250, 230, 204)),  # ginger
    ((208, 166, 104), (150, 106, 58), (246, 228, 194)),  # golden
    ((178, 132, 92), (112, 74, 48), (238, 216, 190)),  # tan
    ((124, 84, 58), (70, 44, 30), (226, 200, 174)),  # brown
    ((164, 88, 54), (98, 48, 30), (244, 222, 200)),  # russet
)
PATTERNS = ("plain", "plain", "stripes", "spots", "patches")
POSES = ("portrait", "portrait", "sitting", "sitting sideways", "standing", "lying")
DOG_EARS = ("floppy", "floppy", "long", "button", "pricked", "bat")
CAT_TAILS = ("hook", "wave", "ground", "arch")
DOG_TAILS = ("wag", "curl", "hang", "plume")
CAT_EYES: tuple[Colour, ...] = ((150, 190, 80), (215, 185, 60), (205, 140, 50), (110, 170, 205))
DOG_EYES: tuple[Colour, ...] = ((96, 58, 30), (60, 38, 24), (140, 92, 44), (120, 160, 195))
CAT_NOSES: tuple[Colour, ...] = ((216, 134, 134), (190, 110, 104), (62, 48, 48))
DOG_NOSES: tuple[Colour, ...] = ((36, 30, 32), (52, 42, 42), (92, 58, 50))


@dataclass(frozen=True)
class Look:
    """One animal in one picture. Lengths are factors of the plain drawing's, angles in radians."""

    is_cat: bool
    pose: str
    profile: bool  # the head seen from the side instead of from the front
    fur: Colour
    dark: Colour
    light: Colour
    pattern: str
    light_muzzle: bool
    blaze: bool  # a light stripe down the forehead
    eye_patch: bool  # one eye in a dark patch
    light_chest: bool
    light_paws: bool
    dark_ears: bool
    pink_ears: bool
    eyes: Colour
    pupil: float  # width of a pupil over its height: a slit is 0.3, a disc 1
    sleepy: bool
    ear: str
    tail: str
    nose: Colour
    tongue: bool
    collar: Colour | None
    ink: Colour  # of the outlines: nearly black, or a soft shade of the fur
    ink_width: float
    ear_size: tuple[float, float]
    ear_tilt: float
    head_size: tuple[float, float]
    head_tilt: float
    eye_size: float
    muzzle: float
    body: tuple[float, float]
    legs: float
    tail_size: float
    at: tuple[float, float]  # in the picture, which spans -1..1
    scale: float
    angle: float
    mirrored: bool
    occluded: bool


def random_look(is_cat: bool, rng: Random) -> Look:
    """Chooses every property of the animal; coat, pose and place do not depend on the species."""

    def pick(choices: Sequence[T]) -> T:
        return choices[int(rng.integers(len(choices)))]

    def chance(probability: float) -> bool:
        return rng.random() < probability

    def about_one(spread: float) -> float:
        return rng.uniform(1 - spread, 1 + spread)

    fur, dark, light = (near(colour, rng, 10) for colour in pick(COATS))
    pose = pick(POSES)
    ear = "pointed" if is_cat else pick(DOG_EARS)
    return Look(
        is_cat=is_cat,
        pose=pose,
        profile=chance(0.3) and pose != "sitting" and ear != "bat",
        fur=fur,
        dark=dark,
        light=light,
        pattern=pick(PATTERNS),
        light_muzzle=chance(0.6),
        blaze=chance(0.2),
        eye_patch=chance(0.2),
        light_chest=chance(0.5),
        light_paws=chance(0.4),
        dark_ears=chance(0.3),
        pink_ears=chance(0.6),
        eyes=pick(CAT_EYES if is_cat else DOG_EYES),
        pupil=rng.uniform(0.25, 0.9) if is_cat else 1.0,
        sleepy=chance(0.08),
        ear=ear,
        tail=pick(CAT_TAILS if is_cat else DOG_TAILS),
        nose=pick(CAT_NOSES if is_cat else DOG_NOSES),
        tongue=not is_cat and chance(0.4),
        collar=any_colour(rng) if chance(0.35) else None,
        ink=shade(dark, rng.uniform(0.3, 0.6)) if chance(0.7) else shade(fur, 0.72),
        ink_width=rng.uniform(0.012, 0.035),
        ear_size=(about_one(0.2), about_one(0.22)),
        ear_tilt=rng.uniform(-0.2, 0.25),
        head_size=(about_one(0.1), about_one(0.1)),
        head_tilt=rng.uniform(-0.3, 0.3),
        eye_size=about_one(0.2),
        muzzle=about_one(0.2),
        body=(about_one(0.12), about_one(0.2)),
        legs=about_one(0.2),
        tail_size=about_one(0.2),
        at=(rng.uniform(-0.22, 0.22), rng.uniform(-0.18, 0.2)),
        scale=rng.uniform(0.65, 1.15),
        angle=rng.normal(0.0, 0.12),
        mirrored=chance(0.5),
        occluded=chance(0.25),
    )
