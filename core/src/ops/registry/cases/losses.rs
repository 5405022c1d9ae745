//! The losses' cases.

use super::super::{Domain, OpCase};
use super::{float, index, sums};
use crate::CrossEntropy;

pub(super) fn cases() -> Vec<OpCase> {
    let apart = |offset| float("abc").within(Domain::Apart(offset));
    vec![
        sums("cross_entropy", [float("aC"), index("a", 'C')], |t| t[0].cross_entropy(&t[1])),
        sums("cross_entropy, sequences", [float("abC"), index("ab", 'C')], |t| t[0].cross_entropy(&t[1])),
        sums("cross_entropy_with, smoothing", [float("abC"), index("ab", 'C')], |t| {
            t[0].cross_entropy_with(&t[1], &CrossEntropy { label_smoothing: 0.1, ignore_index: None })
        }),
        sums("cross_entropy_with, ignored", [float("abC"), index("ab", 'C')], |t| {
            t[0].cross_entropy_with(&t[1], &CrossEntropy { label_smoothing: 0.2, ignore_index: Some(1) })
        }),
        sums("nll_loss", [float("abC"), index("ab", 'C')], |t| t[0].nll_loss(&t[1])),
        sums("mse_loss", [float("abc"), float("abc")], |t| t[0].mse_loss(&t[1])),
        sums("l1_loss", [apart(0.0), apart(0.05)], |t| t[0].l1_loss(&t[1])),
        sums("smooth_l1_loss", [apart(0.0), apart(0.05)], |t| t[0].smooth_l1_loss(&t[1], 0.5)),
        sums("bce_with_logits", [apart(0.05), float("abc").positive()], |t| t[0].bce_with_logits(&t[1])),
    ]
}
