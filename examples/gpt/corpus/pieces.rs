//! Prose about the village: tales, letters, the keeper's log, and how things are done.

use super::village::{PEOPLE, Person, Season, Words, a, capital, number, some};

/// A tale in three short paragraphs: a day begins, something is wrong, somebody helps.
pub fn tale(words: &mut Words) -> String {
    let hero = words.person();
    let season = words.season();
    let mut text = opening(words, hero, season);
    text.push('\n');
    text.push_str(&match words.random.below(3) {
        0 => lost(words, hero),
        _ => trouble(words, hero),
    });
    text.push('\n');
    text.push_str(&ending(words, hero, season));
    text
}

fn opening(words: &mut Words, hero: &Person, season: &Season) -> String {
    let Person { name, trade, who, whose, place, pet, pet_name, work, food, .. } = hero;
    let adjective = words.pick(season.adjectives);
    let sky = words.pick(season.skies);
    let hour = words.pick(&["morning", "day", "evening"]);
    let full = format!("{name} the {trade}");
    // Who was named in the first sentence is "he" or "she" in the second.
    let (first, subject) = match words.random.below(3) {
        0 => (format!("It was {} {hour} in {}, and {sky}.", a(adjective), season.name), full),
        1 => (format!("One {adjective} {hour} in {}, {full} sat {place}.", season.name), capital(who)),
        _ => (format!("{} had come, and {sky}.", capital(season.name)), full),
    };
    let second = match words.random.below(5) {
        0 => format!("{subject} had {} called {pet_name}.", a(pet)),
        1 => format!("{name} is the one who {work}, and {who} likes nothing more than {food}."),
        2 => format!("{subject} was hard at work, and {pet_name} the {pet} slept by the stove."),
        3 => format!("{subject} put on {whose} {} coat and went out with {pet_name} the {pet}.", hero.colour),
        _ => format!("{subject} took {whose} {} and began to work.", hero.tool),
    };
    format!("{first} {second}")
}

fn lost(words: &mut Words, hero: &Person) -> String {
    let Person { name, who, whose, pet, pet_name, .. } = hero;
    let friend = words.another(hero);
    let thing = words.thing().name;
    let wrong = words.spot();
    let right = words.another_spot(wrong);
    let look = match words.random.below(3) {
        0 => format!("But where was the {thing}? {name} looked {wrong}, but it was not there."),
        1 => format!("Then {who} missed {whose} {thing}. It was not {wrong}, where it belonged."),
        _ => format!("\"I have lost my {thing},\" said {name} to {}. \"It was {wrong} last night.\"", friend.name),
    };
    let found = match words.random.below(3) {
        0 => format!("{} came to help, and soon they found the {thing} {right}.", friend.name),
        1 => format!("{} the {} said: \"Look {right}!\" And there it was.", friend.name, friend.trade),
        _ => format!("In the end it was {pet_name} the {pet} who found it {right}."),
    };
    format!("{look} {found}")
}

fn trouble(words: &mut Words, hero: &Person) -> String {
    let Person { name, who, .. } = hero;
    let (trouble, helper) = words.trouble(hero);
    let what = trouble.what;
    let first = match words.random.below(3) {
        0 => format!("At noon {name} saw that {what}."),
        1 => format!("Then {who} found that {what}."),
        _ => format!("\"Oh no,\" said {name}, for {what}."),
    };
    let second = match words.random.below(3) {
        0 => format!("So {who} went to {} the {}.", helper.name, helper.trade),
        1 => format!("\"Ask {} the {},\" said the neighbours.", helper.name, helper.trade),
        _ => format!("Luckily {} the {} came by with {} {}.", helper.name, helper.trade, helper.whose, helper.tool),
    };
    format!("{first} {second} {} {}. {}.", capital(helper.who), trouble.help, trouble.after)
}

fn ending(words: &mut Words, hero: &Person, season: &Season) -> String {
    let Person { name, who, food, .. } = hero;
    let friend = words.another(hero);
    let first = match words.random.below(4) {
        0 => format!("{name} said thank you and gave {} a plate of {food}.", friend.name),
        1 => format!("In the evening {name} and {} ate {food} by the fire.", friend.name),
        2 => format!("That night {name} told it all to {}, and both of them laughed.", friend.name),
        _ => format!("When it was done, {who} sang a song about the {}.", words.pick(&["sea", "moon", "wind", "hill"])),
    };
    let moral = words.pick(&[
        "A good friend is better than a full purse.",
        "What is lost today is found tomorrow.",
        "Many hands make a short day.",
        "Who asks the way does not get lost.",
        "A small light is enough in a dark room.",
    ]);
    match words.random.below(3) {
        0 => format!("{first} {moral}"),
        1 => format!("{first} Outside {}.", words.pick(season.skies)),
        _ => first,
    }
}

/// A letter from one to another.
pub fn letter(words: &mut Words) -> String {
    let from = words.person();
    let to = words.another(from);
    let third = words.another(to);
    let season = words.season();
    let n = 2 + words.random.below(10);
    let thing = words.thing();
    let news = match words.random.below(5) {
        0 => format!("{} is well and sleeps all day.", from.pet_name),
        1 => format!("We are all well here, only {} has a cold.", from.pet_name),
        2 => format!("Yesterday {} came {}.", from.pet_name, words.pick(&["home wet", "home late", "to the table"])),
        3 => format!("It is {} here, and {} is our favourite food.", words.pick(season.adjectives), from.food),
        _ => format!("This {} I work {} from dawn to dusk.", season.name, from.place),
    };
    let wish = match words.random.below(4) {
        0 => format!("Can you send me {}?", some(n, thing)),
        1 => format!("I send you {} with this letter.", some(n, thing)),
        2 => format!("Please bring {} {} when you come.", a(thing.name), words.pick(&["and some salt", "with you"])),
        _ => format!("Have you seen my {}? I think it is {}.", thing.name, words.spot()),
    };
    let last = match words.random.below(3) {
        0 if third.name != from.name => format!("Greet {} the {} from me.", third.name, third.trade),
        1 => format!("Come and see me on {}.", words.pick(DAYS)),
        _ => format!("There is always {} for you.", from.food),
    };
    format!(
        "Dear {},\n{} when I wrote this. {news}\n{wish} {last}\nYour friend,\n{} the {}\n",
        to.name,
        capital(words.pick(season.skies)),
        from.name,
        from.trade
    )
}

static DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Some days of the lighthouse's log: boats that go out come back, in time or late.
pub fn log(words: &mut Words) -> String {
    let start = words.random.below(DAYS.len());
    let mut text = format!("From the log of the lighthouse, {}.\n", words.season().name);
    for offset in 0..3 + words.random.below(3) {
        let day = DAYS[(start + offset) % DAYS.len()];
        let wind = words.pick(&["west", "east", "north", "south"]);
        let sky = words.pick(&["rain in the morning", "clear and cold", "fog until noon", "high waves", "a calm sea"]);
        let boats = 1 + words.random.below(6);
        let out = if boats == 1 { "One boat".to_owned() } else { format!("{} boats", capital(number(boats))) };
        let back = match (words.random.chance(80), boats) {
            (true, 1) => "and it came back.".to_owned(),
            (true, n) => format!("and {} came back.", number(n)),
            (false, 1) => "and it came back late.".to_owned(),
            (false, n) => format!("and {} came back; one came late.", number(n - 1)),
        };
        text.push_str(&format!("{day}: {}, wind from the {wind}. {out} went out, {back}\n", capital(sky)));
    }
    text
}

/// How something is done, in three steps.
pub fn how_to(words: &mut Words) -> String {
    let (aim, needs, steps): (&str, &[&'static str], [&str; 3]) = match words.random.below(6) {
        0 => (
            "bake bread",
            &["flour", "water", "salt", "time", "a hot oven"],
            ["mix the flour with the water", "let the dough rest under a cloth", "bake it until it sounds hollow"],
        ),
        1 => (
            "cook soup",
            &["a big pot", "two onions", "salt", "beans", "a little fire"],
            ["cut the onions small", "pour in the water and the beans", "wait until the beans are soft"],
        ),
        2 => (
            "catch fish",
            &["a boat", "a net", "a calm sea", "a bucket"],
            ["row out before the sun is up", "throw the net on the left side", "pull slowly and do not talk"],
        ),
        3 => (
            "mend a chair",
            &["a hammer", "four nails", "glue", "a dry board"],
            ["take off the broken leg", "cut a new one from the board", "drive in the nails one by one"],
        ),
        4 => (
            "grow beans",
            &["seeds", "good earth", "a spade", "rain", "some sticks"],
            ["dig a row as long as a boat", "put a seed at every step", "give them water in the evening"],
        ),
        _ => (
            "light the lamp",
            &["oil", "a clean glass", "a match", "a steady hand"],
            [
                "clean the glass with a dry cloth",
                "fill in the oil up to the line",
                "hold the match until the flame is tall",
            ],
        ),
    };
    let expert = PEOPLE[match aim {
        "bake bread" => 0,
        "catch fish" => 1,
        "mend a chair" => 5,
        "grow beans" => 6,
        "light the lamp" => 7,
        _ => words.random.below(PEOPLE.len()),
    }];
    let (one, two) = (words.random.below(needs.len()), words.random.below(needs.len() - 1));
    let other = if two >= one { two + 1 } else { two };
    let advice = match words.random.below(3) {
        0 => format!("{} the {} has done it {} times.", expert.name, expert.trade, number(3 + words.random.below(10))),
        1 => format!("{} never does it on a {}.", expert.name, words.pick(DAYS)),
        _ => format!("It is best done on a {} day.", words.pick(&["dry", "quiet", "cool", "long"])),
    };
    format!(
        "How to {aim}.\nYou need {} and {}.\nFirst you {}.\nThen you {}.\nAt last you {}.\n{advice}\n",
        needs[one], needs[other], steps[0], steps[1], steps[2]
    )
}
