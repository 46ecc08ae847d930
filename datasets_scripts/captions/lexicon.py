"""The English words by which [`counted_noun`] judges whether a number in a caption counts visible objects."""

from typing import Literal


CountReason = Literal[
    "counts",
    "abstract",
    "group",
    "measure",
    "name",
    "no_noun",
    "not_plural",
    "number",
    "ordinal",
    "place",
    "time",
    "title",
    "vague",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# --- plural nouns of which no image shows single objects ------------------------------------------------

_TIME = _words(
    """
    afternoons ages anniversaries autumns birthdays centuries days decades eras evenings fortnights hours
    milliseconds minutes moments months mornings nights occasions periods quarters seconds semesters springs
    summers terms times weekends weeknights weeks winters years yrs
    """
)
_MEASURE = _words(
    """
    acres amps bits bucks bytes calories carats centimeters centimetres cents degrees dollars euros feet gallons
    gigabytes grams hectares inches karats kilograms kilometers kilometres kilos knots lbs liters litres megabytes
    megapixels meters metres miles millimeters millimetres ounces pence percent pesos pints pounds quarts rupees
    tablespoons teaspoons tonnes tons volts watts yards
    """
)
_SCORE = _words(
    """
    aces assists birdies bogeys defeats draws fouls games goals homers innings interceptions kills laps losses
    matches outs penalties points rebounds rounds runs saves shutouts strikeouts strikes titles touchdowns tries
    turnovers victories votes wickets wins
    """
)
_GROUP = _words(
    """
    academies armies bunches categories classes clubs collections colors colours columns combinations companies
    crews crowds families fleets flocks genders generations groups halves herds hundreds kinds layers lines lots
    organisations organizations packs pairs parties races rows sections sequences series sets sexes sides sizes
    sorts species squads styles teams tiers tribes types units varieties
    """
)
_PLACE = _words(
    """
    accommodations apartments areas bathrooms baths bedrooms cities communities condos continents corners counties
    countries destinations districts flats floors homesites interiors islands kingdoms kitchens koreas lakes
    locations lodges neighborhoods neighbourhoods oceans parishes parks places planets properties provinces regions
    resorts rivers rooms seas sites spots states storeys suites territories towns universes venues villages wards
    worlds zones
    """
)
_ABSTRACT = _words(
    """
    abilities accidents accolades accounts achievements actions activities acts adaptations advantages adventures
    affairs agencies agreements albums alternatives analyses angles answers appearances applications approaches
    apps arguments arrests articles aspects assaults assignments associations attacks attempts attractions
    attributes auditions awards basics battles beliefs benefits bids bills blasts brands breaks briefs businesses
    campaigns careers cases causes challenges championships chances changes chapters characteristics charges
    charities cheers choices chords clauses clues codes commandments comments competitions components compounds
    concentrations concepts concerns concerts conditions conferences conflicts considerations contexts contracts
    convictions corporations counts courses crimes crises criteria cultures cycles databases deals deaths debates
    decisions deeds demands departments designs developments dimensions directions disasters disciplines
    discoveries discussions diseases disorders dreams duties editions effects efforts elections elements emotions
    endings energies entries episodes equations errors essays events examples exams exercises expansions
    experiences experiments explanations expressions extremes facets facials factors facts failings failures faiths
    faults favorites favourites fears features feelings festivals fights films finals findings firms flavors
    flavours fonts forces formats forms formulas fragrances freedoms frequencies functions gigs governments grades
    grants guesses guidelines habits headaches highlights hints hits holidays homages hopes hypotheses ideas
    identities ideologies impacts incidents industries influences ingredients initiatives injuries innovations
    inspirations installments institutions interpretations interviews inventions investigations investments issues
    items jobs jokes journeys joys keywords killings languages laws lectures lessons levels lies lifestyles limits
    lives looks loves manicures markets massages matters meals meanings measures mechanisms meetings memories
    mentions messages methods mindsets ministries missions mistakes mixtapes modes moods motives movements moves
    movies murders musicals mysteries myths names nations necessities needs networks nominations novels objectives
    offers operations opinions opportunities options outcomes packages parameters partnerships parts passions paths
    pedicures performances personalities perspectives phases philosophies phrases plans plays plots poems policies
    politics positions possibilities powers practices predictions preferences premieres presentations principles
    printables priorities prizes problems procedures processes productions programmes programs projects promises
    proposals purposes qualities quartets questions quotes rankings rates ratings reactions realities reasons
    recipes recommendations records reforms relations relationships releases religions remedies reports requests
    requirements resolutions resources responses restaurants results reviews riddles rights risks roles romances
    routes routines rules sales scenarios scenes schedules schemes scholarships schools secrets sectors senses
    sentences services sessions settings shootings shows sins situations skills solos solutions sonatas songs souls
    sources specials speeches spells spinoffs sports stages standards starts statements steps stories strategies
    strengths structures studies subjects substances suggestions surprises symphonies symptoms systems tactics
    takes tales tasks tastes techniques technologies temperaments temptations tendencies tests texts themes
    theories therapies things thoughts threats tips tones topics tournaments tours trades traditions traits
    transactions translations treatments trends trials tricks trilogies trips truths tutorials updates uses values
    variables variants variations versions views violations virtues visions visits voices volumes voyages wars ways
    weaknesses weddings wishes wonders words workouts workshops
    """
)
NOT_SEEN: dict[str, CountReason] = {
    **dict.fromkeys(_ABSTRACT, "abstract"),
    **dict.fromkeys(_PLACE, "place"),
    **dict.fromkeys(_GROUP, "group"),
    **dict.fromkeys(_MEASURE | _SCORE, "measure"),
    **dict.fromkeys(_TIME, "time"),
}
# Of these, some are objects after a word that is not one of the next: "parking meters", "bare feet".
SEEN_IF_DESCRIBED = _words("bits cases feet meters metres pounds yards")
MEASURING_ADJECTIVES = _words("big cubic extra fluid full long more short square straight whole")

# --- forms of words -------------------------------------------------------------------------------

IRREGULAR_PLURALS = _words(
    """
    aircraft antennae bikinis bison cacti cattle children corgis deer dice elk emojis fish folk fungi geese kiwis
    men mice moose nuclei oxen people persons rabbis salmon sheep shrimp skis squid taxis teeth trout women yogis
    zebra zucchinis
    """
)
PLURAL_ENDINGS = ("inis", "men", "children", "people", "fish", "sheep", "folk", "mice", "geese", "craft")
NO_PLURALS = _words(
    """
    abdomen acumen always athletics bitumen canvas chaos christmas cyclamen economics gas goes hymen indoors james
    lens mathematics minecraft mrs ms news omen outdoors overseas paris perhaps physics politics regimen says
    selfish semen specimen starfish texas towards upwards was witchcraft yemen yes
    """
)
NO_PLURAL_ENDINGS = ("ss", "us", "is", "'s", "’s")
# Nouns that captions often leave in the singular: "two woman", "three dog".
COUNTED_IN_SINGULAR = _words(
    """
    apple baby bear bike bird book bottle boy buffalo bunny businessman businesswoman car cat chair child claus cow
    cup dish dog doll egg elephant female flower friend giraffe girl guy horse kid kitten lady lion male man monkey
    person puppy rabbit santa soldier student toilet tourist tree tv woman worker
    """
)
# With one of these a number describes an object: "a two piece suit", "five star hotels".
MEASURING_SINGULARS = _words(
    """
    acre arm axel axis axle band bath bathroom bay bed bedroom bit blade bulb burner button carat card channel
    character cm color colour coloured column component core course cup cycle day deck digit dimensional disc disk
    door dozen drawer eyed faced faucet floor fold foot gallon game gang generation gram half hand handed handle
    head headed hole hour hundred inch kg lane layer leg legged letter level line liter litre man mile million
    minute ml mm month night ounce oz pack page pan panel part party pc person phase piece pint ply pocket point
    port position pound quart quarter ring room seam season seat seater section set shade shelf side sided sigma
    speed spoke stage star step stone storey storied story strand string stroke tier tiered time tone toned tool
    track unit volume way week wheel wheeled wheeler word yard year zone
    """
)
NUMBERS = _words(
    """
    billion dozen eight eighteen eighty eleven fifteen fifth fifths fifty five forty four fourteen fourths half
    halves hundred million millions nine nineteen ninety one percent quarter quarters seven seventeen seventy six
    sixteen sixth sixths sixty ten tenth tenths third thirds thirteen thirty thousand three trillion twelve twenty
    two zero
    """
)
# Plurals that describe what follows: "sports cars".
DESCRIBING_PLURALS = _words("communications graphics sales sports")
# After one of these a word in s is a verb with a mistake in it ("two girls sits"), not the rest of a compound.
LIVING_PLURALS = _words(
    """
    babies boys brothers cats children dogs friends girls kids men people sisters women
    """
)
# Of these, some belong to the noun when it follows at once: "three color cards", but "three color steel barrels".
NAMING_SINGULARS = _words("band bar card color colour game head room side stone")
# After a noun in s or in place of one, these are verbs: "a set of two chairs offers", "a family of three poses".
VERBS = _words(
    """
    attempts enjoys features gathers hits holds looks makes needs offers plans poses rests runs shows sits smiles
    stands takes talks tries visits walks watches wears works
    """
)
BASE_VERBS = _words("drink eat enjoy hold look play pose ride run sit smile stand study talk walk work")
# Adjectives that commas part: "two large, tusked elephants".
ADJECTIVES = _words(
    """
    adorable amazing attractive beautiful big black blonde blue bright brown charming cheerful cozy cute different
    dirty elegant fit fluffy fresh friendly funny furry gorgeous gray great green grey handsome happy healthy heavy
    huge large little long lovely modern narrow new nice old orange pink plump pretty purple red round shiny short
    sleek slim small smiling soft strong sweet tall tanned tiny white wild yellow young
    """
)

# --- words around the number ----------------------------------------------------------------------

# The noun of a number stands before one of these.
ENDS_PHRASE = _words(
    """
    a about above across after against ago all along alongside also am amid among an any are around as at atop away
    be because been before behind being below beneath beside between beyond both but by can could did do down
    during each either every for from had has have he her here him his how i if in inside into is it its itself
    just like may me might must my near next no nor not of off on once onto or our out outside over per plus she
    should since so than that the their them then there these they this those through throughout till to together
    too toward towards under underneath until up upon versus via vs was we were what when where which while who
    whom whose why will with within without would you your
    """
)
# Words that image libraries add to a description.
STOCK_WORDS = _words("royalty stock stockfoto stockvideo")
# "Book Two", "week two", "BBC Two": which one, not how many.
ORDINAL_BEFORE = _words(
    """
    act annex apartment appendix article bbc book cd channel chapter class cycle day disc disk division dvd episode
    exhibit fig figure formula game grade group high issue lap leg lesson level lot mark match module no nr number
    page part period phase plate point quarter rainbow round rule scene season section sector semester series
    session stage step super take tattoo tome unit ver version vol volume wave week year zone
    """
)
DETERMINERS = _words("all her his its my our the their these those your")
SETS = _words("box bundle giftpack lot pack pair set")
# "A portrait of Two Sisters" shows two sisters; another name in the middle of a sentence does not count.
IMAGES = _words(
    """
    drawing group illustration image painting pair photo photograph image portrait print set vector
    """
)
# Where one of these is near, a capitalised number is in a title.
MEDIA = _words(
    """
    album audiobook blu-ray bluray cd dvd ebook edition episode film gamecube hardcover isbn kindle lyrics mixtape
    movie mp3 nintendo novel paperback playstation ps3 ps4 season soundtrack textbook trailer trilogy xbox
    """
)
# "Two Eagles Golf Course", "Three Dogs Brewery".
BUSINESS = _words(
    """
    avenue band bar blend brewery brewing bridge cafe church club co company course creek farm farms golf grill
    hotel inc inn island lake lane llc lodge ltd mountain park pizza ranch records region resort restaurant ridge
    river road school springs street studio studios tour trail vineyard vineyards winery
    """
)
# "Three Stooges", "Four Seasons".
KNOWN_NAMES = _words(
    """
    amigos degrees flags horsemen kingdoms musketeers seasons stooges thrones
    """
)
