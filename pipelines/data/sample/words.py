"""The words of the captions: nouns, counts, verbs, places and relations, each with its variants.

The first of each tuple is the usual one and is chosen most often.
"""

from collections.abc import Mapping

Words = tuple[str, ...]

NOUNS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "person": (("person", "people"),),
    "car": (("car", "cars"),),
    "airplane": (("airplane", "airplanes"), ("plane", "planes")),
    "boat": (("boat", "boats"), ("sailboat", "sailboats")),
    "traffic light": (("traffic light", "traffic lights"), ("stoplight", "stoplights")),
    "stop sign": (("stop sign", "stop signs"),),
    "bench": (("bench", "benches"), ("park bench", "park benches")),
    "bird": (("bird", "birds"),),
    "dog": (("dog", "dogs"), ("puppy", "puppies")),
    "sheep": (("sheep", "sheep"),),
    "cow": (("cow", "cows"),),
    "umbrella": (("umbrella", "umbrellas"), ("parasol", "parasols")),
    "frisbee": (("frisbee", "frisbees"),),
    "sports ball": (("ball", "balls"), ("beach ball", "beach balls")),
    "kite": (("kite", "kites"),),
    "pizza": (("pizza", "pizzas"),),
    "clock": (("clock", "clocks"),),
}
"""Singular and plural."""

COUNTS: Mapping[int, Words] = {
    2: ("two", "a pair of", "a couple of"),
    3: ("three", "several", "some"),
    4: ("four", "several", "some"),
}
CROWDS: Mapping[str, Words] = {
    "person": ("a crowd of", "many", "lots of"),
    "sheep": ("a flock of", "many", "lots of"),
    "bird": ("a flock of", "many", "lots of"),
    "kite": ("a bunch of", "many", "lots of"),
}
SINGULAR_HEAPS: Words = ("a pair of", "a crowd of", "a flock of", "a bunch of")
"""Followed by "is"."""

SIZES: Mapping[str, Words] = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}

FLYING: Mapping[str, Words] = {
    "kite": ("flying", "floating", "soaring"),
    "bird": ("flying", "gliding", "soaring"),
    "airplane": ("flying",),
    "frisbee": ("flying", "floating"),
    "sports ball": ("flying", "floating"),
}
STANDING: Mapping[str, Words] = {
    "person": ("standing", "waiting", "posing"),
    "car": ("parked", "driving"),
    "boat": ("sailing", "floating"),
    "sheep": ("standing", "grazing"),
    "cow": ("standing", "grazing"),
    "dog": ("standing", "waiting"),
    "frisbee": ("lying", "resting"),
    "sports ball": ("lying", "resting"),
    "pizza": ("lying", "sitting"),
    "clock": ("standing", "sitting"),
    "bench": ("sitting", "standing"),
    "umbrella": ("standing", "sitting"),
}
HANGING: Words = ("hanging", "mounted")
MERELY_STANDING: Words = ("standing",)

ZONE_PLACES: Mapping[str, Words] = {
    "grass": ("on the grass", "in the grass", "in a field", "in a meadow", "in a grassy field"),
    "snow": ("in the snow", "on the snow", "on snowy ground", "in a snowy field"),
    "water": ("on the sea", "on the ocean", "on the water", "in the sea"),
    "sand": ("on the beach", "on the sand by the sea", "on a sandy beach", "on the beach by the ocean"),
    "pavement": ("on the sidewalk", "by the street", "on the side of the street"),
    "road": ("on the road", "on the street", "in the street"),
    "wall": ("on a building by the street", "on a wall over the street", "on a building in the city"),
}
SKY_PLACES: Mapping[str, Words] = {
    "grass": ("in the sky over a field", "over a field", "over the grass", "in the air over a meadow"),
    "sea": ("in the sky over the sea", "over the sea", "over the ocean", "in the air over the water"),
    "snow": ("in the sky over the snow", "over a snowy field", "over the snow", "in the air over snowy ground"),
    "street": ("in the sky over a street", "over the street", "over a city street", "in the air over the road"),
}
SCENE_PLACES: Mapping[str, Words] = {
    "grass": ("in a field", "in a grassy field", "in a meadow", "in a green field"),
    "sea": ("at the sea", "by the ocean", "by the sea", "by the water"),
    "snow": ("in the snow", "in a snowy field", "on a snowy day"),
    "street": ("on a street", "on a city street", "in the city", "along a road"),
}
BEACH_PLACES: Words = ("at the beach",)
SCENES: Mapping[str, Words] = {
    "grass": ("a field", "a grassy field", "a meadow", "a green field", "a field of grass"),
    "sea": ("the sea", "the ocean", "the water", "a calm sea"),
    "snow": ("a snowy field", "a field of snow", "a snowy landscape", "snowy ground"),
    "street": ("a city street", "a street", "a road", "a street in the city"),
}
SKIES: Mapping[str, Words] = {
    "blue": ("under a blue sky", "with a blue sky"),
    "cloudy": ("under a cloudy sky", "on a cloudy day", "under a gray sky"),
    "sunset": ("at sunset", "at dusk"),
}
RELATIONS: Mapping[str, Words] = {
    "above": ("above", "over", "high above"),
    "below": ("below", "under", "beneath"),
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "near": ("next to", "beside", "near"),
    "front": ("in front of",),
    "behind": ("behind",),
}
OPENINGS: Words = ("a picture of", "a photo of", "a view of", "an image of")
"""Before a noun phrase."""

EMPTINESS: Words = ("with nothing in it", "with nobody around", "with no one in sight", "without a single object")
"""After the name of a scene without objects."""
