"""The word lists behind the stories: who, where, what, in what weather. All written for this project."""
# ruff: noqa: SIM905 - word lists read better as one string

from __future__ import annotations

GIRL_NAMES = (
    "Ruby Lily Mia Nora Clara Daisy Hazel Ivy Luna Molly Olive Poppy Rosie Stella Tilda Willa Zoe Bella "
    "Cora Dora Ella Fern Greta Hanna Iris Juno Kira Lena Maya Nell Opal Penny Rita Sally Tess Uma Vera "
    "Wren Yara Anna Betty Emma"
).split()
BOY_NAMES = (
    "Otto Max Tim Leo Finn Hugo Jasper Milo Oscar Pip Sam Toby Victor Walter Arlo Ben Casper Dan Eli "
    "Felix Gus Harry Ivan Jack Kai Louis Moss Ned Oliver Paul Rufus Simon Theo Ulf Vito Will Yuri Zeke "
    "Albert Bruno Dexter Tom"
).split()
SYLLABLES_FIRST = (
    "Ba Be Bri Da Do Fa Fli Gi Ha Jo Ka Ki Lo Lu Ma Mi Na Ni Pa Po Ra Ro Sa Si Ta Ti Va Wi Za Zu".split()
)
SYLLABLES_LAST = "bo dy fi ga ka la lo mi na ni no pa ra ri ro sa ta to vi xo zi nda lla ppo sky ster".split()

ANIMALS = (
    "fox rabbit bear owl mouse cat dog duck frog hedgehog squirrel turtle penguin lamb goat pony donkey "
    "pig badger beaver otter deer kitten puppy elephant lion tiger monkey parrot robin sparrow hen swan "
    "seal whale snail bee dragon mole raccoon koala panda camel zebra giraffe wolf horse cow kangaroo "
    "crocodile crab octopus hippo crow chicken unicorn dinosaur cricket ant butterfly ladybug hamster "
    "moose llama dolphin firefly"
).split()
CHILDREN = ["girl", "boy"]
ROLES = "robot gnome fairy giant snowman princess prince knight pirate wizard witch king queen".split()
FEMALE = ("girl", "hen", "cow", "princess", "witch", "queen")
MALE = ("boy", "prince", "king")

TRAITS = (
    "curious brave shy cheerful small gentle clever sleepy kind playful quiet busy young merry little "
    "tiny proud hopeful funny patient dreamy friendly"
).split()

HOMES = (
    "in a green valley",
    "near the sea",
    "at the edge of a quiet forest",
    "on a small island",
    "in a snug little house",
    "by a slow river",
    "under a tall oak tree",
    "on a windy hill",
    "in a village with red roofs",
    "beside a silver lake",
    "in a field of yellow flowers",
    "at the foot of a blue mountain",
    "in a garden full of roses",
    "on an old farm",
    "behind a busy market",
    "in a town with a clock tower",
    "near a mossy bridge",
    "in a cottage with a round door",
)
SPOTS = (
    "the old bridge",
    "the big oak tree",
    "the stone well",
    "the mill",
    "the pond",
    "the market",
    "the apple orchard",
    "the top of the hill",
    "the tall rocks",
    "the beach",
    "the meadow",
    "the dark cave",
    "the waterfall",
    "the barn",
    "the lighthouse",
    "the pine forest",
    "the fountain",
    "the wooden gate",
)
COLOURS = "red blue yellow green golden silver purple orange white striped shiny tiny wooden".split()
THINGS = (
    "kite ball hat drum boat bell scarf lantern book key button basket spoon whistle flute ring umbrella "
    "marble teapot blanket cup mirror coin feather box wagon puzzle doll mitten shell"
).split()
FOODS = (
    "a warm apple pie",
    "a bowl of berries",
    "a loaf of fresh bread",
    "a pot of honey",
    "a plate of cookies",
    "a big carrot cake",
    "a bag of nuts",
    "a jar of plum jam",
    "a pot of soup",
    "a basket of pears",
    "a plate of pancakes",
    "a round cheese",
)
HOBBIES = (
    "counting the stars",
    "singing to the moon",
    "painting little pictures",
    "jumping over puddles",
    "collecting smooth stones",
    "telling jokes",
    "listening to the wind",
    "making paper boats",
    "baking bread",
    "dancing in the rain",
    "reading by the window",
    "rolling down the hill",
    "watching the clouds",
    "chasing butterflies",
    "looking for treasure",
    "drawing maps",
    "playing hide and seek",
    "humming old songs",
    "asking questions",
    "climbing trees",
)
WEATHERS = (
    "The sun was warm and the sky was blue.",
    "A soft wind moved the leaves.",
    "The morning was cool and bright.",
    "White clouds sailed across the sky.",
    "The grass was still wet with dew.",
    "It was a golden autumn day.",
    "It was the first day of spring.",
    "The air smelled of flowers.",
    "It was a warm summer day.",
    "A thin mist lay over the fields.",
    "The birds were singing.",
    "It had rained all night, but now the sun was out.",
)
ELDERS = (
    "owl",
    "turtle",
    "goose",
    "badger",
    "toad",
    "raven",
    "gardener",
    "fisherman",
    "baker",
    "miller",
    "shepherd",
    "clockmaker",
    "sailor",
    "grandmother",
    "grandfather",
    "teacher",
)
FLOWERS = "sunflower pumpkin rose bean tomato strawberry tulip apple daisy pea cabbage melon".split()
FEARS = (
    ("the dark", "the lamp went out", "the dark was only the day with its eyes closed"),
    ("deep water", "the path led through a stream", "the water was cool and friendly"),
    ("thunder", "a loud boom rolled over the hills", "thunder was only the sky playing its drum"),
    ("high places", "the only way led up a tall ladder", "the world looked lovely from up there"),
    ("speaking aloud", "everyone turned and waited for a word", "a small voice can be heard when it is true"),
    (
        "the big slide",
        "all the others had already gone down",
        "the slide was the best thing of the whole day",
    ),
    ("spiders", "a tiny spider came down on a thread", "the spider was only a little weaver at work"),
    ("loud noises", "a big cart rattled past the gate", "a noise goes away faster than it comes"),
)
BUILDS = (
    ("a tree house", "boards and ropes", "the roof fell down", "used longer nails"),
    ("a bridge", "stones and branches", "the middle sank into the water", "put the big stones first"),
    ("a boat", "wood and an old sheet", "water came in through a hole", "closed the hole with wax"),
    ("a sand castle", "wet sand and shells", "a wave washed it away", "moved farther up the beach"),
    (
        "a little cart",
        "two boxes and four wheels",
        "one wheel rolled away",
        "tied the wheel with strong string",
    ),
    ("a bird house", "thin boards and moss", "the door was far too small", "cut a bigger door"),
    ("a windmill", "paper and sticks", "it would not turn", "turned it to face the wind"),
    ("a snow fort", "snow and ice", "one wall fell over", "made the walls thicker"),
)
GIFTS = (
    "a song",
    "a scarf made of soft wool",
    "a picture of the whole family",
    "a crown of flowers",
    "a cake with nuts on top",
    "a box of painted stones",
    "a tiny wooden boat",
    "a warm pair of socks",
    "a lamp made of paper",
)
BREAKABLE = tuple(
    "boat flute teapot cup mirror lantern whistle puzzle doll shell kite umbrella spoon".split()
)
HOLLOW = tuple("boat drum lantern book basket teapot box umbrella hat wagon mitten".split())
