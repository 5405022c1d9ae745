//! Random numbers that depend on a key alone: what was drawn for one batch says nothing of how many were made before.

/// All parts of a key mixed into one number: each goes through the mixer of SplitMix64 (Steele, Lea & Flood 2014).
pub(super) fn mixed<const N: usize>(key: [u64; N]) -> u64 {
    key.into_iter().fold(0u64, |state, part| {
        let mut z = (state ^ part).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// A number below `n`: the high bits of the mixed key scaled down, whose bias is n / 2⁶⁴.
pub(super) fn below<const N: usize>(n: u64, key: [u64; N]) -> u64 {
    ((u128::from(mixed(key)) * u128::from(n)) >> 64) as u64
}

/// All numbers below `n` in a random order. Fisher & Yates 1938; Durstenfeld 1964.
pub(super) fn order<const N: usize>(n: usize, key: [u64; N]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let state = mixed(key);
    for i in (1..n).rev() {
        order.swap(i, below(i as u64 + 1, [state, i as u64]) as usize);
    }
    order
}
