//! Reverse mode over one function: how cotangents flow from an output to parameters and meet on the way.
//! The derivative of each operation stands in `derivative.rs`.

use crate::derivative::shares;
use crate::{Builder, Extent, Op, ScalarFn, Type, V};

/// The vector-Jacobian products of one output with several parameters, computed together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vjps {
    /// Its parameters are the function's and then the cotangent; its outputs are the cotangents of parameters.
    pub function: ScalarFn,
    /// For each parameter asked for, the index of its output; none if the output does not depend on it through floats.
    pub shares: Vec<Option<usize>>,
}

impl ScalarFn {
    /// The vector-Jacobian product of one output with one parameter, as a function: from the parameters and then that
    /// output's cotangent to the parameter's cotangent. It differentiates again.
    ///
    /// None if the output does not depend on the parameter through floats; a dependence whose derivative is zero
    /// everywhere (`floor`) gives zeros.
    ///
    /// A `Row` parameter that meets elements gets the sum of their cotangents along the row. A branch of a `select`
    /// that is not taken gets 0, even where its own derivative is infinite or NaN.
    ///
    /// # Panics
    /// If there is no such output or parameter, or the function does not verify.
    ///
    /// ```
    /// use tapeflow_ir::{Builder, Column, DType, Precision, Type, Unary};
    ///
    /// let mut b = Builder::new();
    /// let x = b.input(Type::lane(DType::F64));
    /// let y = b.unary(Unary::Exp, x);
    /// let exp = b.finish(&[y]);
    /// let vjp = exp.vjp(0, 0).unwrap();
    /// let share = vjp.eval(&[Column::Float(vec![0.0]), Column::Float(vec![3.0])], 1, Precision::Exact);
    /// assert_eq!(share, [Column::Float(vec![3.0])]);
    /// ```
    pub fn vjp(&self, output: usize, input: usize) -> Option<ScalarFn> {
        let vjps = self.vjps(output, &[input]);
        vjps.shares[0].map(|_| vjps.function)
    }

    /// [`ScalarFn::vjp`] for several parameters at once, which share what they have in common.
    ///
    /// # Panics
    /// If there is no such output or parameter, or the function does not verify.
    pub fn vjps(&self, output: usize, inputs: &[usize]) -> Vjps {
        let parameter_types: Vec<Type> = inputs.iter().map(|&input| self.inputs[input]).collect();
        let function = self.simplify();
        let root = function.outputs[output];
        let reached = function.depends_on(inputs);
        let arrives = |input: usize| {
            let parameter = Op::Input(input as u32);
            let is_reached = |index: usize| reached[index] && function.values[index].0 == parameter;
            (0..=root.0 as usize).find(|&index| is_reached(index) && function.leads_to(index, root, &reached))
        };
        let sources: Vec<Option<V>> = inputs.iter().map(|&input| arrives(input).map(|index| V(index as u32))).collect();

        let mut flow = Flow { contributions: vec![Vec::new(); function.values.len()], b: Builder::extend(function) };
        let cotangent = flow.b.input(flow.b.ty(root));
        if reached[root.0 as usize] {
            flow.contributions[root.0 as usize].push(Contribution { value: cotangent, guard: Vec::new() });
        }
        let mut arrived: Vec<Option<V>> = vec![None; flow.contributions.len()];
        for index in (0..=root.0 as usize).rev() {
            let value = V(index as u32);
            let Some(total) = flow.total(value) else { continue };
            let op = flow.b.op(value);
            if matches!(op, Op::Input(_)) {
                arrived[index] = Some(flow.settle(&total, 0));
                continue;
            }
            for share in shares(&mut flow.b, op, value, total.value) {
                if reached[share.to.0 as usize] {
                    let guard = total.guard.iter().copied().chain(share.only).collect();
                    flow.contribute(value, share.to, Contribution { value: share.value, guard });
                }
            }
        }

        let mut outputs = Vec::new();
        let mut shares = Vec::new();
        for (source, ty) in sources.into_iter().zip(parameter_types) {
            shares.push(source.map(|source| {
                let value = arrived[source.0 as usize].unwrap_or_else(|| flow.b.float(ty.dtype, 0.0));
                outputs.push(if ty.extent == Extent::Lane { flow.b.repeat(value) } else { value });
                outputs.len() - 1
            }));
        }
        Vjps { function: flow.b.finish(&outputs).simplify(), shares }
    }

    /// Which values depend on one of those parameters through floats.
    fn depends_on(&self, inputs: &[usize]) -> Vec<bool> {
        let mut reached: Vec<bool> = Vec::with_capacity(self.values.len());
        for &(op, ty) in &self.values {
            let depends = match op {
                Op::Input(index) => inputs.contains(&(index as usize)),
                Op::Detach(_) => false,
                op => op.operands().any(|v| reached[v.0 as usize]),
            };
            reached.push(depends && ty.dtype.is_float());
        }
        reached
    }

    /// Whether `root` depends on value `from` through `reached` values.
    fn leads_to(&self, from: usize, root: V, reached: &[bool]) -> bool {
        let root = root.0 as usize;
        let mut leads = vec![false; root + 1];
        leads[from] = true;
        for index in from + 1..=root {
            leads[index] = reached[index] && self.values[index].0.operands().any(|v| leads[v.0 as usize]);
        }
        leads[root] && reached[root]
    }
}

/// A part of a cotangent that counts only where every bool of `guard` is as said, and is 0 elsewhere. The selection is
/// put off until parts meet or arrive, so that what lies between cannot turn a 0 into NaN.
#[derive(Clone)]
struct Contribution {
    value: V,
    guard: Vec<(V, bool)>,
}

struct Flow {
    b: Builder,
    /// By value of the function: what its users gave it, latest user first, one part per guard.
    contributions: Vec<Vec<Contribution>>,
}

impl Flow {
    /// `user` gives `part` to its operand `to`.
    fn contribute(&mut self, user: V, to: V, part: Contribution) {
        let spread = self.b.ty(to).extent == Extent::Row && self.b.ty(user).extent == Extent::Lane;
        let part = match spread {
            false => part,
            // A selection by element must be made before the elements are summed.
            true if part.guard.iter().any(|&(v, _)| self.b.ty(v).extent == Extent::Lane) => {
                let value = self.settle(&part, 0);
                Contribution { value: self.b.along(value), guard: Vec::new() }
            }
            true => Contribution { value: self.b.along(part.value), ..part },
        };
        let parts = &mut self.contributions[to.0 as usize];
        match parts.iter_mut().find(|other| other.guard == part.guard) {
            Some(other) => other.value = self.b.plus(other.value, part.value),
            None => parts.push(part),
        }
    }

    /// All of a value's parts as one. The first is taken as it is, never added to 0.
    fn total(&mut self, value: V) -> Option<Contribution> {
        let mut parts = std::mem::take(&mut self.contributions[value.0 as usize]);
        while let Some((i, j)) = complements(&parts) {
            let later = parts.remove(j);
            let earlier = parts.remove(i);
            let merged = self.choose(earlier, &later);
            match parts.iter_mut().find(|other| other.guard == merged.guard) {
                Some(other) => other.value = self.b.plus(other.value, merged.value),
                None => parts.insert(i, merged),
            }
        }
        let first = parts.first()?.clone();
        let common = parts.iter().fold(first.guard.len(), |common, part| {
            common.min(part.guard.iter().zip(&first.guard).take_while(|(a, b)| a == b).count())
        });
        let mut total = self.settle(&first, common);
        for part in &parts[1..] {
            let settled = self.settle(part, common);
            total = self.b.plus(total, settled);
        }
        Some(Contribution { value: total, guard: first.guard[..common].to_vec() })
    }

    /// Two parts whose guards differ in the sense of the last bool only: one selection, no addition.
    fn choose(&mut self, mut one: Contribution, other: &Contribution) -> Contribution {
        match one.guard.pop() {
            Some((condition, true)) => one.value = self.b.select(condition, one.value, other.value),
            Some((condition, false)) => one.value = self.b.select(condition, other.value, one.value),
            None => unreachable!("parts without a guard are no complements"),
        }
        one
    }

    /// The value of a part with the selections after the first `keep` made.
    fn settle(&mut self, part: &Contribution, keep: usize) -> V {
        let mut value = part.value;
        for &(condition, sense) in part.guard[keep..].iter().rev() {
            let zero = self.b.float(self.b.ty(value).dtype, 0.0);
            value = match sense {
                true => self.b.select(condition, value, zero),
                false => self.b.select(condition, zero, value),
            };
        }
        value
    }
}

/// Two parts with guards equal but for the sense of the last bool.
fn complements(parts: &[Contribution]) -> Option<(usize, usize)> {
    let is_pair = |a: &Contribution, b: &Contribution| match (a.guard.split_last(), b.guard.split_last()) {
        (Some(((v, sense), before)), Some(((w, other), rest))) => v == w && sense != other && before == rest,
        _ => false,
    };
    (0..parts.len()).find_map(|i| (i + 1..parts.len()).find(|&j| is_pair(&parts[i], &parts[j])).map(|j| (i, j)))
}
