//! Einstein summation: letters for axes, composed of permutations, products and sums.

use smallvec::SmallVec;
use tapeflow_ir::DType;

use crate::error::{Error, Problem};
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

type Letters = SmallVec<[char; 6]>;

/// A value with a letter for each axis.
#[derive(Clone)]
struct Term {
    value: Tensor,
    letters: Letters,
}

/// Sums of products by index letters: `einsum("ij,jk->ik", &[a, b])` is the matrix product. A letter in several
/// operands runs over them together; one that the result does not name is summed over; one twice in an operand takes
/// its diagonal. Without `->` the result has the letters that occur once, in alphabetic order. As NumPy, without
/// `...`; operands are contracted from left to right.
///
/// # Errors
/// A specification that does not fit the operands; extents of one letter that differ.
///
/// # Example
/// ```
/// # use tapeflow_core::{Tensor, einsum};
/// let a = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 4.0], [2, 2]);
/// assert_eq!(einsum("ij,kj->ik", &[&a, &a]).to_vec::<f32>()?, [5.0, 11.0, 11.0, 25.0]);
/// assert_eq!(einsum("ii", &[&a]).item::<f32>()?, 5.0);
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
#[track_caller]
pub fn einsum<T: AsRef<Tensor>>(specification: &str, operands: &[T]) -> Tensor {
    let site = Site::here();
    let operands: Vec<&Tensor> = operands.iter().map(AsRef::as_ref).collect();
    contract(specification, &operands).unwrap_or_else(|problem| {
        let like = operands.first().map_or_else(TensorType::scalar_f32, |t| t.ty().clone());
        let ty = TensorType { shape: Shape::default(), ..like };
        Tensor::mistake_in(&operands, Error::new("einsum", problem, site), ty)
    })
}

#[track_caller]
fn contract(specification: &str, operands: &[&Tensor]) -> Result<Tensor, Problem> {
    let (inputs, wanted) = parse(specification)?;
    if inputs.len() != operands.len() {
        let (named, given) = (inputs.len(), operands.len());
        let why = format!("`{specification}` names {named} operands, and {given} are given");
        return Err(Problem::Argument(why.into()));
    }
    check_extents(&inputs, operands)?;
    let mut terms: Vec<Term> = Vec::with_capacity(operands.len());
    for (letters, operand) in inputs.into_iter().zip(operands) {
        terms.push(diagonals(Term { value: (*operand).clone(), letters }));
    }
    let mut terms = terms.into_iter();
    let Some(mut total) = terms.next() else {
        return Err(Problem::Argument("at least one operand is needed".into()));
    };
    while let Some(next) = terms.next() {
        let needed = |c: &char| wanted.contains(c) || terms.as_slice().iter().any(|t| t.letters.contains(c));
        total = product(&total, &next, needed);
    }
    let total = summed(total, |c| wanted.contains(c));
    let order: Vec<usize> = wanted.iter().filter_map(|c| total.letters.iter().position(|l| l == c)).collect();
    Ok(total.value.permute(order))
}

/// The letters of each operand and of the result.
fn parse(specification: &str) -> Result<(Vec<Letters>, Letters), Problem> {
    let refuse = |why: &str| Problem::Argument(format!("`{specification}`: {why}").into());
    let text: String = specification.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, result) = match text.split_once("->") {
        Some((inputs, result)) => (inputs, Some(result)),
        None => (&text[..], None),
    };
    if let Some(other) =
        inputs.chars().chain(result.unwrap_or_default().chars()).find(|c| !c.is_alphabetic() && *c != ',')
    {
        return Err(refuse(&format!("`{other}` is no letter; axes are letters, operands are separated by commas")));
    }
    let letters: Vec<Letters> = inputs.split(',').map(|part| part.chars().collect()).collect();
    let times = |c: char| inputs.chars().filter(|&l| l == c).count();
    let wanted: Letters = match result {
        Some(result) => result.chars().collect(),
        None => {
            let mut once: Letters = inputs.chars().filter(|&c| c != ',' && times(c) == 1).collect();
            once.sort_unstable();
            once
        }
    };
    for (i, &c) in wanted.iter().enumerate() {
        if c == ',' || times(c) == 0 {
            return Err(refuse(&format!("the result names `{c}`, which no operand has")));
        }
        if wanted[..i].contains(&c) {
            return Err(refuse(&format!("the result names `{c}` twice")));
        }
    }
    Ok((letters, wanted))
}

fn check_extents(inputs: &[Letters], operands: &[&Tensor]) -> Result<(), Problem> {
    let mut extents: Vec<(char, usize)> = Vec::new();
    for (letters, operand) in inputs.iter().zip(operands) {
        let shapes = || operands.iter().map(|t| t.shape().clone()).collect();
        if letters.len() != operand.ndim() {
            let named: String = letters.iter().collect();
            let rule =
                format!("`{named}` names {} axes, and {} has {}", letters.len(), operand.shape(), operand.ndim());
            return Err(Problem::Shapes { shapes: shapes(), rule: rule.into() });
        }
        for (&c, &extent) in letters.iter().zip(&operand.shape()[..]) {
            match extents.iter().find(|(l, _)| *l == c) {
                Some((_, other)) if *other != extent => {
                    let rule = format!("`{c}` is an axis of {other} and one of {extent}").into();
                    return Err(Problem::Shapes { shapes: shapes(), rule });
                }
                Some(_) => {}
                None => extents.push((c, extent)),
            }
        }
    }
    Ok(())
}

/// Takes the diagonal of letters that occur twice: all else is zero, and a sum leaves it.
#[track_caller]
fn diagonals(mut term: Term) -> Term {
    while let Some((first, second)) = twice(&term.letters) {
        let (n, rank) = (term.value.shape()[first], term.letters.len());
        let index = Tensor::arange_on(n, DType::I64, term.value.device());
        let along = |axis: usize| {
            let mut dims = vec![1; rank];
            dims[axis] = n;
            index.reshape(dims)
        };
        let kept = along(first).eq(&along(second)).where_(&term.value, &term.value.zeros_like());
        term.value = kept.sum_dim(second, false);
        term.letters.remove(second);
    }
    term
}

fn twice(letters: &[char]) -> Option<(usize, usize)> {
    let pair = |(i, c): (usize, &char)| letters[i + 1..].iter().position(|l| l == c).map(|j| (i, i + 1 + j));
    letters.iter().enumerate().find_map(pair)
}

/// Sums over the letters that nobody needs.
#[track_caller]
fn summed(mut term: Term, needed: impl Fn(&char) -> bool) -> Term {
    let axes: Vec<usize> = (0..term.letters.len()).filter(|&i| !needed(&term.letters[i])).collect();
    if !axes.is_empty() {
        term.value = term.value.sum_dim(&axes[..], false);
        term.letters.retain(|c| needed(c));
    }
    term
}

/// The product of two terms, summed over what nobody needs any more: batch axes, rows, columns, and one product.
#[track_caller]
fn product(a: &Term, b: &Term, needed: impl Fn(&char) -> bool) -> Term {
    let shared = |c: &char| a.letters.contains(c) && b.letters.contains(c);
    let a = summed(a.clone(), |c| needed(c) || shared(c));
    let b = summed(b.clone(), |c| needed(c) || shared(c));
    let of = |term: &Term, keep: &dyn Fn(&char) -> bool| {
        term.letters.iter().copied().filter(|c| keep(c)).collect::<Letters>()
    };
    let batch = of(&a, &|c| shared(c) && needed(c));
    let inner = of(&a, &|c| shared(c) && !needed(c));
    let (rows, columns) = (of(&a, &|c| !shared(c)), of(&b, &|c| !shared(c)));
    let extent = |c: &char| {
        let of = |t: &Term| t.letters.iter().position(|l| l == c).map(|i| t.value.shape()[i]);
        of(&a).or_else(|| of(&b)).unwrap_or(1)
    };
    let extents = |letters: &[char]| letters.iter().map(extent).collect::<Vec<usize>>();
    let count = |letters: &[char]| letters.iter().map(extent).product::<usize>();
    let arranged = |term: &Term, parts: [&Letters; 2]| {
        let order = batch.iter().chain(parts[0]).chain(parts[1]);
        let order: Vec<usize> = order.filter_map(|c| term.letters.iter().position(|l| l == c)).collect();
        term.value.permute(order).reshape([extents(&batch), vec![count(parts[0]), count(parts[1])]].concat())
    };
    let value = match inner.is_empty() {
        // Nothing is summed: elements are multiplied, whatever their dtype.
        true => arranged(&a, [&rows, &inner]) * arranged(&b, [&inner, &columns]),
        false => arranged(&a, [&rows, &inner]).matmul(&arranged(&b, [&inner, &columns])),
    };
    let letters: Letters = batch.iter().chain(&rows).chain(&columns).copied().collect();
    Term { value: value.reshape(extents(&letters)), letters }
}
