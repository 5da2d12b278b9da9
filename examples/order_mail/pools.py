"""Values that orders are drawn from. Every fourth of a pool is held out: training never sees it.

Most values of training are of no pool at all: see `inventing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

FOURTH = 4


def words(text: str) -> list[str]:
    """What stands between spaces and line ends."""
    return text.split()


def entries(text: str) -> list[str]:
    """What stands between bars and line ends."""
    return [entry for line in text.strip().splitlines() for entry in line.strip("|").split("|")]


def part(pool: Sequence[T], held_out: bool) -> list[T]:
    """The part of a pool that training sees, or the part that it does not."""
    return [value for place, value in enumerate(pool, start=1) if (place % FOURTH == 0) == held_out]


FIRST_NAMES = words("""
Marta Oliver Priya Jonas Amelia Tariq Ingrid Felix Nadia Samuel Yuki Bruno Leila Victor Hannah Diego Mei Patrick Sofia
Anton Grace Rashid Clara Hugo Aisha Martin Elena Kofi Judith Stefan Noor Gabriel Tessa Ivan Ruth Mateo Freya Omar Lucy
Erik Zara Daniel Paula Kenji Maud Simon Layla Tomas Vera Isaac Bianca Rohan Alice Niels Carmen Adrian Sana Peter Linnea
Marcus Fatima George Irene Luca Naomi Henrik Rosa Malik Edith Pavel Joanna Axel Divya Thomas Greta Julian Amara Robert
Helen Mikael Selma Andre Wanda Kamal Beatrix Colin Esther Ravi Monica Jasper Olga Dennis Thea Salim Flora Nathan Ulrike
Cedric Anjali Walter Miriam Emil Tamara Gustav Rebecca Idris Viola Leon Sarah Magnus Dora Akira Lena Francis Zoë René
""")

LAST_NAMES = words("""
Lindqvist Okafor Banerjee Weber Castillo Haddad Nilsen Moreau Petrov Ashford Tanaka Ferreira Karimi Novak Whitfield
Romero Chen Gallagher Rossi Volkov Bennett Mahmoud Schreiber Dubois Rahman Kowalski Marino Mensah Brandt Horvat Aziz
Fischer Langley Sokolov Abrams Vargas Holm Farouk Prescott Dahl Sheikh Morris Santos Ito Barlow Keller Nasser Dvorak
Winter Adler Costa Mehta Thornton Jansen Navarro Popescu Siddiqui Hughes Berg Reyes Hassan Sinclair Costas Ricci Baker
Madsen Vidal Diallo Fletcher Cernik Lambert Olsson Iyer Harding Vogel Pinto Eze Carver Meyer Salazar Bashir Doyle
Kraus Sandoval Gupta Hartley Larsen Delgado Osei Pearson Huber Bianchi Chopra Redford Visser Molina Ivanov Stone Koch
Fuentes Yilmaz Barrett Lund Herrera Shah Dalton Becker Paredes Tran Wallis Ekström Quintero Malik Foster Roth Muñoz
""")

COMPANY_WORDS = words("""
Brightwell Northgate Silverline Oakmont Harborview Redstone Clearwater Fairmont Ironbridge Greenfield Bluepeak Westbrook
Sunfield Kingsway Larkspur Stonegate Ridgeway Meadowlark Crestline Foxglove Thornbury Eastwick Goldcrest Maplewood
Copperfield Windmere Ashgrove Lakeside Ravenhill Starling Millbrook Highpoint Summerset Blackthorn Riverton Whitehall
Elmstead Brookhaven Falconer Hazelwood Moorland Pinecrest Quarrystone Seaview Tidewater Underhill Valebrook Wharfside
Amberly Birchwood Cloverdale Driftwood Everglen Flintlock Glenhaven Heathrow Juniper Kestrel Longmeadow Nightingale
""")
COMPANY_ENDS = entries("Ltd|Inc|Group|Studio|Partners|Catering|Interiors|Supplies|Hotels|Logistics|& Sons|Workshop")

MATERIALS = words("""
walnut brass oak linen steel cotton copper bamboo glass leather marble pine ceramic wool rubber canvas cork velvet slate
plastic birch granite wicker nylon aluminium silk maple clay bronze felt cedar enamel iron paper teak foam beech jute
porcelain acrylic
""")
COLOURS = words("blue grey white red green black yellow brown orange purple pink beige")
NOUNS = words("""
desk hook board lamp bracket chair tray cushion bowl hinge table basket mug curtain stool hanger planter kettle
drawer blanket towel handle frame mat bucket screen rack plate napkin cabinet vase panel pillow jar tile folder bin
candle ladder sofa clock apron pan ruler trolley binder funnel spoon coaster mirror rug teapot divider crate ramp
lantern easel bottle doorstop platter
""")
"""All of them take a plain `s`."""

STREET_WORDS = words("""
Mill Church Station Orchard Victoria Bridge Garden Castle Willow Market Chapel Forest River Maple Abbey Park Queen
Meadow Harbour School Cherry Tower Linden Canal Spring Temple Cedar Union Prospect Hill Rose Garrison Beech Monument
Walnut Priory Valley Ferry Laurel Windsor Quarry Hawthorn Crown Summit Tannery Juniper Lake Chestnut
""")
STREET_ENDS = words("Street Lane Road Avenue Court Way Drive Close")
STREETS_BEFORE_NUMBERS = words("""
Lindenweg Hafenstraat Bergvägen Gartenweg Kerkstraat Schulweg Storgatan Waldweg Molenstraat Birkenweg Brunnenweg
Dorpsstraat Kungsgatan Marktweg Rosenweg Parkgatan
""")
"""Written before their numbers: `Lindenweg 14`."""

CITIES = entries("""
Harrow|Lindau|Port Ellis|Ashby|Marlow|Vester|New Haven|Calder|Brighton|Tilburg|Oakridge|Salem|Lund|Fort Wayne|Denton
Hastings|Arnhem|Kingston|Elmira|Mainz|Dover|Santa Rosa|Bergen|Norwood|Leiden|Whitby|Graz|Fairview|Exeter|Uppsala|Madison
Porto Verde|Cork|Ghent|Ludlow|Halden|Trenton|Selby|Bremen|Eastport|Turku|Kendal|Aurora|Linz|Camden|Malvern|Ystad
Grand Falls|Reading|Utrecht|Concord|Stirling|Passau|Westfield|Odense|Truro|Newark|Zwolle|Lake Placid|Bangor|Salzburg
Milford|Hamar|Derby
""")

MAIL_DOMAINS = words("""
mailhub postbox quickmail inkwell letterbox northmail daybreak homenet bluebird workdesk openfield cityline fastpost
greenmail hillside papertrail
""")
