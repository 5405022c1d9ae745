//! The cases of flips, rolls, triangles, one-hot rows and Einstein summation.

use super::super::{Domain, OpCase};
use super::{any, case, float, index, number, sums};
use crate::einsum;

pub(super) fn cases() -> Vec<OpCase> {
    let tied = |shape| any(shape).within(Domain::Ties).fixed();
    let apart = |shape| any(shape).within(Domain::Apart(0.0));
    vec![
        case("flip, last", [any("abc")], |t| t[0].flip(-1)),
        case("flip, outer two", [any("abc")], |t| t[0].flip([0, 2])),
        case("flip, all", [any("abc")], |t| t[0].flip(..)),
        case("roll", [any("a5")], |t| t[0].roll(2, 1)),
        case("roll, backwards", [any("5b")], |t| t[0].roll(-7, 0)),
        case("tril", [any("dab")], |t| t[0].tril(0)),
        case("tril, below", [any("ab")], |t| t[0].tril(-1)),
        case("triu", [any("dab")], |t| t[0].triu(0)),
        case("triu, above", [any("ab")], |t| t[0].triu(1)),
        case("one_hot", [index("ab", 'C')], |t| t[0].one_hot(35)),
        case("argsort, last", [tied("abc")], |t| t[0].argsort(-1, false)),
        case("argsort, first, descending", [tied("abc")], |t| t[0].argsort(0, true)),
        case("sort, last", [apart("abc")], |t| t[0].sort(-1, false).0),
        case("sort, middle, descending", [apart("abc")], |t| t[0].sort(1, true).0),
        case("topk", [apart("a5")], |t| t[0].topk(3, 1, true).0),
        case("topk, smallest, first", [apart("5b")], |t| t[0].topk(2, 0, false).0),
        sums("cumsum, last", [number("abc")], |t| t[0].cumsum(-1)),
        sums("cumsum, first", [number("abc")], |t| t[0].cumsum(0)),
        sums("einsum, matrix product", [float("ab"), float("bc")], |t| einsum("ij,jk->ik", t)),
        sums("einsum, batch and transposed result", [float("dab"), float("cbd")], |t| einsum("bij,kjb->kib", t)),
        sums("einsum, outer product", [number("a"), number("bc")], |t| einsum("i,jk->kij", t)),
        sums("einsum, elements", [number("ab"), number("ba")], |t| einsum("ij,ji->ij", t)),
        sums("einsum, trace", [number("aa")], |t| einsum("ii", t)),
        sums("einsum, diagonal", [number("aba")], |t| einsum("iji->ji", t)),
        sums("einsum, three operands", [float("ab"), float("bc"), float("cd")], |t| einsum("ij,jk,kl->il", t)),
        sums("einsum, sums of each", [number("ab"), number("cd")], |t| einsum("ij,kl->", t)),
    ]
}
