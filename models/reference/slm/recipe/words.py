# ruff: noqa: E501
"""Lexicons of the generator. `a = b = c` are synonyms: a statement uses one of them, a question often another."""

from __future__ import annotations


def _groups(text: str) -> list[tuple[str, ...]]:
    entries = text.replace("\n", " ").split(",")
    return [tuple(word.strip() for word in entry.split("=")) for entry in entries if entry.strip()]


def _words(text: str) -> list[str]:
    return [group[0] for group in _groups(text)]


# Places inside a venue, used with "the".
FACILITIES = _groups("""
café = coffee shop = coffee bar = cafeteria, restaurant = dining room, gift shop = shop = museum shop = store, ticket office = ticket desk = box office,
cloakroom = coat check, reading room, children's library = kids' library, study area, outdoor pool = open-air pool, indoor pool, teaching pool = learner pool,
children's pool = paddling pool, sauna, steam room, planetarium, clock tower = tower, crypt, orangery = palm house, playground = play area, petting zoo,
aquarium, boat house, bike hire station = cycle hire, tourist office = visitor centre = information centre, registry office, citizens' office = citizen service,
passport counter, waiting room = waiting area, left-luggage office = baggage storage, lost property office = lost and found, first-aid room = first aid post, pharmacy = chemist,
blood test clinic, X-ray department = radiology, eye clinic, maternity ward, emergency department = A&E = casualty, dental surgery, main gallery, sculpture garden,
rose garden, herb garden, butterfly house, penguin pool = penguin enclosure, reptile house, elephant house, monkey island, farm yard, insect house, aviary,
west wing, treasury, armoury, throne room, chapel, dungeon, rampart walk = castle walls, moat, bell tower, archive, photo archive, map room, lecture theatre = auditorium,
main stage, studio theatre, balcony, foyer bar = bar, rehearsal room, workshop = workshop room, makerspace, computer room = computer lab, music room, craft room, gym = fitness suite,
climbing wall, tennis court, ice rink, skate park, mini golf course, bowling alley, diving tower = diving board, water slide = slide, wave pool, whirlpool = hot tub,
tram depot, locomotive shed, signal box, model railway, car park = parking lot = parking, underground garage, bike shed = bicycle parking, platform lounge, business lounge,
observatory, telescope dome, weather station, wind tunnel, print shop, forge = smithy, bakery, brewery, wine cellar, dairy, greenhouse = glasshouse, arboretum, maze, deer park,
lighthouse, pier, harbour office, ferry terminal, cable car, funicular, mine shaft, show mine, cave, salt works, windmill, watermill, town hall = city hall, council chamber,
art school, language school, youth club = youth centre, senior centre, community kitchen, food bank, recycling centre = tip, swap shop, market hall, flea market, farmers' market,
roof terrace, viewing platform = lookout, courtyard, conference room = meeting room, ballroom, banquet hall, nursery, toy library, media library, record library, repair café,
canteen, ice cream kiosk = ice cream stand, snack bar = kiosk, beach hut, lido, spa, massage room, changing rooms, ladies' sauna, family room, quiet room, prayer room, press office
""")

# Things with a price per person or per use, used without an article.
TICKETS = _groups("""
day ticket = day pass, evening ticket, adult ticket, child ticket = children's ticket = ticket for a child, family ticket = family pass, student ticket, senior ticket, group ticket, annual pass = yearly pass,
season ticket, ten-visit card = punch card, combined ticket, short-stay ticket, night ticket, single ticket, return ticket, weekly pass = week ticket, library card = membership card, museum pass,
guided tour = tour, audio guide = audio tour, boat trip, pony ride, train ride, carriage ride, swimming lesson, aqua fitness class, yoga class, pottery course, first aid course,
locker = storage locker, towel = bath towel, bathrobe, sun lounger = deckchair, rowing boat, pedal boat, kayak, bicycle = bike, e-bike, pushchair = buggy = stroller, wheelchair, headset,
birthday party = children's birthday, photo permit, replacement card = new card, reservation, interlibrary loan, photocopy = copy, colour print, scan, parking space, camper pitch, tent pitch,
marriage certificate, birth certificate, residence certificate, passport = travel passport, identity card = ID card, parking permit = resident parking permit, dog licence, fishing licence, market stall,
programme booklet = programme, poster, guidebook, exhibition catalogue, hot lunch = lunch, set menu, coffee and cake, picnic basket, drinks voucher, popcorn, 3D glasses, climbing shoes, skates = ice skates, swim cap, armbands
""")

GROUPS = _groups("""
adults = grown-ups, children = kids = young visitors, children under 6 = kids under 6, children aged 4 to 14, under-16s, teenagers = young people, students, pupils = schoolchildren, pensioners = seniors = senior citizens,
people over 65 = over-65s, families, members = Friends of the museum, residents = local residents, visitors with a disability = disabled visitors, companions = carers, jobseekers = unemployed people, teachers, school classes = school groups,
groups of ten or more = larger groups, nurses, volunteers, apprentices, refugees, holders of the city card = city card holders, journalists = press, birthday children, toddlers = babies and toddlers, soldiers
""")

ITEMS = _groups("""
dogs = dog = pets, bicycles = bikes, pushchairs = buggies = prams, large bags = big bags = suitcases, rucksacks = backpacks, umbrellas, food and drink = snacks, hot drinks, glass bottles, alcohol, ice cream, chewing gum,
tripods, selfie sticks, flash = flash photography, drones, scooters, roller skates = inline skates, skateboards, balls = footballs, balloons, musical instruments, laptops, mobile phones = phones, cameras, video recording = filming, smoking = cigarettes, e-cigarettes = vaping,
wet clothes, outdoor shoes = street shoes, high heels, swim shorts, inflatable toys = inflatables, snorkels, radios = loud music, barbecues = grilling, camping stoves, fireworks, prams, knives, electric wheelchairs, picnic blankets = picnics, kites
""")

SERVICES = _groups("""
free Wi-Fi = wifi = wireless internet, baby-changing table = nappy-changing facilities = changing table, cash machine = ATM, drinking fountain = water fountain, lift = elevator, hearing loop = induction loop, sign language tour, charging point = charging station,
phone charging station, locker room = lockers, defibrillator = AED, accessible toilet = disabled toilet, first-aid kit, children's menu, vegetarian dish = vegetarian food, high chair, book drop = return box, self-service machine = self-checkout, photocopier = copier,
printer, microfilm reader, 3D printer, piano, hairdryer, swimsuit dryer, baby pool, picnic area = picnic tables, vending machine = snack machine, ticket machine = ticket vending machine, information desk = info point, taxi rank = taxi stand, bus stop, bike rack = cycle stands, coach bay = coach parking,
tactile model, large-print guide, Braille guide = Braille leaflet, magnifying glass, folding stool, wheelchair ramp = ramp, escalator, breastfeeding room = nursing room, dog kennel, ball pit, sandpit, splash pad, phone box, photo booth, post box = letter box, notice board
""")

TOILETS = _groups(
    "toilets = restrooms = bathroom = loo = WC, lockers, accessible toilet = disabled toilet, lift = elevator, main entrance = entrance, emergency exit, staircase, info desk = reception = information desk, cash desk = till"
)

EVENTS = _groups("""
guided tour, family tour, torchlight tour, night watchman tour, story time = storytelling, toddler group, book club = reading group, poetry evening, film night = film screening, organ recital, lunchtime concert, jazz evening, carol concert, puppet show,
matinee, premiere, opening night, open day, summer festival, winter market = Christmas market, harvest fair, plant sale, book sale, seal feeding = feeding of the seals, penguin feeding, lion talk, keeper talk, bird of prey show = falconry show, sheep shearing,
laser show, star show, fountain show, fireworks display, knights' tournament = jousting, archery lesson, candle making, pottery class, printing workshop, coding club, chess club, knitting circle, language café, homework help, aqua gym, water polo training, lane swimming, ladies' swim = women-only swimming,
family swim, disco on ice, council meeting, blood donation session, vaccination clinic, mother and baby clinic, antenatal class, first-aid course, legal advice session, tenants' advice, wedding fair, lecture, panel discussion, children's university, holiday camp, sleepover, treasure hunt, ghost walk, city walk, bat walk
""")

# Physical things that venues own and write about; used with "the" or a number.
THINGS = _words("""
steam engine, fire engine, tram car, paddle steamer, fishing boat, lifeboat, canoe, biplane, glider, hot-air balloon, motorcycle, carriage, sledge, cart, church bell, organ, harpsichord, violin, drum, flute, accordion, music box, gramophone, radio, telescope, microscope, globe, compass, sextant,
sundial, clock, pendulum, barometer, thermometer, printing press, loom, spinning wheel, sewing machine, plough, anvil, lathe, pump, turbine, boiler, windlass, crane, anchor, lantern, lamp, chandelier, candlestick, mirror, throne, crown, sceptre, sword, shield, helmet, suit of armour, cannon, catapult, crossbow,
tapestry, carpet, quilt, flag, banner, robe, gown, mask, puppet, doll, doll's house, rocking horse, chess set, coin, medal, stamp, seal, charter, letter, diary, manuscript, atlas, map, scroll, Bible, poster, painting, portrait, fresco, mural, mosaic, sculpture, statue, bust, fountain, obelisk, sarcophagus, mummy, urn, vase,
bowl, jug, teapot, goblet, plate, spoon, kettle, oven, barrel, chest, cupboard, desk, cradle, staircase, fireplace, tiled stove, ceiling, window, stained-glass window, door, gate, bridge, drawbridge, wall, tunnel, well, cistern, chimney, roof, dome, spire, weathercock, altar, pulpit, font, tomb, skeleton, skull, fossil, meteorite, crystal, gemstone,
shell, coral, butterfly, beetle, beehive, nest, egg, oak, lime tree, palm, cactus, orchid, rose, fern, vine, hedge, pond, waterfall, rock, dinosaur model, mammoth tusk, whale jaw, diorama, model ship, model village, relief map, wax figure, camera, projector, film reel, typewriter, telephone, telegraph, computer, robot, satellite, rocket,
space suit, pedal car, penny-farthing, bicycle, surfboard, ski, sled, football, trophy, jersey, net, oar, rope, sail, mast, figurehead, diving bell, submarine, torpedo, buoy, lock gate, water wheel, millstone, cheese press, butter churn, wine press, copper still, bread oven, salt pan, ladle, mould, kiln, potter's wheel, glass furnace
""")

ADJECTIVES = _words("""
old, new, small, large, great, golden, silver, copper, bronze, iron, wooden, marble, ivory, crystal, velvet, silk, red, blue, green, yellow, white, black, painted, carved, gilded, medieval, Roman, Gothic, baroque, Victorian, Egyptian, Norse, Celtic, Persian, Japanese, Chinese, Dutch, Flemish, royal, imperial,
famous, rare, original, unfinished, oldest, largest, smallest, heaviest, only surviving, stolen, broken, restored, hidden, forgotten, round, square, octagonal, tall, narrow, hollow, heavy, delicate, mechanical, electric, hand-made, floating, hanging, underground, northern, southern, eastern, western, upper, lower, inner, outer
""")

ANIMALS = _words("""
lion, tiger, snow leopard, lynx, wolf, brown bear, polar bear, red panda, giant panda, elephant, rhino, hippo, giraffe, zebra, okapi, camel, llama, alpaca, bison, moose, reindeer, goat, sheep, donkey, pony, pig, meerkat, otter, beaver, badger, seal, sea lion, walrus, dolphin, penguin, flamingo, pelican, stork, crane, owl,
eagle, vulture, falcon, parrot, toucan, ostrich, emu, peacock, tortoise, crocodile, alligator, iguana, chameleon, python, cobra, gecko, axolotl, frog, salamander, shark, ray, seahorse, octopus, jellyfish, piranha, clownfish, bat, sloth, anteater, armadillo, lemur, gorilla, chimpanzee, orangutan, gibbon, baboon, kangaroo, koala, wombat, bee, ant, tarantula
""")

FOODS = _words("""
soup of the day, pea soup, fish and chips, baked potatoes, lentil stew, apple cake, plum tart, carrot cake, waffles, pancakes, scones, cheese rolls, pretzels, fruit salad, vegan curry, pasta with pesto, pizza slices, sausages, smoked trout, herring rolls, hot chocolate, fresh coffee, herbal tea, lemonade, local cider, wheat beer, ice cream, milkshakes, oat biscuits, nuts, raisins, hay,
fresh fish, krill, squid, bamboo, eucalyptus leaves, mice, mealworms, crickets, carrots, lettuce, apples, beef, chicken, seaweed, honey, sunflower seeds, leaves, fruit and vegetables, herring, horse meat
""")

MATERIALS = _words(
    "oak, pine, beech, limestone, sandstone, granite, marble, brick, slate, copper, bronze, brass, iron, steel, lead, silver, gold, glass, crystal, porcelain, clay, wax, ivory, bone, leather, wool, silk, linen, cotton, paper, parchment, papyrus, cork, straw, bamboo, concrete, plaster, amber, jade, ebony"
)

CLOTHES = _words(
    "a warm jacket, sturdy shoes, swimwear, a swimming cap, flip-flops, a towel, rubber boots, a helmet, gloves, non-slip socks, old clothes, a sun hat, a raincoat, a life jacket, indoor shoes, a packed lunch, a water bottle, a torch, a pencil and paper, headphones, a photo ID, a valid passport, proof of address, a medical card, a referral letter, your insurance card, a birth certificate, a recent passport photo, your booking confirmation, a one-euro coin, a padlock, insect repellent, sun cream, a USB stick"
)

FIRST_NAMES = _words("""
Anna, Maria, Helen, Clara, Ida, Agnes, Elsa, Ruth, Marta, Greta, Frida, Olga, Nora, Iris, Judith, Laura, Sofia, Paula, Emma, Julia, Carla, Rosa, Alice, Edith, Margaret, Joan, Priya, Amina, Fatima, Yuki, Mei, Leila, Zeynep, Ingrid, Astrid, Karin, Birgit, Petra, Tanja, Vera, Irina, Katya, Lucia, Elena, Chiara, Giulia, Amelie, Claire, Manon, Zoe,
Peter, Paul, John, George, Henry, Otto, Karl, Max, Emil, Oskar, Hugo, Felix, Leon, Jonas, Lukas, Anton, Bruno, Erik, Lars, Nils, Olaf, Sven, Thomas, Martin, Daniel, Samuel, David, Tobias, Simon, Victor, Arthur, Walter, Albert, Frank, Robert, Edward, William, Ahmed, Omar, Hassan, Kofi, Kwame, Ravi, Arjun, Kenji, Hiroshi, Wei, Mehmet, Ivan, Pavel, Marek, Jan, Piet, Luca, Marco, Diego, Pablo, Andre
""")

LAST_NAMES = _words("""
Smith, Jones, Taylor, Brown, Walker, Hughes, Marsh, Holloway, Pemberton, Ashworth, Whitfield, Larkin, Doyle, Byrne, O'Neill, McGregor, Fraser, Campbell, Novak, Horvat, Kovacs, Nagy, Kowalski, Nowak, Petrov, Ivanova, Schmidt, Weber, Fischer, Keller, Brandt, Vogel, Lindner, Kessler, Baumann, Hoffmann, Sommer, Winkler, Jansen, de Vries, van Dijk, Bakker, Lindqvist, Bergström, Nielsen, Hansen, Dahl, Virtanen, Korhonen,
Rossi, Bianchi, Conti, Moretti, Garcia, Lopez, Romero, Navarro, Silva, Pereira, Costa, Dubois, Moreau, Laurent, Girard, Okafor, Mensah, Diallo, Haddad, Khan, Patel, Sharma, Rao, Tanaka, Sato, Chen, Liu, Wong, Kim, Nguyen, Yilmaz, Demir, Papadakis, Stavros, Ionescu, Popescu, Kaplan, Goldberg, Abrams, Rivera, Mendez
""")

PROFESSIONS = _words(
    "architect, sculptor, painter, engineer, clockmaker, organ builder, bishop, abbess, mayor, duke, countess, king, queen, merchant, shipowner, explorer, botanist, astronomer, physician, composer, poet, photographer, glassmaker, goldsmith, master builder, gardener, curator, head keeper, conductor, printer, miller, brewer, teacher, librarian, banker, general"
)

ROLES = _groups("""
director = head, curator, head librarian, head keeper, zoo vet = vet, press officer, education officer, volunteer coordinator, accessibility officer, lifeguard in charge, pool manager, head gardener, restaurant manager, archivist, station manager, mayor, registrar, ward sister, practice manager, box office manager, artistic director, stage manager, conservator, group bookings manager, youth librarian, data protection officer, security manager, head chef
""")

VENUE_KINDS = _words(
    "Museum, Maritime Museum, Railway Museum, Toy Museum, Museum of Science, Art Gallery, Zoo, Animal Park, City Library, Public Library, Swimming Pool, Leisure Centre, Lido, Castle, Palace, Abbey, Cathedral, Theatre, Opera House, Playhouse, Botanical Garden, Aquarium, Planetarium, Central Station, Ferry Port, Town Hall, Civic Centre, Health Centre, Clinic, Hospital, Cinema, Concert Hall, Community Centre, Youth Hostel, Adventure Park, Heritage Centre, Observatory, Mill, Mine, Farm Park, University Library, Ice Arena, Sports Centre, Campsite, Airport"
)

CITIES = _words(
    "Northport, Ashford, Brightwater, Kingsbury, Oldham, Lindau, Bremen, Ghent, Bruges, Delft, Utrecht, Lund, Bergen, Turku, Tartu, Riga, Gdansk, Lviv, Brno, Graz, Linz, Basel, Bern, Verona, Parma, Lucca, Sintra, Braga, Toledo, Granada, Lyon, Nantes, Bath, York, Durham, Galway, Cork, Perth, Boston, Salem, Portland, Kyoto, Nara, Cairo, Luxor, Vienna, Prague, Venice, London, Paris, Berlin, Rome, Antwerp, Hamburg, Dresden, Leipzig, Marseille, Lisbon, Athens, Istanbul"
)

COUNTRIES = _words(
    "Peru, Chile, Kenya, Madagascar, Namibia, Egypt, Morocco, India, Nepal, Japan, China, Thailand, Sumatra, Borneo, Australia, New Zealand, Canada, Norway, Iceland, Finland, Poland, Hungary, Italy, Greece, Spain, Portugal, France, Ireland, Scotland, Mexico, Brazil, Bolivia, Cuba, Ghana, Mali, Turkey, Iran, Siberia, Greenland"
)

STREETS = _words(
    "Mill, Church, Castle, Station, Harbour, Market, Bridge, King, Queen, Abbey, Garden, Park, Forest, Lake, River, School, Linden, Rose, Tower, North, South, West, East, Bishop, Baker, Weaver, Tanner, Fisher, Canal, Victoria, Albert, Wellington, Nelson, Goethe, Schiller, Mozart, Chestnut, Elm, Cherry, Orchard"
)
STREET_KINDS = _words("Street, Road, Lane, Square, Avenue, Row, Quay, Hill, Place, Gate, Terrace, Drive, Way")

LANGUAGES = _words(
    "English, German, French, Spanish, Italian, Dutch, Polish, Czech, Danish, Swedish, Turkish, Arabic, Japanese, Mandarin, Korean, Portuguese, Ukrainian, Russian, Hebrew, Welsh"
)
TOPICS = _words(
    "the Romans, medieval trade, the history of printing, shipbuilding, polar expeditions, the age of steam, local pottery, glass making, the salt trade, women in science, early photography, bird migration, bees and pollination, the night sky, volcanoes, dinosaurs, deep-sea life, climate change, modern design, Impressionism, folk costumes, toys of the 1950s, the town in wartime, silk weaving, coffee and tea, the story of chocolate, Vikings, pilgrims, monastery life, castles, football, comic art, robots, space travel, coral reefs, wolves, orchids, mushrooms"
)
COLOURS = _words("red, blue, green, yellow, orange, purple, white, black, grey, brown, pink, turquoise")
ORGS = _words(
    "the Friends of the Library, the City Council, the Heritage Trust, the National Lottery, the Rotary Club, the Savings Bank Foundation, the Ministry of Culture, the Tram Society, the Bird Protection League, the Red Cross, the University, the Port Authority, the Water Board, the Lions Club, the Theatre Guild, the Garden Society, the diocese, the county council, a private foundation, an anonymous donor"
)

VERBS = {  # base: (third person, past, participle), for clauses about arbitrary things
    v.split("/")[0].strip(): tuple(p.strip() for p in v.split("/"))
    for v in """restore/restores/restored/restored, paint/paints/painted/painted, build/builds/built/built, clean/cleans/cleaned/cleaned, polish/polishes/polished/polished, repair/repairs/repaired/repaired, buy/buys/bought/bought, sell/sells/sold/sold, find/finds/found/found, lose/loses/lost/lost,
    open/opens/opened/opened, close/closes/closed/closed, show/shows/showed/shown, exhibit/exhibits/exhibited/exhibited, lend/lends/lent/lent, borrow/borrows/borrowed/borrowed, return/returns/returned/returned, donate/donates/donated/donated, inspect/inspects/inspected/inspected, test/tests/tested/tested, move/moves/moved/moved,
    store/stores/stored/stored, guard/guards/guarded/guarded, wind/winds/wound/wound, ring/rings/rang/rung, light/lights/lit/lit, cast/casts/cast/cast, carve/carves/carved/carved, design/designs/designed/designed, draw/draws/drew/drawn, discover/discovers/discovered/discovered, steal/steals/stole/stolen, hide/hides/hid/hidden,
    photograph/photographs/photographed/photographed, measure/measures/measured/measured, weigh/weighs/weighed/weighed, copy/copies/copied/copied, replace/replaces/replaced/replaced, dismantle/dismantles/dismantled/dismantled, assemble/assembles/assembled/assembled, present/presents/presented/presented, unveil/unveils/unveiled/unveiled,
    feed/feeds/fed/fed, water/waters/watered/watered, plant/plants/planted/planted, prune/prunes/pruned/pruned, protect/protects/protected/protected, heat/heats/heated/heated, oil/oils/oiled/oiled, tune/tunes/tuned/tuned, play/plays/played/played, use/uses/used/used, rent/rents/rented/rented, order/orders/ordered/ordered, deliver/delivers/delivered/delivered,
    import/imports/imported/imported, collect/collects/collected/collected, catalogue/catalogues/catalogued/catalogued, describe/describes/described/described, insure/insures/insured/insured, finance/finances/financed/financed, name/names/named/named, bless/blesses/blessed/blessed, bury/buries/buried/buried, excavate/excavates/excavated/excavated, sink/sinks/sank/sunk,
    launch/launches/launched/launched, load/loads/loaded/loaded, unload/unloads/unloaded/unloaded, register/registers/registered/registered, renew/renews/renewed/renewed, cancel/cancels/cancelled/cancelled, book/books/booked/booked, check/checks/checked/checked, empty/empties/emptied/emptied, fill/fills/filled/filled, lower/lowers/lowered/lowered, raise/raises/raised/raised, lock/locks/locked/locked, unlock/unlocks/unlocked/unlocked, demonstrate/demonstrates/demonstrated/demonstrated, operate/operates/operated/operated, drive/drives/drove/driven, write/writes/wrote/written, print/prints/printed/printed, translate/translates/translated/translated, study/studies/studied/studied, crown/crowns/crowned/crowned, rescue/rescues/rescued/rescued, invent/invents/invented/invented, acquire/acquires/acquired/acquired""".split(
        ","
    )
}

VERB_SYNONYMS = {
    "buy": ("acquire",),
    "acquire": ("buy",),
    "find": ("discover",),
    "discover": ("find",),
    "show": ("exhibit", "present"),
    "exhibit": ("show",),
    "repair": ("restore",),
    "restore": ("repair",),
    "rent": ("hire",),
    "check": ("inspect",),
    "inspect": ("check",),
    "feed": (),
    "finance": ("pay for",),
    "donate": ("give",),
    "unveil": ("present",),
    "replace": ("change",),
}

UNITS = _words(
    "seats, books, visitors, beds, rooms, computers, lockers, desks, paintings, coins, photographs, maps, letters, members, volunteers, employees, animals, species, plants, trees, parking spaces, bicycles, boats, lanes, cabins, showers, changing cubicles, tables, chairs, shelves, magazines, newspapers, films, games, CDs, audio books, exhibits, display cases, drawers, stamps, fossils, butterflies, toys, dolls, trams, locomotives, carriages, platforms, counters, doctors, nurses, wards, operating theatres, spotlights, steps, windows, bells, organ pipes, mirrors, statues, swords, suits of armour, cannons, towers, fish, birds, snakes, children, students, guests, concerts, performances, workshops"
)
MEDIA = _groups(
    "books = novels, DVDs = films, CDs = music CDs, magazines = journals, board games = games, audio books, e-books, reference works, comics, picture books, video games = console games, sheet music, bestsellers, travel guides, tools, e-readers, paintings from the art library, telescopes, seeds, musical instruments, language courses, newspapers, maps, toys, cake tins, museum passes"
)
GEAR = _groups(
    "wheelchairs, folding stools = portable stools, pushchairs = buggies, hearing aids = headsets, umbrellas, binoculars, magnifying glasses, audio guides, tablets, walkers = rollators, baby carriers, life jackets, swimming aids = armbands, towels, padlocks, bicycles = bikes, helmets, hand carts = bollard carts, laptops, headphones, chargers = charging cables, blankets, torches, aprons, ear defenders, activity backpacks, explorer kits, sunshades, cushions, booster seats, microscopes, chess sets, table tennis bats, deckchairs, reading glasses"
)
GUIDES = _words(
    "audio guide, children's audio guide, app, museum app, brochure, leaflet, visitor guide, floor plan, tour, film, website, form, questionnaire, quiz trail, menu, announcement, introductory film, multimedia guide, safety video, programme"
)
ROUTES = _words(
    "short route, long route, family trail, nature trail, circular walk, rampart walk, discovery trail, quiz trail, highlights tour, history walk, fitness trail, barefoot path, treetop walk, lake walk, wheelchair route, children's trail, forest loop, ridge path, city wall walk, sculpture trail"
)
SHUTTLES = _words(
    "shuttle bus, ferry, cable car, park train, water taxi, night bus, funicular, miniature railway, rowing ferry, airport train, steam train, horse tram, boat to the island, chairlift, minibus, museum tram, river boat, last bus home, campus bus, hop-on bus"
)
OFFERS = _words(
    "children's birthday parties, school workshops, corporate events, weddings, private tours, company outings, team events, concerts in the garden, overnight stays, family weekends, photo shoots, film screenings, holiday courses, wine tastings, murder mystery dinners, film nights, teacher training days, seminars, banquets, exhibition openings, pony camps, stag parties, baby swimming courses, retirement parties"
)
DOINGS = _groups("""
buy tickets = get tickets = purchase tickets, collect reserved tickets = pick up reserved tickets, return books = give back books = bring back books, renew a library card, register = sign up, report a lost item = report something lost, store luggage = leave luggage, leave coats, hire a bike = rent a bike, hire skates = rent skates,
book a tour = reserve a tour, book a table = reserve a table, join a tour, apply for a passport, register a birth, register a car, change your address = report a change of address, pick up a prescription = collect a prescription, have blood taken = get a blood test, see a doctor, get vaccinated = have a vaccination, cancel an appointment = call off an appointment,
print documents = make prints, make copies = photocopy, use the internet = go online, charge a phone, change a baby = change nappies, warm up baby food = heat baby food, buy souvenirs = get souvenirs, have lunch = eat lunch, eat a packed lunch, fill a water bottle = refill a bottle, get change = change money, pay a fine, pay for parking, complain = make a complaint, leave feedback,
park a bike = leave a bike, charge an electric car, catch the bus = get the bus, call a taxi, feed the goats, pet the rabbits, watch the seals, hire a locker, dry your hair, take a shower, swim lengths, borrow a wheelchair, get an audio guide, hear a concert, buy a programme, collect a parcel, renew a passport, vote early, hand in a form = submit a form, ask for a quote, become a member = join as a member, adopt an animal, donate money = make a donation, volunteer, apply for a job,
order food, reserve seats, exchange a ticket = swap a ticket, upgrade a ticket, book a room = hire a room, get a parking permit, propose to buy a book = suggest a book, use a computer, read newspapers, play board games, study in peace, print photos, try on costumes, see the treasure, climb the tower, enter the garden, watch the film, touch the exhibits, plan a school visit, celebrate a birthday, send a postcard
""")

INTRANSITIVES = {
    v.split("/")[0].strip(): tuple(p.strip() for p in v.split("/"))
    for v in "arrive/arrives/arrived, depart/departs/departed, start/starts/started, end/ends/ended, return/returns/returned, work/works/worked, live/lives/lived, sleep/sleeps/slept, meet/meets/met, sing/sings/sang, perform/performs/performed, rehearse/rehearses/rehearsed, appear/appears/appeared, wait/waits/waited, rest/rests/rested, hatch/hatches/hatched, bloom/blooms/bloomed, freeze/freezes/froze, collapse/collapses/collapsed, burn/burns/burned, stop/stops/stopped, turn/turns/turned, rotate/rotates/rotated, move/moves/moved, train/trains/trained, lecture/lectures/lectured, dance/dances/danced, vanish/vanishes/vanished, speak/speaks/spoke, play/plays/played".split(
        ","
    )
}

ATTRIBUTES = {  # what can be said of a thing -> the kind of its value
    "weight": "measure",
    "height": "length",
    "width": "length",
    "price": "big",
    "value": "big",
    "colour": "colour",
    "name": "first",
    "owner": "person",
    "maker": "person",
    "inventor": "person",
    "designer": "person",
    "keeper": "person",
    "guardian": "role",
    "number": "num",
    "catalogue number": "code",
    "serial number": "code",
    "password": "code",
    "code": "code",
    "material": "material",
    "origin": "country",
    "birthplace": "city",
    "hometown": "city",
    "language": "language",
    "theme": "topic",
    "subject": "topic",
    "motto": "title",
    "title": "title",
    "nickname": "first",
    "sponsor": "org",
    "donor": "org",
    "lender": "org",
    "capacity": "many",
    "age": "period",
    "lifespan": "period",
    "rental period": "period",
    "lead time": "period",
    "running time": "duration",
    "length": "measure",
    "depth": "measure",
    "speed": "measure",
    "temperature": "temp",
    "rent": "price",
    "deposit": "price",
    "fare": "price",
    "fee": "price",
    "size": "measure",
    "departure": "time",
    "start": "time",
    "deadline": "date",
    "date": "date",
    "launch": "moment",
    "location": "placename",
    "entrance": "placename",
    "contact": "email",
    "hotline": "phone",
    "website": "web",
    "share": "percent",
    "favourite food": "food",
}
PARTS = _words(
    "legs, wheels, windows, doors, floors, pages, keys, strings, pipes, buttons, drawers, panels, figures, arches, rooms, steps, seats, engines, gears, holes, handles, stones, tiles, leaves, petals, teeth, feathers, eggs, horns, sails, oars, cannons, masts, bells, levels, chapters, chambers, colours, stars, feet, arms, blades, lamps, bulbs, candles"
)

DEEDS = {  # what visitors do to things: base -> gerund
    pair.split("/")[0].strip(): pair.split("/")[1].strip()
    for pair in """rent/renting, hire/hiring, borrow/borrowing, buy/buying, return/returning, use/using, book/booking, touch/touching, feed/feeding, visit/visiting, photograph/photographing, film/filming, climb/climbing, charge/charging, print/printing, copy/copying, order/ordering, renew/renewing, cancel/cancelling,
    change/changing, wash/washing, store/storing, leave/leaving, bring/bringing, carry/carrying, wear/wearing, ride/riding, push/pushing, open/opening, try/trying, see/seeing, watch/watching, join/joining, paint/painting, sell/selling, repair/repairing, replace/replacing, lose/losing, clean/cleaning, share/sharing, collect/collecting,
    register/registering, apply for/applying for, sign up for/signing up for, reserve/reserving, exchange/exchanging, upgrade/upgrading, throw away/throwing away, hand in/handing in, pick up/picking up, drop off/dropping off, fill in/filling in, pay for/paying for, look at/looking at, walk around/walking around, take part in/taking part in, sit on/sitting on, play with/playing with, ask for/asking for, plan/planning, translate/translating, adopt/adopting, donate/donating, move/moving, lift/lifting""".split(
        ","
    )
}
EVERYDAY = _words("""
key, wristband, book, film, coat, bag, bottle, phone, camera, ball, towel, chair, table, bench, tray, basket, trolley, map, leaflet, poster, postcard, pencil, form, letter, certificate, permit, photo, passport, badge, voucher, receipt, invoice, sandwich, cake, pizza, salad, soup, coffee, tea, juice, lamp, fan, heater, blanket, pillow, mattress, tent, caravan, boat, canoe, raft, surfboard, wetsuit, helmet, glove, boot, sledge, ski, skate, racket, net, bow, arrow, horse, pony, donkey, goat, rabbit, duck, hen, fish, rope, ladder, hammer, saw, drill, sewing machine, printer, scanner, laptop, tablet, headset, microphone, piano, guitar, drum, violin, costume, wig, mask, hat, scarf, umbrella, pram, cot, high chair, nappy, toy, puzzle, board game, card game, console, telescope, microscope, globe, magazine, newspaper, dictionary, audio book, seat, box, stall, room, hall, kitchen, shower, locker, shelf, drawer, window, curtain, door, gate, plant, tree, flower, seedling, tool, spade, rake, wheelbarrow, hose, grill, fire pit, picnic table, deckchair, parasol, lilo, armband, stamp, coin, medal, painting, frame, statue, candle, bell, clock, exhibit, model, robot, drone, kite, bike, scooter, e-bike, car, van, trailer, coach, platform, course, class, workshop, lecture, excursion, party, wedding, show, concert, screening, walk, tour, exam, test, appointment, treatment, X-ray, injection, bandage, prescription
""")
SAYINGS = _words(
    "you will be asked to wait, the alarm goes off, the deposit is not returned, a guard will come, you get a free coffee, we will call you back, you have to start again, the door stays shut, your card is blocked, you lose your place, we send you a reminder, your seat is given away, a lifeguard will help you, you are put on a waiting list, the fee is doubled, you get a stamp, you receive a badge, we keep it at the desk, it is sent by post, the machine returns your coin, the session goes on without you, an attendant opens the gate, you may stay as long as you like, the guide waits for you, it has to be reported to the office"
)
