//! The arithmetic of sums: the law that every device follows, on every instruction set and for any number of threads.
//! Knows sequences of numbers only.
//!
//! **Along a row** ([`sum_f32`] and its kin). Up to [`PIECE`] values: [`LANES`] lanes, lane `l` adds `x[l]`,
//! `x[l + 16]`, … in order, starting from −0.0 (which changes no value it is added to); then a tree, 16 → 8 → 4 → 2 →
//! 1, adds lane `l + half` to lane `l`. More values are cut into pieces of `PIECE`, the last one shorter; each piece is
//! summed, and the results are summed by the same law. The sum of nothing is +0.0.
//!
//! **Over rows**, column by column ([`sum_leading_f32`] and its kin). The rows are cut into chunks of
//! [`LEADING_CHUNK`]; within a chunk rows are added in order beginning with its first, then the chunks' results are
//! added in order.
//!
//! **Over axes that are not neighbours** the last neighbours are summed first, then the results over the others: a
//! sum over items and pixels is the sum over items of sums over pixels.
//!
//! Integer sums wrap, so any order gives the same bits. Largest and smallest follow [`crate::Binary::Max`] and
//! [`crate::Binary::Min`], which commute and associate (NaN wins, −0 < +0), so any order will do as well.

use crate::{DType, arithmetic::wrap};

/// Virtual lanes of a sum along a row; a power of two.
pub const LANES: usize = 16;

/// Most values summed in one go; longer rows are summed piece by piece.
pub const PIECE: usize = 4096;

/// Rows of one chunk of a sum over rows.
pub const LEADING_CHUNK: usize = 64;

/// The law along a row, for `count` values given by index.
fn sum_by<T: Copy>(count: usize, get: &dyn Fn(usize) -> T, identity: T, zero: T, add: fn(T, T) -> T) -> T {
    if count == 0 {
        return zero;
    }
    if count > PIECE {
        let pieces: Vec<T> = (0..count.div_ceil(PIECE))
            .map(|piece| {
                let start = piece * PIECE;
                sum_by(PIECE.min(count - start), &|index| get(start + index), identity, zero, add)
            })
            .collect();
        return sum_by(pieces.len(), &|index| pieces[index], identity, zero, add);
    }
    let mut lanes = [identity; LANES];
    for index in 0..count {
        lanes[index % LANES] = add(lanes[index % LANES], get(index));
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = add(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The law over rows, for one column of `count` rows.
fn sum_leading_by<T: Copy>(count: usize, get: &dyn Fn(usize) -> T, zero: T, add: fn(T, T) -> T) -> T {
    let chunk = |start: usize| {
        let rows = start + 1..count.min(start + LEADING_CHUNK);
        rows.fold(get(start), |total, row| add(total, get(row)))
    };
    (0..count).step_by(LEADING_CHUNK).map(chunk).reduce(add).unwrap_or(zero)
}

/// Sum along a row, rounded to f32 after each addition.
///
/// ```
/// use tapeflow_ir::reduce::sum_f32;
/// assert_eq!(sum_f32(&[0.5; 10_000]), 5_000.0);
/// ```
pub fn sum_f32(values: &[f32]) -> f32 {
    sum_f32_by(values.len(), |index| values[index])
}

/// [`sum_f32`] of `count` values given by index.
pub fn sum_f32_by(count: usize, get: impl Fn(usize) -> f32) -> f32 {
    sum_by(count, &get, -0.0, 0.0, |a, b| a + b)
}

/// Sum along a row in f64.
pub fn sum_f64(values: &[f64]) -> f64 {
    sum_f64_by(values.len(), |index| values[index])
}

/// [`sum_f64`] of `count` values given by index.
pub fn sum_f64_by(count: usize, get: impl Fn(usize) -> f64) -> f64 {
    sum_by(count, &get, -0.0, 0.0, |a, b| a + b)
}

/// Sum over rows of one column of `rows` values given by row, rounded to f32 after each addition.
pub fn sum_leading_f32(rows: usize, get: impl Fn(usize) -> f32) -> f32 {
    sum_leading_by(rows, &get, 0.0, |a, b| a + b)
}

/// Sum over rows of one column of `rows` values given by row, in f64.
pub fn sum_leading_f64(rows: usize, get: impl Fn(usize) -> f64) -> f64 {
    sum_leading_by(rows, &get, 0.0, |a, b| a + b)
}

/// Sum of integers of an integer dtype, which wraps; in any order.
pub fn sum_int(dtype: DType, values: impl IntoIterator<Item = i64>) -> i64 {
    wrap(dtype, values.into_iter().fold(0, i64::wrapping_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of very different sizes, so that another order of additions shows.
    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 7919 % 1009) as f32 - 500.3).powi(3) / (index + 1) as f32).collect()
    }

    #[test]
    fn of_nothing_is_positive_zero() {
        assert_eq!(sum_f32(&[]).to_bits(), 0);
        assert_eq!(sum_f64(&[]).to_bits(), 0);
        assert_eq!(sum_leading_f32(0, |_| 1.0).to_bits(), 0);
        assert_eq!(sum_int(DType::I32, []), 0);
    }

    #[test]
    fn of_negative_zeros_is_negative_zero() {
        assert_eq!(sum_f32(&[-0.0; 17]).to_bits(), (-0.0f32).to_bits());
        assert_eq!(sum_f32(&[-0.0, 0.0]).to_bits(), 0);
        assert_eq!(sum_leading_f64(100, |_| -0.0).to_bits(), (-0.0f64).to_bits());
    }

    /// The law spelled out by hand.
    #[test]
    fn lanes_then_tree() {
        for count in [16, 17, 35, 100, 1000, PIECE] {
            let x = values(count);
            let lane = |l: usize| x.iter().skip(l).step_by(16).copied().reduce(|a, b| a + b).unwrap();
            let eight: Vec<f32> = (0..8).map(|l| lane(l) + lane(l + 8)).collect();
            let four: Vec<f32> = (0..4).map(|l| eight[l] + eight[l + 4]).collect();
            let expected = (four[0] + four[2]) + (four[1] + four[3]);
            assert_eq!(sum_f32(&x).to_bits(), expected.to_bits(), "{count}");
        }
        assert_ne!(sum_f32(&values(100)), values(100).iter().sum::<f32>(), "no other order shows");
    }

    #[test]
    fn pieces_are_summed_by_the_same_law() {
        let x = values(3 * PIECE + 5);
        let pieces: Vec<f32> = x.chunks(PIECE).map(sum_f32).collect();
        assert_eq!(pieces.len(), 4);
        assert_eq!(sum_f32(&x).to_bits(), sum_f32(&pieces).to_bits());
    }

    #[test]
    fn over_rows_chunk_by_chunk() {
        let x = values(150);
        let in_order = |part: &[f32]| part[1..].iter().fold(part[0], |a, b| a + b);
        let expected = (in_order(&x[..64]) + in_order(&x[64..128])) + in_order(&x[128..]);
        assert_eq!(sum_leading_f32(150, |row| x[row]).to_bits(), expected.to_bits());
    }

    #[test]
    fn integers_wrap() {
        assert_eq!(sum_int(DType::U8, [200, 100]), 44);
        assert_eq!(sum_int(DType::I32, [i32::MAX as i64, 1]), i32::MIN as i64);
        assert_eq!(sum_int(DType::I64, [i64::MAX, 1]), i64::MIN);
    }
}
