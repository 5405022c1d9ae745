//! Rhymes and counting rhymes.

use super::village::{Words, capital, number, some};

/// Lines that end on the same rhyme, four beats each; two of a row make a couplet.
static RHYMES: &[&[&str]] = &[
    &[
        "The boats are rocking on the sea",
        "And Anna fills the cups with tea",
        "The wind is singing in the tree",
        "The clover feeds the early bee",
        "And Jon has found the little key",
    ],
    &[
        "The lighthouse shines into the night",
        "The snow upon the roofs is white",
        "The stars are small and clear and bright",
        "And Ben has brought the lamp to light",
    ],
    &[
        "The window hears the quiet rain",
        "The miller brings his sacks of grain",
        "The leaves are blowing down the lane",
        "The gull is at the window pane",
    ],
    &[
        "The loaves are brown, the jam is red",
        "The children will not go to bed",
        "The hen has hidden in the shed",
        "And all the village smells of bread",
    ],
    &[
        "The soup is hot, so take a spoon",
        "The fisher sleeps until the noon",
        "The summer will be with us soon",
        "And over all there hangs the moon",
    ],
    &[
        "The donkey climbs the grassy hill",
        "The wheel is turning at the mill",
        "The pond is cold, the owl is still",
        "And Ruth has beans enough to fill",
    ],
    &[
        "The morning fog is on the bay",
        "The goat is eating all the hay",
        "The clouds above the barn are grey",
        "And Tom will sail another day",
    ],
];

/// Two or three couplets.
pub fn rhyme(words: &mut Words) -> String {
    let mut text = String::new();
    let mut last = usize::MAX;
    for _ in 0..2 + words.random.below(2) {
        let mut family = words.random.below(RHYMES.len());
        if family == last {
            family = (family + 1) % RHYMES.len();
        }
        last = family;
        let lines = RHYMES[family];
        let first = words.random.below(lines.len());
        let other = (first + 1 + words.random.below(lines.len() - 1)) % lines.len();
        // Lines that begin with "And" stand last in their family.
        let (first, second) = (first.min(other), first.max(other));
        text.push_str(&format!("{},\n{}.\n", lines[first], lines[second]));
    }
    text
}

/// Counting up, adding or taking away, with things.
pub fn counting(words: &mut Words) -> String {
    let person = words.person();
    let thing = words.thing();
    let spot = words.spot();
    let (name, who) = (person.name, person.who);
    match words.random.below(3) {
        0 => {
            let last = 4 + words.random.below(6);
            let counted: Vec<String> = (1..=last).map(|n| some(n, thing)).collect();
            format!(
                "{} {spot}.\n{name} counts them: {last} in all.\n",
                capital(&counted.join(", ")),
                last = number(last)
            )
        }
        1 => {
            let mut n = 1 + words.random.below(3);
            let mut text = format!("{name} had {}.\n", some(n, thing));
            for _ in 0..3 {
                let more = 1 + words.random.below(3);
                let giver = words.another(person);
                text.push_str(&format!("{} gave {} {} more, ", giver.name, person.whom, number(more)));
                n += more;
                text.push_str(&format!("and then {who} had {}.\n", some(n, thing)));
            }
            text
        }
        _ => {
            let mut n = 8 + words.random.below(5);
            let mut text = format!("{} lay {spot}.\n", capital(&some(n, thing)));
            while n > 0 {
                let taken = n.min(1 + words.random.below(4));
                n -= taken;
                let taker = words.person();
                let left = match n {
                    0 => "none was left".to_owned(),
                    1 => "one was left".to_owned(),
                    n => format!("{} were left", number(n)),
                };
                text.push_str(&format!("{} took {}, and {left}.\n", taker.name, number(taken)));
            }
            text
        }
    }
}
