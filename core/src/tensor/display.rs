//! Arrays as text, as NumPy 2.4 prints them by default: precision 8, lines of 75, `...` above 1000 elements.
//! Owns the layout; knows no tensors, and leaves the numbers to `number`. The rules are those of NumPy's
//! `arrayprint.py`.

mod number;

use half::{bf16, f16};
use number::{ShownBf16, ShownF16, aligned, floats};

/// An array with more elements than this is shown by its corners.
const THRESHOLD: usize = 1000;
/// How many elements a corner has along each axis.
const EDGE: usize = 3;
const LINE_WIDTH: usize = 75;

/// The elements of an array, in row-major order.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// Printed with the digits that tell one f32 from the next.
    F32(&'a [f32]),
    /// Likewise for f64.
    F64(&'a [f64]),
    /// Likewise for f16.
    F16(&'a [f16]),
    /// Likewise for bf16.
    BF16(&'a [bf16]),
    /// Signed integers.
    I32(&'a [i32]),
    /// Unsigned integers.
    U32(&'a [u32]),
    /// Long integers.
    I64(&'a [i64]),
    /// Bytes.
    U8(&'a [u8]),
    /// `True` and `False`.
    Bool(&'a [bool]),
}

/// Formats a contiguous array of a shape as NumPy's `print` does.
///
/// # Shapes
/// `elements` has as many elements as `shape` says; an index beyond them panics.
///
/// ```ignore
/// use tapeflow_core::tensor::display::{Elements, format_array};
///
/// let text = format_array(Elements::F32(&[1.0, 2.5, -3.125, 0.1]), &[2, 2]);
/// assert_eq!(text, "[[ 1.     2.5  ]\n [-3.125  0.1  ]]");
/// ```
pub fn format_array(elements: Elements<'_>, shape: &[usize]) -> String {
    let size: usize = shape.iter().product();
    if size == 0 {
        return "[]".to_owned();
    }
    let summarised = size > THRESHOLD;
    let mut shown = vec![0];
    for &length in shape {
        let along = visible(length, summarised);
        shown = shown.iter().flat_map(|&start| along.iter().flatten().map(move |i| start * length + i)).collect();
    }
    let words = match elements {
        Elements::F32(all) => floats(&pick(all, &shown), shape.is_empty()),
        Elements::F64(all) => floats(&pick(all, &shown), shape.is_empty()),
        Elements::F16(all) => floats(&picked(all, &shown, ShownF16), shape.is_empty()),
        Elements::BF16(all) => floats(&picked(all, &shown, ShownBf16), shape.is_empty()),
        Elements::I32(all) => aligned(pick(all, &shown)),
        Elements::U32(all) => aligned(pick(all, &shown)),
        Elements::I64(all) => aligned(pick(all, &shown)),
        Elements::U8(all) => aligned(pick(all, &shown)),
        Elements::Bool(all) if shape.is_empty() => aligned(vec![if all[0] { "True" } else { "False" }]),
        Elements::Bool(all) => pick(all, &shown).iter().map(|&x| if x { " True" } else { "False" }.into()).collect(),
    };
    Layout { shape, summarised, words: words.into_iter() }.block(0)
}

fn pick<T: Copy>(all: &[T], shown: &[usize]) -> Vec<T> {
    shown.iter().map(|&index| all[index]).collect()
}

fn picked<T: Copy, U>(all: &[T], shown: &[usize], of: impl Fn(T) -> U) -> Vec<U> {
    shown.iter().map(|&index| of(all[index])).collect()
}

/// The indices shown along an axis; `None` stands for those left out.
fn visible(length: usize, summarised: bool) -> Vec<Option<usize>> {
    if summarised && length > 2 * EDGE {
        (0..EDGE).map(Some).chain([None]).chain((length - EDGE..length).map(Some)).collect()
    } else {
        (0..length).map(Some).collect()
    }
}

/// Puts words, one per shown element in order, between brackets and into lines.
struct Layout<'a> {
    shape: &'a [usize],
    summarised: bool,
    words: std::vec::IntoIter<String>,
}

impl Layout<'_> {
    /// The block of the axes from `axis` on. Its first line begins with the bracket, further ones are indented.
    fn block(&mut self, axis: usize) -> String {
        let Some(&length) = self.shape.get(axis) else {
            return self.words.next().unwrap_or_default();
        };
        let items = visible(length, self.summarised);
        let indent = " ".repeat(axis + 1);
        let mut text = String::from("[");
        if axis + 1 == self.shape.len() {
            // A line may use what is left after the closing brackets of the axes outside, and its own.
            let width = LINE_WIDTH - axis.min(LINE_WIDTH - 1) - 1;
            let mut column = indent.len();
            for (position, item) in items.iter().enumerate() {
                let word = item.map_or_else(|| "...".to_owned(), |_| self.block(axis + 1));
                let space = usize::from(position > 0);
                if position > 0 && column + space + word.len() > width {
                    text.truncate(text.trim_end_matches(' ').len());
                    text.push('\n');
                    text.push_str(&indent);
                    column = indent.len();
                } else if position > 0 {
                    text.push(' ');
                    column += 1;
                }
                text.push_str(&word);
                column += word.len();
            }
        } else {
            let separator = "\n".repeat(self.shape.len() - axis - 1);
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    text.push_str(&separator);
                    text.push_str(&indent);
                }
                text.push_str(&item.map_or_else(|| "...".to_owned(), |_| self.block(axis + 1)));
            }
        }
        text.push(']');
        text
    }
}

/// The expected texts are what NumPy 2.4.6 prints.
#[cfg(test)]
mod tests {
    use super::{Elements::*, format_array};

    fn check(elements: super::Elements<'_>, shape: &[usize], lines: &[&str]) {
        assert_eq!(format_array(elements, shape), lines.join("\n"), "{elements:?} {shape:?}");
    }

    fn range(length: i64) -> Vec<i64> {
        (0..length).collect()
    }

    #[test]
    fn arrays_of_floats() {
        check(F32(&[1.0, 2.5, -3.125]), &[3], &["[ 1.     2.5   -3.125]"]);
        check(F32(&[0.1, 0.33333334, 0.6666667]), &[3], &["[0.1        0.33333334 0.6666667 ]"]);
        check(F64(&[0.1, 0.3333333333333333, 0.6666666666666666]), &[3], &["[0.1        0.33333333 0.66666667]"]);
        check(F64(&[0.001953125, 2.5]), &[2], &["[1.953125e-03 2.500000e+00]"]);
        check(F32(&[1e-05, 1.0, 100.0]), &[3], &["[1.e-05 1.e+00 1.e+02]"]);
        check(F64(&[100000000.0, 1.0]), &[2], &["[1.e+08 1.e+00]"]);
        check(F32(&[1000000.0, 1000000.0]), &[2], &["[1.e+06 1.e+06]"]);
        check(F64(&[1e-300, 1.0]), &[2], &["[1.e-300 1.e+000]"]);
        check(F32(&[0.0, -0.0]), &[2], &["[ 0. -0.]"]);
        check(F64(&[1000.5, 1.0, 0.9]), &[3], &["[1.0005e+03 1.0000e+00 9.0000e-01]"]);
        check(F32(&[f32::NAN, 1.0, -f32::INFINITY, f32::INFINITY]), &[4], &["[ nan   1. -inf  inf]"]);
        check(F32(&[f32::NAN, f32::INFINITY]), &[2], &["[nan inf]"]);
        check(F64(&[f64::NAN, -f64::INFINITY, 1e+20]), &[3], &["[   nan   -inf 1.e+20]"]);
    }

    #[test]
    fn integers_and_booleans() {
        check(Bool(&[true, false]), &[1, 2], &["[[ True False]]"]);
        check(I32(&[-1, 20, 300, 4]), &[2, 2], &["[[ -1  20]", " [300   4]]"]);
        check(U8(&[255, 0]), &[2], &["[255   0]"]);
        check(
            I64(&[-9223372036854775808, 9223372036854775807]),
            &[2],
            &["[-9223372036854775808  9223372036854775807]"],
        );
        check(U32(&[4294967295, 1]), &[2], &["[4294967295          1]"]);
    }

    #[test]
    fn half_precision() {
        let half = |values: &[f32]| values.iter().map(|&x| half::f16::from_f32(x)).collect::<Vec<_>>();
        for (values, line) in [
            (&[0.1, 0.33333, 2.5][..], "[0.1    0.3333 2.5   ]"),
            (&[999.0, 1.0], "[999.   1.]"),
            (&[1000.0, 1.0], "[1.e+03 1.e+00]"),
            (&[1e-5, 1.0], "[1.e-05 1.e+00]"),
            (&[65504.0, 6e-8], "[6.55e+04 5.96e-08]"),
            (&[1.5, -2.0, f32::NAN, f32::INFINITY], "[ 1.5 -2.   nan  inf]"),
            (&[100.0, 0.09], "[1.e+02 9.e-02]"),
        ] {
            check(F16(&half(values)), &[values.len()], &[line]);
        }
        for (value, text) in [(0.1, "0.1"), (1000.0, "1e+03"), (1234.0, "1.234e+03"), (6e-8, "6e-08"), (2.0, "2.0")] {
            check(F16(&half(&[value])), &[], &[text]);
        }
        check(BF16(&[half::bf16::from_f32(0.1), half::bf16::from_f32(2.5)]), &[2], &["[0.1 2.5]"]);
    }

    #[test]
    fn numbers_alone() {
        check(F32(&[1.5]), &[], &["1.5"]);
        check(F32(&[2.0]), &[], &["2.0"]);
        check(F32(&[1e-05]), &[], &["1e-05"]);
        check(F32(&[1234567.0]), &[], &["1.234567e+06"]);
        check(F64(&[0.1]), &[], &["0.1"]);
        check(F64(&[1000000000000000.0]), &[], &["1000000000000000.0"]);
        check(F64(&[1e+16]), &[], &["1e+16"]);
        check(F64(&[f64::NAN]), &[], &["nan"]);
        check(F32(&[-f32::INFINITY]), &[], &["-inf"]);
        check(Bool(&[true]), &[], &["True"]);
        check(I64(&[-7]), &[], &["-7"]);
    }

    #[test]
    fn blocks_and_lines() {
        check(F32(&[1.5, -2.0, 3.0, 4.25]), &[2, 2], &["[[ 1.5  -2.  ]", " [ 3.    4.25]]"]);
        check(F32(&[]), &[0, 3], &["[]"]);
        check(
            F32(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
            &[2, 2, 2],
            &["[[[0. 1.]", "  [2. 3.]]", "", " [[4. 5.]", "  [6. 7.]]]"],
        );
        check(
            I64(&[0, 1, 2, 3, 4, 5, 6, 7]),
            &[2, 2, 1, 2],
            &["[[[[0 1]]", "", "  [[2 3]]]", "", "", " [[[4 5]]", "", "  [[6 7]]]]"],
        );
        check(
            I64(&range(30)),
            &[30],
            &["[ 0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19 20 21 22 23", " 24 25 26 27 28 29]"],
        );
    }

    #[test]
    fn summaries() {
        check(I64(&range(1001)), &[1001], &["[   0    1    2 ...  998  999 1000]"]);
        check(
            I64(&range(2000)),
            &[2, 1000],
            &["[[   0    1    2 ...  997  998  999]", " [1000 1001 1002 ... 1997 1998 1999]]"],
        );
        check(
            I64(&range(1050)),
            &[7, 150],
            &[
                "[[   0    1    2 ...  147  148  149]",
                " [ 150  151  152 ...  297  298  299]",
                " [ 300  301  302 ...  447  448  449]",
                " ...",
                " [ 600  601  602 ...  747  748  749]",
                " [ 750  751  752 ...  897  898  899]",
                " [ 900  901  902 ... 1047 1048 1049]]",
            ],
        );
        check(
            I64(&range(1100)),
            &[550, 1, 2],
            &[
                "[[[   0    1]]",
                "",
                " [[   2    3]]",
                "",
                " [[   4    5]]",
                "",
                " ...",
                "",
                " [[1094 1095]]",
                "",
                " [[1096 1097]]",
                "",
                " [[1098 1099]]]",
            ],
        );
    }
}
