//! What the people of the village say to each other: dialogues set as in a play, and riddles.

use super::village::{Person, Words, a, capital, number, some};

/// Two people talk; two to five exchanges.
pub fn dialogue(words: &mut Words) -> String {
    let one = words.person();
    let two = words.another(one);
    let (mut asks, mut answers) = (one, two);
    let (mut text, mut spoken) = (String::new(), Vec::new());
    if words.random.chance(60) {
        let greeting = words.pick(&["Good morning", "Good day", "Good evening", "Hello"]);
        text.push_str(&format!("{}: {greeting}, {}.\n", upper(one), two.name));
        text.push_str(&format!("{}: {greeting}, {}. {}\n", upper(two), one.name, remark(words, one)));
    }
    for _ in 0..2 + words.random.below(4) {
        let mut topic = words.random.below(TOPICS);
        while spoken.contains(&topic) {
            topic = (topic + 1) % TOPICS;
        }
        spoken.push(topic);
        let (question, answer) = exchange(words, topic, asks, answers);
        text.push_str(&format!("{}: {question}\n{}: {answer}\n", upper(asks), upper(answers)));
        if words.random.chance(40) {
            std::mem::swap(&mut asks, &mut answers);
        }
    }
    if words.random.chance(50) {
        let bye = words.pick(&["Then good night", "It is late, I must go", "Thank you", "Until tomorrow"]);
        text.push_str(&format!("{}: {bye}, {}.\n", upper(asks), answers.name));
    }
    text
}

fn upper(person: &Person) -> String {
    person.name.to_ascii_uppercase()
}

fn remark(words: &mut Words, to: &Person) -> String {
    let season = words.season();
    match words.random.below(4) {
        0 => "Come in and sit down.".to_owned(),
        1 => format!("What {} {} it is.", a(words.pick(season.adjectives)), season.name),
        2 => format!("How is {} the {}?", to.pet_name, to.pet),
        _ => format!("You look {}.", words.pick(&["tired", "happy", "hungry", "cold"])),
    }
}

/// How many kinds of exchanges there are.
const TOPICS: usize = 11;

/// A question and its answer.
fn exchange(words: &mut Words, topic: usize, asks: &Person, answers: &Person) -> (String, String) {
    let other = words.another(asks);
    let thing = words.thing();
    let n = 1 + words.random.below(11);
    match topic {
        0 => {
            let spot = words.spot();
            (format!("Where is the {}?", thing.name), format!("The {} is {spot}.", thing.name))
        }
        1 => (
            format!("Have you seen my {}?", thing.name),
            match words.random.below(2) {
                0 => format!("Yes, {} took your {} this morning.", other_than(words, asks, answers).name, thing.name),
                _ => format!("No, but look {}.", words.spot()),
            },
        ),
        2 => (
            format!("How many {} do you have?", thing.plural),
            match n {
                1 => format!("I have only one {}.", thing.name),
                _ => format!("I have {}.", some(n, thing)),
            },
        ),
        3 => {
            let m = 1 + words.random.below(12 - n);
            let sum = some(n + m, thing);
            (format!("What are {} and {}?", some(n, thing), some(m, thing)), format!("That makes {sum}."))
        }
        4 => (format!("Who {}?", other.work), format!("{} the {} {}.", other.name, other.trade, other.work)),
        5 => (
            format!("What is the name of the {}?", other.pet),
            match other.name == answers.name {
                true => format!("My {} is called {}.", other.pet, other.pet_name),
                false => format!("{} calls {} {} {}.", other.name, other.whose, other.pet, other.pet_name),
            },
        ),
        6 => {
            let Person { name, place, who, trade, .. } = other_than(words, asks, answers);
            (format!("Where does {name} work?"), format!("{name} works {place}, for {who} is a {trade}."))
        }
        7 => ("What do you like to eat?".to_owned(), format!("I like {} best.", answers.food)),
        8 => ("Which colour do you want?".to_owned(), format!("{}, as always.", capital(answers.colour))),
        9 => (
            format!("Will you lend me your {}?", answers.tool),
            match words.random.below(3) {
                0 => "Yes, but bring it back before dark.".to_owned(),
                1 => format!("I need it {} today.", answers.place),
                _ => format!("Gladly, if you give me {}.", a(thing.name)),
            },
        ),
        _ => {
            let season = words.season();
            let adjective = words.pick(season.adjectives);
            (format!("Is it {adjective} outside?"), format!("Yes, {}.", now(words.pick(season.skies))))
        }
    }
}

fn other_than(words: &mut Words, one: &Person, two: &Person) -> &'static Person {
    loop {
        let person = words.another(one);
        if person.name != two.name {
            return person;
        }
    }
}

/// The clause as it is said while it happens.
fn now(sky: &str) -> String {
    [(" fell ", " falls "), (" were ", " are "), (" ran ", " runs "), (" stood ", " stands "), (" was ", " is ")]
        .iter()
        .chain(&[(" smelled ", " smells "), (" blew ", " blow "), (" lay ", " lies "), (" came ", " comes ")])
        .chain(&[(" rose ", " rises ")])
        .fold(sky.to_owned(), |clause, (past, present)| clause.replace(past, present))
}

/// Riddles about what the village has.
pub fn riddles(words: &mut Words) -> String {
    let mut text = String::new();
    let mut last = usize::MAX;
    for _ in 0..2 + words.random.below(2) {
        let person = words.person();
        let other = words.another(person);
        let mut index = words.random.below(RIDDLES.len());
        if index == last {
            index = (index + 1) % RIDDLES.len();
        }
        last = index;
        let (riddle, answer) = RIDDLES[index];
        let reply = words.pick(&["You are", "That is", "It must be"]);
        text.push_str(&format!("{}: {riddle} What am I?\n{}: {reply} {answer}.\n", upper(person), upper(other)));
        if words.random.chance(30) {
            let tries = number(2 + words.random.below(5));
            text.push_str(&format!("{}: Right, and you only needed {tries} tries.\n", upper(person)));
        }
    }
    text
}

static RIDDLES: &[(&str, &str)] = &[
    ("I have a head and a handle, and I drive nails.", "a hammer"),
    ("I have teeth but I never eat.", "a saw"),
    ("I sing when I am hot.", "a kettle"),
    ("I grow shorter the longer I shine.", "a candle"),
    ("I have a tongue and call the children.", "a bell"),
    ("I am full of holes and still hold fish.", "a net"),
    ("I come down white and go away wet.", "the snow"),
    ("I run all day and never leave my bed.", "the brook"),
    ("I have steps but I do not walk.", "a ladder"),
    ("I turn in the wind and make flour.", "the mill"),
    ("I see the ships but I never sail.", "the lighthouse"),
    ("I make you cry though I do not hurt you.", "an onion"),
];
