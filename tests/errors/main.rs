//! Every message that a user can meet, produced by a call that causes it: what was wrong, what would be right, where.

mod above;
mod environment;
mod places;
mod problems;

use std::collections::BTreeSet;
use std::fmt::Display;

use expect_test::{Expect, expect};
use tapeflow::prelude::*;
use tapeflow::{Problem, Result, TensorError};

/// The variants of an enum, read from its source: an enum that is `non_exhaustive` cannot be matched exhaustively here.
fn variants<'s>(source: &'s str, name: &str) -> BTreeSet<&'s str> {
    let begin = source.find(&format!("pub enum {name} {{\n")).expect("the enum is in the file");
    let body = &source[begin..begin + source[begin..].find("\n}").expect("the enum ends")];
    let variant = |line: &'s str| {
        let rest = line.strip_prefix("    ")?;
        let end = rest.find(|c: char| !c.is_alphanumeric())?;
        (rest.starts_with(char::is_uppercase) && rest[end..].starts_with([',', ' ', '('])).then_some(&rest[..end])
    };
    body.lines().skip(1).filter_map(variant).collect()
}

/// The name of the variant a value is.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text[..text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len())].to_owned()
}

/// The message with what differs from run to run cut out: columns, temporary folders.
fn message(error: &impl Display) -> String {
    let text = error.to_string();
    let folder = std::env::temp_dir().display().to_string();
    text.replace(&folder, "<tmp>").replace(&format!("-{}", std::process::id()), "")
}

#[derive(Module)]
#[module(forward = |x| fc(x))]
struct Inner {
    fc: Linear,
}

#[derive(Module)]
#[module(forward = |x| h(x))]
struct Outer {
    h: Vec<Inner>,
}

fn outer() -> Outer {
    let inner = || Inner { fc: Linear::new(3, 3).unwrap() };
    Outer { h: vec![inner(), inner()] }
}

#[track_caller]
fn f32s(shape: &[usize]) -> Tensor {
    Tensor::from_vec(vec![0.5f32; shape.iter().product()], shape)
}

fn read(t: Tensor) -> Result<(), TensorError> {
    t.realize()
}

/// Lines say enough, and columns move with formatting.
fn without_column(text: &str) -> String {
    let line = |l: &str| match l.strip_prefix("  at ") {
        Some(place) => {
            let (file, rest) = place.split_once(':').expect("a place has a line");
            let module = rest.split_once(" in ").map_or(String::new(), |(_, path)| format!(" in {path}"));
            format!("  at {file}{module}")
        }
        None => l.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
