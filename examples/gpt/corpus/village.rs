//! Who lives in the village, what they have, and how the year goes: the facts that stay the same in every piece.
//!
//! Knows words and their agreement (numbers, plurals, articles), no sentences longer than a clause.

use super::Random;

/// Someone of the village.
pub struct Person {
    pub name: &'static str,
    pub trade: &'static str,
    /// he or she
    pub who: &'static str,
    /// him or her
    pub whom: &'static str,
    /// his or her
    pub whose: &'static str,
    /// Where the person works, with its preposition.
    pub place: &'static str,
    pub tool: &'static str,
    pub pet: &'static str,
    pub pet_name: &'static str,
    pub colour: &'static str,
    /// What the person does all day, in the third person.
    pub work: &'static str,
    pub food: &'static str,
}

macro_rules! people {
    ($($name:literal $trade:literal $who:literal $whom:literal $whose:literal $place:literal $tool:literal
       $pet:literal $pet_name:literal $colour:literal $work:literal $food:literal;)*) => {
        pub static PEOPLE: &[&Person] = &[$(&Person {
            name: $name, trade: $trade, who: $who, whom: $whom, whose: $whose, place: $place, tool: $tool,
            pet: $pet, pet_name: $pet_name, colour: $colour, work: $work, food: $food,
        }),*];
    };
}

people! {
    "Anna" "baker" "she" "her" "her" "in the bakery" "long spoon" "cat" "Pip" "red" "bakes the bread" "warm bread";
    "Tom" "fisher" "he" "him" "his" "in the harbour" "old net" "dog" "Salt" "blue" "catches the fish" "fried fish";
    "Mira" "smith" "she" "her" "her" "at the forge" "heavy hammer" "goat" "Ember" "black" "mends the iron" "bean soup";
    "Otto" "miller" "he" "him" "his" "in the mill" "broad shovel" "donkey" "Dusty" "white" "grinds the grain"
        "apple cake";
    "Lena" "teacher" "she" "her" "her" "in the school" "thick book" "owl" "Comma" "yellow" "reads to the children"
        "plum jam";
    "Jon" "carpenter" "he" "him" "his" "in the workshop" "sharp saw" "hen" "Nail" "brown" "builds the chairs"
        "potato pie";
    "Ruth" "gardener" "she" "her" "her" "in the garden" "small spade" "rabbit" "Clover" "green" "grows the beans"
        "carrot stew";
    "Ben" "keeper" "he" "him" "his" "in the lighthouse" "brass lamp" "gull" "Wick" "silver" "lights the lamp"
        "honey tea";
}

/// A season and what it brings.
pub struct Season {
    pub name: &'static str,
    pub adjectives: &'static [&'static str],
    /// Whole clauses, to follow "and" or to begin a sentence.
    pub skies: &'static [&'static str],
}

pub static SEASONS: &[&Season] = &[
    &Season {
        name: "spring",
        adjectives: &["mild", "fresh", "bright"],
        skies: &[
            "soft rain fell on the fields",
            "the apple trees were in bloom",
            "the first bees were out",
            "the brook ran fast and clear",
        ],
    },
    &Season {
        name: "summer",
        adjectives: &["warm", "hot", "golden"],
        skies: &[
            "the sun stood high over the bay",
            "the sea was as flat as a plate",
            "the hay smelled sweet",
            "not a cloud was in the sky",
        ],
    },
    &Season {
        name: "autumn",
        adjectives: &["grey", "windy", "misty"],
        skies: &[
            "the leaves blew down the lane",
            "fog lay over the harbour",
            "the wind came from the west",
            "the barns were full of grain",
        ],
    },
    &Season {
        name: "winter",
        adjectives: &["cold", "dark", "quiet"],
        skies: &[
            "snow lay on the roofs",
            "the pond was frozen hard",
            "smoke rose from every house",
            "the stars were sharp and near",
        ],
    },
];

/// Something that can be lost, found and asked for.
pub struct Thing {
    pub name: &'static str,
    pub plural: &'static str,
}

macro_rules! things {
    ($($name:literal $plural:literal,)*) => {
        pub static THINGS: &[&Thing] = &[$(&Thing { name: $name, plural: $plural }),*];
    };
}

things! {
    "lamp" "lamps", "key" "keys", "basket" "baskets", "kettle" "kettles", "rope" "ropes", "spoon" "spoons",
    "coat" "coats", "ladder" "ladders", "bucket" "buckets", "knife" "knives", "bell" "bells", "letter" "letters",
    "apple" "apples", "egg" "eggs", "candle" "candles", "blanket" "blankets", "boot" "boots", "pear" "pears",
    "onion" "onions", "brush" "brushes",
}

/// Where a thing may be.
pub static SPOTS: &[&str] = &[
    "on the shelf",
    "under the bed",
    "behind the door",
    "by the window",
    "in the cellar",
    "on the table",
    "beside the well",
    "under the stairs",
    "in the old chest",
    "near the stove",
];

/// A trouble, who ends it, and how.
pub struct Trouble {
    /// What is wrong, after "found that".
    pub what: &'static str,
    /// The trade of the one who helps.
    pub helper: &'static str,
    /// What the helper does, in the past tense.
    pub help: &'static str,
    /// How it is afterwards, as a sentence without its full stop.
    pub after: &'static str,
}

macro_rules! troubles {
    ($($what:literal $helper:literal $help:literal $after:literal;)*) => {
        pub static TROUBLES: &[&Trouble] =
            &[$(&Trouble { what: $what, helper: $helper, help: $help, after: $after }),*];
    };
}

troubles! {
    "the chair had a broken leg" "carpenter" "cut a new leg and fixed it with two nails"
        "The chair stood as firm as a rock";
    "the door would not close" "carpenter" "planed the wood until it fitted" "The door closed without a sound";
    "the knife was dull" "smith" "ground the blade on the wheel" "The knife could cut a hair";
    "the kettle had a hole" "smith" "closed the hole with a drop of iron" "The kettle sang on the stove again";
    "there was no bread for the guests" "baker" "put six loaves into the oven" "The whole house smelled of bread";
    "the cake had burned" "baker" "mixed flour, eggs and honey for another" "The new cake was light and sweet";
    "the boat was gone from the pier" "fisher" "rowed out and brought it back on a rope"
        "The boat lay safe at the pier";
    "there was nothing left for supper" "fisher" "came with nine small fish in a bucket" "There was fish for everyone";
    "the sack of flour was empty" "miller" "filled it to the brim" "There was enough flour for a month";
    "the mice had found the grain" "miller" "hung the sacks high under the roof" "The mice went away hungry";
    "nobody could read the old letter" "teacher" "read it slowly, word by word" "At last they knew what it said";
    "the children had lost count of the sheep" "teacher" "counted them twice, in pairs"
        "There were twelve, and not one was missing";
    "the beans were dry and brown" "gardener" "carried water from the well all evening"
        "In the morning the beans were green";
    "the snails had eaten the cabbage" "gardener" "put ashes around every plant" "The next cabbage grew round and big";
    "the path was too dark to walk" "keeper" "turned the great light toward the hill" "The path lay bright as day";
    "a ship was near the rocks" "keeper" "rang the bell and lit the lamp" "The ship turned in time";
}

static NUMBERS: &[&str] =
    &["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];

/// `n` as a word, up to twelve.
pub fn number(n: usize) -> &'static str {
    NUMBERS[n]
}

/// A number with its thing: "one egg", "three eggs".
pub fn some(n: usize, thing: &Thing) -> String {
    format!("{} {}", number(n), if n == 1 { thing.name } else { thing.plural })
}

/// A word with its article: "a lamp", "an egg".
pub fn a(word: &str) -> String {
    let article = if word.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {word}")
}

/// The same with a capital first letter.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|c| c.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// The village as something to draw words from.
pub struct Words {
    pub random: Random,
}

impl Words {
    pub fn new(random: Random) -> Self {
        Words { random }
    }

    pub fn person(&mut self) -> &'static Person {
        self.random.pick(PEOPLE)
    }

    /// Someone else than `other`.
    pub fn another(&mut self, other: &Person) -> &'static Person {
        loop {
            let person = self.person();
            if person.name != other.name {
                return person;
            }
        }
    }

    pub fn season(&mut self) -> &'static Season {
        self.random.pick(SEASONS)
    }

    pub fn thing(&mut self) -> &'static Thing {
        self.random.pick(THINGS)
    }

    pub fn spot(&mut self) -> &'static str {
        self.random.pick(SPOTS)
    }

    /// A place other than `spot`.
    pub fn another_spot(&mut self, spot: &str) -> &'static str {
        loop {
            let other = self.spot();
            if other != spot {
                return other;
            }
        }
    }

    /// A trouble that `person` cannot end alone.
    pub fn trouble(&mut self, person: &Person) -> (&'static Trouble, &'static Person) {
        loop {
            let trouble = self.random.pick(TROUBLES);
            if let Some(helper) = PEOPLE.iter().find(|p| p.trade == trouble.helper && p.name != person.name) {
                return (trouble, helper);
            }
        }
    }

    pub fn pick(&mut self, from: &[&'static str]) -> &'static str {
        self.random.pick(from)
    }
}
