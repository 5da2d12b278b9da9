"""Values of training: now and then one of a pool, mostly a word that is invented on the spot.

Pools are small. A model that sees each of their words hundreds of times learns them by heart and writes the nearest one
where it should copy, so in training few values come often. They look like everything: blends of the pool's own words,
syllables that nobody has heard, compounds of English words, and plain words that no pool has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from random import Random

from examples.order_mail import chatter, notation, phrases, pools
from examples.order_mail.pools import part, words

INVENTED = 0.7
"""The share of training's values that are invented."""

SHORTEST, LONGEST = 3, 13

ONSETS = words("""
b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kn kr l m n p ph pl pr qu r s sc sh sk sl sm sn sp st str sv sw t th tr
tw v vl w wh y z
""")
VOWELS = words("a a a a e e e e i i i o o o u u ai au ea ee ei ia ie io oa oo ou ue y")
CODAS = words("""
b ck d dge ff g k l ld lf lk ll lm lt m mp n nd ng nk nn nt p r rd rk rl rm rn rs rt s sk ss st t tch th tt v x z
""")
ACCENTS = {"a": "áäåà", "e": "éèëê", "i": "íïî", "o": "óöøô", "u": "úüù", "n": "ñ", "c": "ç"}

PIECES = words("""
acorn alder almond amber anchor angle ankle anvil apple arbor arch arrow aspen atlas attic autumn axle badge badger
baker balm banner barge bark barn barrel basin bay bead beacon bear beaver bell bend berry bishop bison blade blaze
blossom boar bold bolt bone boot borough boulder brave bream brick bridle bright brim broad brook broom buck buckle
bud bull burrow bush butter button cabin cable calm camel camp canal cane cape card cargo carp carrot carve chain
chalk charm chart chase chess chime chip cider cinder circle cliff cloak cloud clove coach coal coast cobalt cobble
comet compass coral cot cove crab cradle crane creek crest cricket crisp crow crystal cub cypress dagger daisy dale
dapple dart dawn deep deer dell denim dew diamond dipper dolphin dove dragon drake drum duck dusk dust eagle ebony
echo edge elder elk elm ember emerald fable falcon farm fawn feather fen fern fiddle field fig finch fir flag flame
flax fleet flint flower flute fog folk forge fort fox frost gable gale gate gem ginger glacier glade glen globe glory
gold goose grain grape grass gravel grouse grove guild gull hail hammer hare harp harvest haven hawk hay hazel heath
heather hedge helm herb hero heron hide hollow honey hood horn horse hound hunt island ivory ivy jade jet jewel
journey keel keen key king kite knight knot lamb lance land larch lark lattice lava lawn leaf ledge lemon level lever
light lilac lily lime lion lock lodge loft log loom lotus lynx mallow mallet mane mango marlin marsh mast mead
meridian merlin mermaid merry mesa meteor mint mist mole moon moor moss moth mountain mule musk myrtle nail nectar
needle nest nettle nickel noble nomad north nut oar oasis oat ocean olive onyx opal orbit orchid osprey otter owl ox
oyster paddle palace palm panther patch path peach peacock pear pearl pebble pelican pepper petal pewter pheasant
pigeon pike pilgrim pilot pipe plain planet plum plume pocket pole pond poppy post powder prairie prism puffin quail
quartz quill quince rabbit radish rain ram ranch raven reed reef ribbon rich ridge ring rivet robin rock rocket root
rope rover row ruby rush rust sable saddle saffron sage sail salmon salt sand sapphire satin scarlet sea seal seed
shade shadow sharp shell shield ship shore sickle signal silver sky sleigh smith smoke snow solar spade spark sparrow
spear spice spider spindle spire spruce spur squire stag star stern still storm stork strand straw stream strong
summer sun swallow swan swift sword tail tangle tan tartan tea temper thatch thimble thistle thorn thrush thunder tide
tiger timber tin toad topaz torch town trail trellis trout trumpet trunk tulip tundra turf turner turnip turtle twig
twine umber valiant vault vine violet walker wall wander ward warm wave wax weaver west wharf wheat wheel whistle
white wild wind wing wolf wonder wood wren yarn yarrow yew zephyr zinc zigzag
""")
MORE = words("""
aaron adam adams ahmed alexander ali allen amanda amsterdam amy anderson andrew angela anna ashley athens atlanta
auckland austin bag bailey ball balloon baltimore banana barbara bath bed bench benjamin berlin betty bike boat boston
brandon bread brenda brian bristol brooks brush brussels bryant budapest butler cairo cake cambridge camera campbell
cap car carbon cardiff carlos carol carolyn cart carter case charles charlotte chest chicago christine clark cleveland
cloth coat coin coleman collins cologne comb concrete cook cooper copenhagen cover cox cup cynthia dallas daniela
david davis deborah delhi denver detroit disk doll donald donna door douglas dress drill dublin edinburgh edward
edwards elizabeth emily emma engine eric evans fabric fan fence flask fleece florence fork frank frankfurt fridge fur
game garcia garment gary geneva glasgow glove gonzalez gray gregory griffin grill guitar hamburg harris hat hayes
heater helmet helsinki hemp henderson henry hernandez hose houston howard hussein jack jacket jackson jacob jakarta
james janet jason jeffrey jenkins jennifer jessica john johnson jones jorge jose joseph juan jug juice justin karen
katherine kathleen kelly kenneth kevin keyboard kim knife label ladle lagos laminate laptop larry latex laura lead
leeds lewis lid linda lisbon liu liverpool loaf london lopez madrid magnet manchester manila margaret maria mark
martinez mary mask matthew medal melbourne melissa memphis mesh metal meter miami michael michelle miguel milan miller
mitchell mixer mohair monitor montreal moore morgan motor mouse mud mumbai munich murphy nairobi nancy naples
nashville nelson nguyen nicole nora notebook oakum olivia orlando osaka oslo oven oxford pablo paint pamela paris
parker patricia patterson pedro pen pencil perez perry perth peterson philadelphia phillips phoenix piano picture pin
pittsburgh plank plaster platinum plug plywood polyester portland pot powell prague price printer pump purse puzzle
rachel radio ramirez raymond razor resin ricardo richard richardson richmond robe roberts robinson rod rodriguez
rogers roller rome ronald ross russell ryan sack samantha sanchez sandal sanders sandra sandstone scale scarf scissor
scott seattle seoul sharon shelf shirt shoe shovel simmons sink skate soap socket sponge stamp stapler stephanie
stephen steven stewart stockholm stove strap string suede suit susan sweater switch sydney tablet tampa tank tape
taylor tent thermos thompson thread timothy tire titanium toaster tokyo tool toothbrush toronto torres toy tube turin
tweed tyler umbrella valve vancouver venice vest vienna vinyl violin wallet wang warsaw washington watch watson whisk
william williams wilson window wire wrench wright yang york young zachary zhang zipper zurich
""")
"""Names, cities and goods that no pool has."""
TAILS = words("""
able age by croft den er ery ette ex ey field ford ham hurst ia ian ic ick ine ing ington ish ite land let ley lin ling
lock low man mere mond mont more ney ock over ridge sen sett shaw son stead ster stock stone thorpe ton vale ville ward
well wick win wood worth yard
""")

CITY_HEADS = words("New Port Fort Santa San Saint Lake Mount North South East West Upper Lower Old Little Great Bad")
CITY_TAILS = words("Springs Heights Bay Beach Hills Wells City Cross Point Grove")
STREET_TAILS = words("weg straat gatan vägen gasse allee plein laan stieg ring platz gata veien katu kade steig dijk")

UNFIT = re.compile("(?:[sxzofiu]|fe|ch|sh|man|[^aeiou]y)$")
"""What a word ends in that takes no plain `s`, or might not."""

DATES = tuple(form.lower() for name in [*notation.MONTHS, *notation.WEEKDAYS] for form in (name, name[:3]))
"""No invented word ends in one: a number behind it would make it a date."""

Invent = Callable[[Sequence[str], Random], str]


def draw(pool: Sequence[str], invent: Invent, random: Random, held_out: bool) -> str:
    """A value: of those of the pool that are held out, or else one that training sees or that is invented."""
    values = part(pool, held_out)
    if held_out or random.random() >= INVENTED:
        return random.choice(values)
    return invent(values, random)


def invent_name(values: Sequence[str], random: Random) -> str:
    """A word with a capital letter, now and then with an accent."""
    while True:
        word = invent_word(values, random)
        places = [place for place, letter in enumerate(word) if letter in ACCENTS]
        if places and random.random() < 0.08:
            place = random.choice(places)
            word = word[:place] + random.choice(ACCENTS[word[place]]) + word[place + 1 :]
        if word not in TAKEN:
            return word.capitalize()


def invent_brand(values: Sequence[str], random: Random) -> str:
    """A word with a capital letter."""
    return invent_word(values, random).capitalize()


def invent_city(values: Sequence[str], random: Random) -> str:
    """A name, of two words now and then."""
    name = invent_name(values, random)
    if random.random() < 0.15:
        return random.choice([f"{random.choice(CITY_HEADS)} {name}", f"{name} {random.choice(CITY_TAILS)}"])
    return name


def invent_street(values: Sequence[str], random: Random) -> str:
    """A name that ends, unless it is long, as streets on the continent do."""
    while True:
        name = invent_name(values, random)
        street = name + random.choice(STREET_TAILS) if len(name) < 9 else name
        if street.lower() not in TAKEN:
            return street


def invent_noun(values: Sequence[str], random: Random) -> str:
    """A lower-case word that takes a plain `s`."""
    while True:
        word = invent_word(values, random)
        if not UNFIT.search(word):
            return word


def invent_word(values: Sequence[str], random: Random) -> str:
    """A lower-case word that no pool and no phrase has and that is no part of a date."""
    while True:
        (way,) = random.choices([_blend, _syllables, _compound, _plain], [3, 2, 4, 2])
        word = way(values, random)
        if SHORTEST <= len(word) <= LONGEST and not word.endswith(DATES) and not {word, word + "s"} & TAKEN:
            return word


def _blend(values: Sequence[str], random: Random) -> str:
    """The head of a value and another one's tail, or a word's; a vowel on one side of the seam where that can be."""
    head = random.choice(random.choice(values).lower().split())
    tail = random.choice(random.choice(random.choice([values, PIECES])).lower().split())
    head = head[: random.choice(_seams(head))]
    tails = [tail[place:] for place in _seams(tail)]
    return head + random.choice([tail for tail in tails if _is_vowel(tail[0]) != _is_vowel(head[-1])] or tails)


def _seams(word: str) -> list[int]:
    """Where a word can be cut: between vowels and consonants."""
    vowels = [_is_vowel(letter) for letter in word]
    return [place for place in range(2, len(word) - 1) if vowels[place - 1] != vowels[place]] or [len(word) // 2]


def _is_vowel(letter: str) -> bool:
    return letter in "aeiouyáäåèéëíóöøúü"


def _syllables(values: Sequence[str], random: Random) -> str:
    """One to four syllables, open or closed."""
    (count,) = random.choices([1, 2, 3, 4], [2, 6, 4, 1])
    return "".join(
        (random.choice(ONSETS) if random.random() < 0.9 else "")
        + random.choice(VOWELS)
        + (random.choice(CODAS) if random.random() < (0.6 if last else 0.3) else "")
        for last in [False] * (count - 1) + [True]
    )


def _compound(values: Sequence[str], random: Random) -> str:
    """An English word and another one, or an ending."""
    return random.choice(PIECES) + random.choice(random.choice([PIECES, TAILS]))


def _plain(values: Sequence[str], random: Random) -> str:
    """An English word, or a name or city."""
    return random.choice(random.choice([PIECES, MORE]))


def _texts(module: object) -> Iterable[str]:
    """All strings in the lists of a module."""
    for value in vars(module).values():
        if isinstance(value, list | tuple | dict):
            yield from (entry for entry in value if isinstance(entry, str))


TAKEN = frozenset(
    word
    for module in (pools, phrases, chatter, notation)
    for text in [*_texts(module), *chatter.MISSPELT.values()]
    for word in re.findall(r"[^\W\d_]+", text.lower())
)
"""Words that mails have anyway: as values, in phrases, in notations, or misspelt."""
