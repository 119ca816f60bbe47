"""Small closed word lists, and the open one: verbs of motion and change.

A verb that is missing is still recognised where a sentence leaves no doubt ("the dog zorps left"); one that is listed
is recognised everywhere. Extend the lists freely: one group a line of thought, base forms only.
"""

from __future__ import annotations

VERBS = frozenset(
    """
    move go come run walk jog sprint dash race rush hurry march stride stroll wander roam stagger stumble limp tiptoe
    creep crawl slither sneak step trot gallop canter hop skip jump leap bounce bound vault climb descend ascend rise
    fall drop sink float drift glide slide slip skate ski surf sail paddle swim dive plunge splash fly soar hover
    flutter flap swoop land launch lift drive ride roll cruise speed accelerate brake stop halt park reverse steer
    swerve turn rotate spin swirl twirl whirl revolve circle orbit spiral twist swivel pivot tilt lean tip topple
    tumble flip somersault swing sway rock wobble shake tremble shiver vibrate quiver wiggle jiggle wriggle twitch
    bob nod bow bend stretch reach crouch squat kneel sit stand lie rest stay remain wait pause freeze sleep wake
    follow chase pursue lead approach advance retreat leave depart arrive enter exit return pass cross overtake
    circumnavigate escape flee vanish appear disappear emerge fade dissolve melt evaporate freeze burn glow flash
    blink flicker shine shimmer sparkle twinkle light darken brighten dim change become transform morph shift fold
    unfold open close shut lock grow shrink expand contract inflate deflate swell widen narrow shorten lengthen
    enlarge scale zoom pulse pulsate throb beat blossom bloom wilt wither explode burst erupt crack break shatter
    crumble collapse crash collide bump hit strike kick punch slap push pull drag tug tow shove press squeeze throw
    toss hurl fling pitch catch grab hold release pick place put raise lower send give take carry bring fetch lay set
    wave gesture point clap snap shrug wink smile laugh grin frown cry weep yawn sneeze cough sigh breathe blow talk
    speak sing shout yell whisper bark meow growl howl roar chirp eat drink chew bite lick swallow sip taste sniff
    smell look watch stare gaze glance peek turn face see listen hear read write draw paint type play dance perform
    juggle practice pose exercise lift shoot aim throw dribble cook stir pour fill spill drip flow stream gush
    trickle rain snow wash wipe scrub sweep mop brush comb cut chop slice peel dig plant pat pet stroke scratch rub
    hug kiss embrace shake fight wrestle attack hunt pounce spring hang dangle suspend balance perch
    wag curl uncurl coil shed bathe dry soak wet spread scatter gather assemble separate split merge join meet
    attach detach stick bloom ripple billow undulate churn boil bubble blaze ignite extinguish
    wear ring buzz hum click tick beat knock tap drum strum pluck zigzag weave zip zoom whiz hurtle
    meander plod trudge waddle scurry scamper scuttle prance strut shuffle slump recline stoop dodge
    head veer mount dismount hike pedal cycle kneel pray worship cheer celebrate
    start begin continue keep try finish want need like love make let have get do help cause
    """.split()
)
"""Base forms."""

IRREGULAR_PASTS = {
    form: base
    for base, forms in {
        "become": "became", "begin": "began begun", "bend": "bent", "bite": "bit bitten", "blow": "blew blown",
        "break": "broke broken", "bring": "brought", "catch": "caught", "come": "came", "creep": "crept",
        "cut": "cut", "dig": "dug", "dive": "dove", "draw": "drew drawn", "drink": "drank drunk",
        "drive": "drove driven", "eat": "ate eaten", "fall": "fell fallen", "fight": "fought", "flee": "fled",
        "fling": "flung", "fly": "flew flown", "freeze": "froze frozen", "get": "got gotten", "give": "gave given",
        "go": "went gone", "grow": "grew grown", "hang": "hung", "hear": "heard", "hit": "hit", "hold": "held",
        "keep": "kept", "kneel": "knelt", "lead": "led", "lean": "leant", "leap": "leapt", "lie": "lay lain",
        "make": "made", "meet": "met", "put": "put", "ride": "rode ridden", "ring": "rang rung",
        "rise": "rose risen", "run": "ran", "see": "saw seen", "set": "set", "shake": "shook shaken",
        "shine": "shone", "shoot": "shot", "shrink": "shrank shrunk", "sing": "sang sung", "sink": "sank sunk",
        "sit": "sat", "sleep": "slept", "slide": "slid", "speak": "spoke spoken", "spin": "spun",
        "split": "split", "spread": "spread", "spring": "sprang sprung", "stand": "stood", "stick": "stuck",
        "strike": "struck", "sweep": "swept", "swell": "swollen", "swim": "swam swum", "swing": "swung",
        "take": "took taken", "throw": "threw thrown", "wake": "woke woken", "wear": "wore worn",
        "weave": "wove woven", "weep": "wept", "write": "wrote written",
    }.items()
    for form in forms.split()
}  # fmt: skip
"""Past form -> base. "left" is no past of "leave" here: in these sentences it is a direction."""

CAMERA_VERBS = frozenset("zoom pan dolly tilt".split())
MAKING_VERBS = frozenset("make let have get cause want need help".split())
SHOWING_VERBS = frozenset("show animate render generate create produce draw film imagine see".split())
WHAT_THE_OBJECT_DOES = {
    **dict.fromkeys("push pull drag shove tow put place take bring carry send".split(), "move"),
    **dict.fromkeys("throw toss hurl fling".split(), "fly"),
    **{"lift": "rise", "raise": "rise", "lower": "sink", "enlarge": "grow", "scale": "grow", "expand": "grow"},
    **{"paint": "turn", "keep": "stay", "hold": "stay"},
}
"""Asked to "push the box left", the box moves left."""
STARTING_VERBS = frozenset("start begin continue keep proceed".split())
WEARING_VERBS = frozenset("wear hold have carry sit stand lie face hang park".split())
"""Verbs that tell in front of another one which object is meant: "the man wearing a hat waves"."""
GOAL_VERBS = frozenset("jump leap hop fall land climb step drop dive crash sit put pounce".split())
"""Verbs after which "on" and "in" name where a motion ends, not where it happens."""

COLOUR_WORDS = frozenset(
    """red orange yellow green blue purple pink white black grey gray brown violet cyan magenta turquoise teal golden
    gold silver beige crimson scarlet navy maroon lime olive indigo transparent invisible""".split()
)
ADJECTIVES = COLOUR_WORDS | frozenset(
    """big small large little tiny huge giant tall short long wide narrow thick thin fat slim heavy round flat sharp
    old young new ancient modern dark light bright pale shiny dull striped spotted dotted fluffy furry hairy fuzzy
    wooden metallic golden plastic wet dry hot cold warm happy sad angry cute beautiful pretty ugly lovely friendly
    lonely elderly fast slow quick quiet loud soft hard open closed empty full colorful colourful cartoon toy wild
    male female blond blonde bald bigger smaller larger left right upper lower top bottom middle central leftmost
    rightmost front rear first second third fourth last next nearest farthest other same whole still""".split()
)

DETERMINERS = frozenset("the a an this that these those some any each every another no".split())
POSSESSIVES = frozenset("my your his her its our their".split())
SINGULAR_DETERMINERS = frozenset("a an this that each every another one".split())
PLURAL_DETERMINERS = frozenset("these those many several few both".split())
NUMERALS = frozenset("two three four five six seven eight nine ten eleven twelve many several few".split())
PRONOUNS = {
    **dict.fromkeys(("it", "he", "she"), "singular"),
    **dict.fromkeys(("they", "both", "everything", "everyone"), "plural"),
}
OBJECT_PRONOUNS = {"it": "it", "him": "he", "her": "she", "them": "they", "both": "both", "everything": "everything"}
SPEAKERS = frozenset("i we you".split())

GROUP_NOUNS = frozenset("group pair couple herd flock crowd team family bunch lot number school pack row".split())
UNCHANGED_NOUNS = frozenset("sheep fish deer aircraft moose salmon series".split())
IRREGULAR_PLURALS = frozenset("people men women children mice geese feet teeth oxen police leaves wolves".split())
SINGULAR_IN_S = frozenset("lens gas bus tennis canvas atlas christmas texas".split())
PERSONS = frozenset(
    """man woman boy girl person child kid baby lady guy dancer player runner skater surfer rider driver superhero
    hero king queen prince princess knight soldier teacher student chef doctor nurse farmer worker astronaut mother
    father sister brother grandmother grandfather toddler actor actress singer drummer clown pirate witch wizard
    cyclist skier swimmer athlete boxer juggler""".split()
)

FEMALE = frozenset("woman girl lady queen princess mother sister grandmother actress witch".split())
MALE = frozenset("man boy guy king prince father brother grandfather actor wizard".split())

BE_FORMS = frozenset("is are was were be been being am".split())
HAVE_FORMS = frozenset("has have had".split())
DO_FORMS = frozenset("does do did".split())
MODALS = frozenset("will would can could should must may might shall cannot gonna".split())
SINGULAR_AUXILIARIES = frozenset("is was has does".split())
PLURAL_AUXILIARIES = frozenset("are were have do".split())
NEGATIONS = frozenset("not never".split())
NOBODY = frozenset("nobody nothing none".split())

STATIC_PREPOSITIONS = frozenset(
    """in on at near beside behind under underneath beneath below above between among inside outside within amid
    atop against""".split()
) | {"next to", "in front of", "on top of", "close to", "to the left of", "to the right of", "in the middle of"}
PATH_PREPOSITIONS = frozenset(
    "to toward towards into onto through across over along around round past from off via after".split()
) | {"out of", "away from"}
PREPOSITIONS = STATIC_PREPOSITIONS | PATH_PREPOSITIONS | frozenset("of with without for like about by during".split())
LONG_PREPOSITIONS = tuple(sorted((item for item in PREPOSITIONS if " " in item), key=len, reverse=True))

DIRECTION_WORDS = frozenset("left right up down away forward forwards backward backwards apart back".split())
DIRECTION_SYNONYMS = {
    "leftward": "left", "leftwards": "left", "rightward": "right", "rightwards": "right",
    "upward": "up", "upwards": "up", "downward": "down", "downwards": "down",
}  # fmt: skip
SIDES = {"left": "left", "right": "right", "top": "up", "bottom": "down"}
ADVERBS = frozenset(
    """fast very too also again together still just slightly soon now there here clockwise anticlockwise
    counterclockwise once twice first finally suddenly almost simultaneously around away meanwhile""".split()
)
NOT_ADVERBS = frozenset(
    """fly butterfly dragonfly family lily jelly belly bully friendly ugly lovely lonely elderly curly woolly
    silly holly barfly firefly""".split()
)

LINKS = frozenset(", and then while as but when before after until whereas meanwhile so or".split())
"""Words that may open a new clause or another action of the same object."""
RELATIVES = frozenset("that who which".split())
PICTURE_NOUNS = frozenset(
    "image picture frame screen photo photograph video scene shot view clip canvas camera background".split()
)
"""Things that are never an object of the plan."""
MANNER_NOUNS = frozenset("circle circles place air wind half motion line unison sync rhythm reverse loop loops".split())
"""After "in": how something moves ("in circles"), not where."""
STILL_WORDS = frozenset("still motionless stationary static unmoving frozen idle".split())
SIZES = {
    "bigger": "grow", "larger": "grow", "big": "grow", "large": "grow", "smaller": "shrink", "small": "shrink"
}  # fmt: skip
