//! Numbers as words that stand in columns, by NumPy's rules.
//! Owns the choice between decimals and exponents, and the digits; knows no shapes.

use std::fmt::{self, Display, LowerExp};
use std::ops::Div;

/// Digits after the point, at most.
const PRECISION: usize = 8;

/// Words of equal width, aligned to the right.
pub(super) fn aligned<T: Display>(elements: Vec<T>) -> Vec<String> {
    let words: Vec<String> = elements.iter().map(T::to_string).collect();
    let width = words.iter().map(String::len).max().unwrap_or(0);
    words.into_iter().map(|word| format!("{word:>width$}")).collect()
}

/// f32 or f64. The standard library's `{}` and `{:e}` give the shortest digits that identify a number of the type,
/// `{:.8}` and `{:.8e}` round its exact value to even.
pub(super) trait Float: Copy + PartialOrd + Display + LowerExp + Div<Output = Self> + Into<f64> {
    const ZERO: Self;
    /// Arrays with an element as large as this are printed with exponents: 10^min(8, decimal digits).
    const LARGE: Self;
    /// A number alone is printed with an exponent from here on.
    const LARGE_ALONE: Self;
    /// Arrays with a smaller element than this too, unless it is 0.
    const SMALL: Self;
    /// And those whose largest element is more than this times the smallest.
    const RANGE: Self;

    fn abs(self) -> Self;

    fn is_finite(self) -> bool {
        self.into().is_finite()
    }
}

impl Float for f32 {
    const ZERO: f32 = 0.0;
    const LARGE: f32 = 1e6;
    const LARGE_ALONE: f32 = 1e6;
    const SMALL: f32 = 1e-4;
    const RANGE: f32 = 1e3;

    fn abs(self) -> f32 {
        self.abs()
    }
}

/// Half precision with the shortest digits that identify a number, which the standard library knows of f32 and f64
/// only. NumPy's rules for float16; of bf16, which it has not, the same is made.
macro_rules! half_float {
    ($shown:ident, $t:ty) => {
        #[derive(Clone, Copy, PartialEq, PartialOrd)]
        pub(super) struct $shown(pub $t);

        impl $shown {
            /// The shortest decimal that is read as this number.
            fn shortest(self) -> f64 {
                let exact = self.0.to_f64();
                let mut decimals = (0..9).filter_map(|digits| format!("{exact:.digits$e}").parse::<f64>().ok());
                decimals.find(|&d| <$t>::from_f32(d as f32) == self.0).unwrap_or(exact)
            }
        }

        impl Display for $shown {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = if f.precision().is_some() { self.0.to_f64() } else { self.shortest() };
                Display::fmt(&value, f)
            }
        }

        impl LowerExp for $shown {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = if f.precision().is_some() { self.0.to_f64() } else { self.shortest() };
                LowerExp::fmt(&value, f)
            }
        }

        impl Div for $shown {
            type Output = $shown;
            fn div(self, other: $shown) -> $shown {
                $shown(self.0 / other.0)
            }
        }

        impl From<$shown> for f64 {
            fn from(x: $shown) -> f64 {
                x.0.to_f64()
            }
        }

        impl Float for $shown {
            const ZERO: $shown = $shown(<$t>::from_f32_const(0.0));
            const LARGE: $shown = $shown(<$t>::from_f32_const(1e3));
            const LARGE_ALONE: $shown = $shown(<$t>::from_f32_const(1e3));
            const SMALL: $shown = $shown(<$t>::from_f32_const(1e-4));
            const RANGE: $shown = $shown(<$t>::from_f32_const(1e3));

            fn abs(self) -> $shown {
                $shown(<$t>::from_f32(self.0.to_f32().abs()))
            }
        }
    };
}
half_float!(ShownF16, half::f16);
half_float!(ShownBf16, half::bf16);

impl Float for f64 {
    const ZERO: f64 = 0.0;
    const LARGE: f64 = 1e8;
    const LARGE_ALONE: f64 = 1e16;
    const SMALL: f64 = 1e-4;
    const RANGE: f64 = 1e3;

    fn abs(self) -> f64 {
        self.abs()
    }
}

/// The elements of an array, or of an array without axes a number by itself.
pub(super) fn floats<T: Float>(elements: &[T], scalar: bool) -> Vec<String> {
    match elements {
        [single] if scalar => vec![alone(*single)],
        _ if has_exponents(elements) => with_exponents(elements),
        _ => with_points(elements),
    }
}

fn has_exponents<T: Float>(elements: &[T]) -> bool {
    let sizes = elements.iter().filter(|x| x.is_finite() && **x != T::ZERO).map(|x| x.abs());
    let range = sizes.fold(None, |range, size| match range {
        None => Some((size, size)),
        Some((low, high)) => Some((if size < low { size } else { low }, if size > high { size } else { high })),
    });
    range.is_some_and(|(low, high)| high >= T::LARGE || low < T::SMALL || high / low > T::RANGE)
}

/// Plain decimals, aligned at the point.
fn with_points<T: Float>(elements: &[T]) -> Vec<String> {
    let words: Vec<String> = elements.iter().map(|&x| if x.is_finite() { decimal(x) } else { infinite(x) }).collect();
    let split: Vec<(&str, Option<&str>)> =
        words.iter().map(|word| word.split_once('.').map_or((&word[..], None), |(a, b)| (a, Some(b)))).collect();
    let right = split.iter().filter_map(|(_, fraction)| fraction.map(str::len)).max().unwrap_or(0);
    let width = split.iter().map(|(left, fraction)| match fraction {
        Some(_) => left.len() + 1 + right,
        None => left.len(),
    });
    let width = width.max().unwrap_or(0);
    let pad = |(left, fraction): &(&str, Option<&str>)| match fraction {
        Some(fraction) => format!("{:>width$}", format!("{left}.{fraction:<right$}")),
        None => format!("{left:>width$}"),
    };
    split.iter().map(pad).collect()
}

/// Mantissas with as many digits as the longest needs, and exponents likewise.
fn with_exponents<T: Float>(elements: &[T]) -> Vec<String> {
    let finite = elements.iter().filter(|x| x.is_finite());
    let digits = finite.map(|&x| fraction_digits(PRECISION, |digits| scientific(x, digits))).max().unwrap_or(0);
    let parts = elements.iter().map(|&x| {
        let text = scientific(x, Some(digits));
        text.split_once('e').map(|(mantissa, exponent)| (pointed(mantissa, ""), exponent.to_owned()))
    });
    let parts: Vec<Option<(String, String)>> = parts.collect();
    let size = |exponent: &str| exponent.trim_start_matches('-').len();
    let width = parts.iter().flatten().map(|(_, exponent)| size(exponent)).max().unwrap_or(0);
    let words = parts.iter().zip(elements).map(|(part, &x)| match part {
        Some((mantissa, exponent)) => mantissa.clone() + &power(exponent, width),
        None => infinite(x),
    });
    aligned(words.collect())
}

/// An array's element: `0.1`, `2.`
fn decimal<T: Float>(x: T) -> String {
    let digits = fraction_digits(PRECISION, |digits| plain(x, digits));
    pointed(&plain(x, Some(digits)), "")
}

/// A number that is no array's element, with all its digits: `0.1`, `2.0`, `1e-05`
fn alone<T: Float>(x: T) -> String {
    if !x.is_finite() {
        return infinite(x);
    }
    let size: f64 = x.abs().into();
    if size == 0.0 || (1e-4..T::LARGE_ALONE.into()).contains(&size) {
        let digits = fraction_digits(usize::MAX, |digits| plain(x, digits));
        return pointed(&plain(x, Some(digits)), "0");
    }
    let digits = fraction_digits(usize::MAX, |digits| scientific(x, digits));
    let text = scientific(x, Some(digits));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    mantissa.to_owned() + &power(exponent, 0)
}

/// With so many digits after the point, or as few as tell the number from its neighbours.
fn plain<T: Float>(x: T, digits: Option<usize>) -> String {
    digits.map_or_else(|| format!("{x}"), |digits| format!("{x:.digits$}"))
}

/// Likewise, with an exponent.
fn scientific<T: Float>(x: T, digits: Option<usize>) -> String {
    digits.map_or_else(|| format!("{x:e}"), |digits| format!("{x:.digits$e}"))
}

/// How many digits a number needs after the point, up to a limit. It is to be printed with that many, not the shortest
/// way: where two shortest decimals are equally near, NumPy takes the even one.
fn fraction_digits(limit: usize, print: impl Fn(Option<usize>) -> String) -> usize {
    let fraction = |text: String| {
        let mantissa = text.split_once('e').map_or(&text[..], |(mantissa, _)| mantissa);
        mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.trim_end_matches('0').len())
    };
    let shortest = fraction(print(None));
    if shortest > limit { fraction(print(Some(limit))) } else { shortest }
}

/// A whole number with a point and what is to follow it.
fn pointed(text: &str, fraction: &str) -> String {
    if text.contains('.') { text.to_owned() } else { format!("{text}.{fraction}") }
}

/// An exponent with its sign and at least two digits.
fn power(exponent: &str, width: usize) -> String {
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("e{sign}{digits:0>width$}", width = width.max(2))
}

fn infinite<T: Float>(x: T) -> String {
    let text = if x > T::ZERO {
        "inf"
    } else if x < T::ZERO {
        "-inf"
    } else {
        "nan"
    };
    text.to_owned()
}
