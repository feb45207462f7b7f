"""What the tickets of resources/demo/tickets.py are put together from. All brands and model names are invented."""

# Product class -> its model names, from the one that is sold most to the one that hardly anybody has. They tell
# nothing about the class, and no slip of the keyboard makes one of them another class's.
MODELS = {
    "laptop": "Antares Toucan Quasar Mistral Cardamom Panther Polka Orion Sirius Volga Ravenna Gazelle",
    "phone": "Magpie Ketch Gavotte Brigantine Maple Sonata Orinoco Danube Sloop Gypsum Comet Mekong",
    "printer": "Juniper Bolero Badger Toledo Rowan Khamsin Pampero Hawthorn Monsoon Loire Condor Paprika",
    "router": "Tartu Galleon Indus Cirrus Severn Rondo Malmo Marten Bittern Lucerne Falcon Aurora",
    "tablet": "Mizar Sorrel Cordoba Pumice Castor Sirocco Zambezi Waltz Dunlin Bramble Burdock Meteor",
    "monitor": "Cygnus Heron Polaris Nimbus Nocturne Cumin Capella Anise Toccata Willow Clipper Granite",
    "headset": "Tansy Bison Stoat Rhone Caraway Rigel Cypress Fugue Acacia Wombat Clover Frigate",
    "speaker": "Thistle Madrigal Sequoia Petrel Cedar Pulsar Weasel Pollux Siena Merlin Larch Deneb",
    "watch": "Rumba Marble Stratus Yarrow Tango Tagus Topaz Zenith Hazel Ocelot Lugano Basalt",
    "camera": "Verona Turku Blizzard Beaver Kestrel Eclipse Zephyr Phoenix Nebula Nettle Aspen Chinook",
    "projector": "Scherzo Altair Saffron Otter Draco Osprey Gdansk Quartz Minuet Schooner Tempest Cantata",
    "thermostat": "Linden Siskin Ganges Cumulus Gannet Bergen Mazurka Yukon Plover Fennel Meerkat Corsair",
}
NAMES = {product: names.split() for product, names in MODELS.items()}
BRANDS = ("Norvik", "Halden", "Tessaro", "Ombra")
VERSIONS = ("2", "3", "7", "14", "200", "X", "Pro", "Plus", "Mini", "SE")

# What people call it who do not know its name.
CALLED = {
    "laptop": ("the thing I type on in the train", "my lappy", "the clamshell I carry to lectures", "my laptop"),
    "phone": ("my mobile", "the thing I ring my mother with", "my cell", "my phone"),
    "printer": ("what puts our invoices on paper", "the paper eater in the hall", "our printer"),
    "router": ("the wifi box", "the box that gets the whole house online", "our router"),
    "tablet": ("the slate the kids draw on", "the big glass slab from the sofa", "my tablet"),
    "monitor": ("the wide thing behind my keyboard", "the big panel my desktop is wired to", "my monitor"),
    "headset": ("what I wear over my ears", "my earpiece with the little mike", "my headset"),
    "speaker": ("the music box in the kitchen", "what plays our party songs", "our speaker"),
    "watch": ("the thing on my wrist", "my step counter with the strap", "my watch"),
    "camera": ("what I take wedding pictures with", "the one I take portraits with", "my camera"),
    "projector": ("what throws slides at the wall", "the beamer", "our projector"),
    "thermostat": ("the dial that sets the heating", "what keeps our rooms at 20 degrees", "our thermostat"),
}

# Issue -> products that cannot have it, or have it in another sense.
LACKS = {
    "battery": "printer router monitor projector thermostat",
    "charging": "printer router monitor projector thermostat",
    "screen": "printer router headset speaker projector",
    "overheating": "thermostat",
    "noise": "phone tablet headset speaker watch",
    "connection": "monitor",
    "crashing": "monitor",
    "slowness": "monitor headset speaker",
    "login": "monitor headset speaker camera projector printer",
    "sound": "printer router watch camera thermostat",
}
NOUNS = {
    "battery": "battery",
    "charging": "charger",
    "screen": "display",
    "overheating": "temperature",
    "noise": "fan",
    "connection": "wifi",
    "crashing": "software",
    "slowness": "speed",
    "login": "password",
    "sound": "volume",
}

# Issue -> for which products ("" = all that can have it; "-x": all but x) -> what it does.
DOES: dict[str, dict[str, tuple[str, ...]]] = {
    "battery": {
        "": (
            "is flat by lunchtime although I fill it up every night",
            "lasts an hour at most away from the socket",
            "dies the moment I unplug it",
            "goes from half full to empty in minutes",
            "wants the cable three times a day",
            "only stays on while it hangs on the cable",
            "does not get through a shift on one filling",
            "is empty again before I get home",
        )
    },
    "charging": {
        "": (
            "takes nothing from the cable any more",
            "stays at three percent all night on the plug",
            "will not fill up, whichever cable I take",
            "shows no lightning sign when I plug it in",
            "only fills up if I hold the plug at an angle",
            "says plugged in, but the number never climbs",
            "is as empty after a night on the cable as before",
            "has such a loose socket that nothing goes in",
        )
    },
    "screen": {
        "": (
            "shows green stripes from top to bottom",
            "stays black although I hear it start",
            "flickers like an old film",
            "has a patch in one corner where nothing is shown",
            "is too dim to read even at full brightness",
            "shows everything in pink",
            "has cracks like a spider web across the glass",
            "went white and I cannot read a thing on it",
        ),
        "phone tablet watch thermostat": ("ignores my finger in the lower half",),
    },
    "overheating": {
        "": (
            "could fry an egg after ten minutes",
            "is like an oven after ten minutes",
            "tells me to let it cool down and goes off",
            "works in the cold only and gives up in a warm room",
            "has to lie in the fridge before it works again",
            "is so warm that nobody wants to touch it",
        ),
        "laptop tablet": ("roasts my legs on the sofa",),
        "headset": ("makes my ears glow",),
    },
    "noise": {
        "": (
            "rattles as if a coin were inside",
            "whines so high that the dog runs away",
            "clicks all night",
            "makes a grinding racket",
            "hums so loudly that nobody can think",
            "squeaks like an old door",
        ),
        "laptop printer projector router": ("roars like a hairdryer", "reminds me of a coffee mill when it runs"),
    },
    "connection": {
        "-router": (
            "falls off the wifi every few minutes",
            "does not find our network",
            "says offline although all the rest is online",
            "does not show up when other things look for it",
        ),
        "laptop phone tablet watch headset speaker camera": ("loses its pairing again and again",),
        "phone tablet watch": ("has no bars, wherever I stand",),
        "router": (
            "gives us nothing upstairs",
            "blinks red and no page opens on anything",
            "throws all of us offline at noon",
            "loses the line whenever it rains",
            "is on, but no one in the house gets online",
        ),
    },
    "crashing": {
        "": (
            "restarts by itself in the middle of everything",
            "freezes and reacts to nothing",
            "hangs on the logo",
            "boots over and over in a loop",
            "throws me out and forgets what I did",
            "falls over whenever I press start",
            "quits with an error code",
        )
    },
    "slowness": {
        "": (
            "takes a quarter of an hour to start",
            "crawls like a snail",
            "lags seconds behind whatever I press",
            "takes an eternity for the simplest thing",
            "lets me make coffee between two steps",
        ),
        "laptop phone tablet": ("needs a minute for every click", "opens a mail in the time I could write one"),
        "router": ("lets pages trickle in like in the nineties",),
        "printer": ("needs ten minutes for one page",),
    },
    "login": {
        "": (
            "rejects my code although I know it is right",
            "has locked me out",
            "keeps asking who I am and never believes me",
            "will not let me into my account",
            "forgot my profile and refuses the PIN",
            "wants a secret word that nobody here remembers",
        ),
        "phone tablet laptop": ("does not know my face any more", "no longer takes my fingerprint"),
    },
    "sound": {
        "": (
            "is mute on the left side",
            "plays everything as if under water",
            "gives no tone even when turned all the way up",
            "crackles when there is music",
            "has gone silent although the rest works",
            "makes every voice sound like a robot",
        ),
        "phone headset laptop tablet": ("lets nobody hear me when I speak",),
    },
}

# A beginning that several issues share -> what follows decides which of them it is.
SHARED: dict[str, dict[str, tuple[str, ...]]] = {
    "goes dark after ten minutes": {
        "battery": ("unless it hangs on the cable", "and is empty by then"),
        "screen": ("although I still hear it running", "while it goes on working unseen"),
        "overheating": ("and is too hot to touch by then", "until I have let it cool"),
        "crashing": ("and then boots from the logo again", "and leaves an error code"),
    },
    "lets me down after an hour": {
        "battery": ("being empty again", "if I am away from the socket"),
        "overheating": ("when it is as hot as an oven", "unless I cool it"),
        "slowness": ("when every step takes minutes", "when it has become a snail"),
        "login": ("when it asks for my code and refuses it", "when it no longer believes I am me"),
        "sound": ("when all I hear is crackling", "when it falls silent but goes on running"),
        "crashing": ("when it freezes", "when it restarts by itself"),
    },
    "makes us wait every morning": {
        "slowness": ("as it needs ages to start", "for each and every step"),
        "login": ("as it does not believe our code", "as it has forgotten who we are"),
        "charging": ("as nothing went in overnight from the cable", "as it has not filled up on the plug"),
        "crashing": ("as it hangs on the logo", "as it boots three times over"),
    },
    "drives the whole office mad": {
        "noise": ("with its rattling", "as it whines all day"),
        "crashing": ("by restarting all day", "as it freezes all the time"),
        "sound": ("as it distorts every word", "as one hears nothing from it"),
        "slowness": ("as everything takes forever on it", "with its snail's pace"),
    },
    "is no use outdoors": {
        "battery": ("as it is empty after minutes off the cable", "as there is no socket to keep it alive"),
        "screen": ("as one cannot read it in daylight", "as nothing can be seen on it in the sun"),
        "overheating": ("as it gets hot and gives up in the sun", "as it has to be kept cool"),
    },
    "is no good in my new flat": {
        "connection": ("as it does not join the network here", "as it stays offline here"),
        "login": ("as it rejects my old code", "as it does not let me in any more"),
        "noise": ("as its rattling goes through the walls", "as it squeaks and wakes the baby"),
        "screen": ("as one cannot read it in so much light", "as it got a crack across the glass"),
    },
}

URGENCY = {
    "high": (
        "We lose money every hour.",
        "Customers are standing in a queue because of it.",
        "I cannot work at all.",
        "This cannot wait.",
        "Do not tell me it can wait.",
        "I need it back tonight.",
        "The whole ward depends on it.",
        "Our shop stays closed until it runs.",
        "I fly in three hours and need it.",
        "Last time there was no rush, this time there is.",
        "Every minute counts.",
        "The exam starts tomorrow morning.",
        "We are at a standstill.",
    ),
    "medium": (
        "Some time this week would be good.",
        "Please look at it in the next few days.",
        "By the end of the week would be fine.",
        "I can manage for a few days, not longer.",
        "Not tonight, but within the week, please.",
        "It cannot wait until next month, but a few days it can.",
        "No need to run, but I want it this week.",
        "Two or three days are all right.",
    ),
    "low": (
        "It can wait.",
        "No rush at all.",
        "Whenever you get round to it.",
        "I have a spare one, so take your time.",
        "I only need it again next season.",
        "I just wanted you to know.",
        "My boss calls everything urgent, but this is not.",
        "I am away for two months anyway.",
        "Next month is early enough.",
        "Put me at the end of the queue.",
    ),
}
# Danger is high, however calm the customer is.
DANGER = ("It gave me an electric shock", "I saw sparks", "A bit of smoke came out", "My son got a shock from it")
CALM = (", but it can wait", ", but no rush", ", anyway, take your time", "")

# Mentions of something that is not meant. {other}: a product of another class; {noun}: an issue that it is not.
LEADS = (
    "our {other} is fine, but",
    "it is not the {other} this time:",
    "it is not the {noun}:",
    "I thought it was the {noun}, but no:",
    "the {other} is all right again, but now",
    "next to the {other},",
)
FOLLOWS = (
    "The {other} works.",
    "The {noun} is fine.",
    "I use it with a {other}.",
    "My ticket about the {other} is another matter.",
)
DATED = (
    "I bought it on {day}.",
    "Your colleague looked at the {other} on {day}.",
    "The warranty ends on {day}.",
    "My mail of {day} was about the {other}.",
    "Your answer of {day} was about the {noun}.",
)
GREETINGS = ("Hi!", "Hello!", "Dear team!", "Good morning!")
FEASTS = {
    "New Year's Day": (1, 1),
    "Valentine's Day": (14, 2),
    "April Fools' Day": (1, 4),
    "May Day": (1, 5),
    "Halloween": (31, 10),
    "Christmas Eve": (24, 12),
    "Christmas Day": (25, 12),
    "New Year's Eve": (31, 12),
}
EVENTS = ("the delivery", "the power cut", "the last update", "your visit", "the storm")
MONTHS, WEEKDAYS, COUNTS, ORDINALS = (
    words.split()
    for words in (
        "January February March April May June July August September October November December",
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "two three four five six seven eight nine ten",
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third "
        "twenty-fourth twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first",
    )
)
